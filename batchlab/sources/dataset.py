import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray
from pydantic import Field

from batchlab.errors import BadInput
from batchlab.imported import imported
from batchlab.sources.arrays import ALONE, MOST_COLUMNS, columns_of_arrays
from batchlab.sources.base import Source
from batchlab.sources.held import TableReading
from batchlab.sources.items import FETCHES, Items, fetched
from batchlab.sources.unloaded import without_loader

if TYPE_CHECKING:
    import pyarrow as pa

TARGET = "y"


class DataSet(Source):
    """A map-style torch data set, or one of Hugging Face's: `factory = "package.module:function"`, called without arguments, returns it.

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
        data = _made("source.factory", self.factory)
        plain = None if self.plain is None else _made("source.plain", self.plain)
        return ItemsReading(fetched(data, None, plain, self.fetches, seed))


def _made(key: str, factory: str) -> Any:
    """Return the data set that the named factory makes; raises BadInput that says what it raised."""
    try:
        return without_loader(imported(factory, key)())
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{key} '{factory}' raised {type(error).__name__}: {error}") from error


class ItemsReading(TableReading):
    """A data set whose items are held: a column for each number of their inputs, and their target."""

    def __init__(self, items: Items) -> None:
        super().__init__(_table(items))
        self._notes, self._versions = items.notes, items.versions

    @property
    def notes(self) -> tuple[str, ...]:
        return self._notes

    @property
    def versions(self) -> NDArray[Any] | None:
        return self._versions

    @property
    def fingerprint(self) -> str:
        """A digest of the table, and of its versions."""
        if self._versions is None:
            return super().fingerprint
        return hashlib.sha256(super().fingerprint.encode() + self._versions.tobytes()).hexdigest()


def _table(items: Items) -> "pa.Table":
    import pyarrow as pa

    flat = items.inputs.reshape(len(items.inputs), -1)
    width = flat.shape[1]
    if width > MOST_COLUMNS:
        raise BadInput(f"an item has {width:,} numbers {items.inputs.shape[1:]}; at most {MOST_COLUMNS:,} can be columns of a table.")
    columns: dict[str, Any] = columns_of_arrays({ALONE: flat, TARGET: items.target}, slice(None))
    return pa.table({name: pa.array(values) for name, values in columns.items()})
