from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batchlab.errors import BadInput
from batchlab.files.mapped import portion
from batchlab.imported import imported
from batchlab.sources.arrays import ALONE, block_rows, columns_of_arrays
from batchlab.sources.base import OnBadLine, Reading, Source
from batchlab.sources.items import FETCHES, Items, fetched
from batchlab.sources.unloaded import loader_notes, without_loader

if TYPE_CHECKING:
    import pyarrow as pa

TARGET = "y"


class DataSet(Source):
    """A torch data set, or one of Hugging Face's: `factory = "package.module:function"`, called without arguments, returns it.

    Where its items differ each time, trainings see `fetches` versions of each, and losses are told by those that `plain` returns.
    """

    kind: Literal["dataset"] = "dataset"
    factory: str
    plain: str | None = None
    fetches: int = Field(FETCHES, ge=1)

    @property
    def name(self) -> str:
        return self.factory.partition(":")[2]

    @property
    def default_target(self) -> str:
        return TARGET

    @property
    def identity(self) -> str:
        return self.factory

    def opened(self, seed: int, scratch: Path) -> "ItemsReading":
        given = _made("source.factory", self.factory)
        plain = None if self.plain is None else without_loader(_made("source.plain", self.plain))
        items = fetched(without_loader(given), None, plain, self.fetches, seed, scratch)
        return ItemsReading(replace(items, notes=(*loader_notes(given), *items.notes)))


def _made(key: str, factory: str) -> Any:
    """Return what the named factory makes, a data set or a DataLoader of one; raises BadInput that says what it raised."""
    try:
        return imported(factory, key)()
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{key} '{factory}' raised {type(error).__name__}: {error}") from error


class ItemsReading(Reading):
    """A data set whose items were fetched: a column for each number of their inputs, and their target."""

    def __init__(self, items: Items) -> None:
        self._items, self._rows_done = items, 0
        self._flat = items.inputs.reshape(len(items.inputs), -1)
        self._block_rows = block_rows(self._flat.shape[1])

    @cached_property
    def schema(self) -> "pa.Schema":
        """The columns; a row of thousands of numbers is asked for them thousands of times."""
        return self._batch(0, 1).schema

    @property
    def row_count(self) -> int:
        return len(self._flat)

    @property
    def size_bytes(self) -> int:
        return int(self._flat.nbytes + self._items.target.nbytes)

    @property
    def notes(self) -> tuple[str, ...]:
        return self._items.notes

    @property
    def versions(self) -> NDArray[Any] | None:
        return self._items.versions

    @property
    def fingerprint(self) -> str:
        """A digest of the inputs, their shape and type, the targets and the versions."""
        import xxhash

        inputs, target, versions = self._items.inputs, self._items.target, self._items.versions
        digest = xxhash.xxh3_128(f"{inputs.shape} {inputs.dtype} {target.dtype}".encode())
        for start in range(0, len(inputs), self._block_rows):
            digest.update(portion(inputs, start, start + self._block_rows).data)
        digest.update(target.view(np.uint8).data)
        if versions is not None:
            digest.update(versions.data)
        return digest.hexdigest()

    @property
    def share_read(self) -> float:
        return self._rows_done / max(len(self._flat), 1)

    def batches(self, on_bad_line: OnBadLine) -> "Iterator[pa.RecordBatch]":
        self._rows_done = 0
        for start in range(0, len(self._flat), self._block_rows):
            batch = self._batch(start, start + self._block_rows)
            yield batch
            self._rows_done += batch.num_rows

    def _batch(self, start: int, stop: int) -> "pa.RecordBatch":
        import pyarrow as pa

        columns = columns_of_arrays({ALONE: portion(self._flat, start, stop), TARGET: self._items.target[start:stop]}, slice(None))
        return pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})
