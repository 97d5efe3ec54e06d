from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from batchlab.errors import BadInput
from batchlab.imported import imported
from batchlab.items import Items, fetched, without_loader
from batchlab.sources.arrays import ALONE, MOST_COLUMNS, columns_of_arrays
from batchlab.sources.base import Source
from batchlab.sources.held import TableReading

if TYPE_CHECKING:
    import pyarrow as pa

TARGET = "y"


class DataSet(Source):
    """A map-style torch data set, or one of Hugging Face's: `factory = "package.module:function"`, called without arguments, returns it."""

    kind: Literal["dataset"] = "dataset"
    factory: str

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
        try:
            data = imported(self.factory, "source.factory")()
        except BadInput:
            raise
        except Exception as error:
            raise BadInput(f"source.factory '{self.factory}' raised {type(error).__name__}: {error}") from error
        return ItemsReading(fetched(without_loader(data)))


class ItemsReading(TableReading):
    """A data set whose items are held: a column for each number of their inputs, and their target."""

    def __init__(self, items: Items) -> None:
        super().__init__(_table(items))
        self._notes = items.notes

    @property
    def notes(self) -> tuple[str, ...]:
        return self._notes


def _table(items: Items) -> "pa.Table":
    import pyarrow as pa

    width = int(np.prod(items.inputs.shape[1:]))
    if width > MOST_COLUMNS:
        raise BadInput(f"an item has {width:,} numbers {items.inputs.shape[1:]}; at most {MOST_COLUMNS:,} can be columns of a table.")
    columns: dict[str, Any] = columns_of_arrays({ALONE: items.inputs, TARGET: items.target}, slice(None))
    return pa.table({name: pa.array(values) for name, values in columns.items()})
