"""What a packed table holds, as JSON beside it, and the table itself."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batchlab.records import Record
from batchlab.serving.batchlab_serving import Kind, PackedColumn
from batchlab.table.target import Target


class ColumnFacts(Record):
    """What was found in one raw column, in its own unit: counts over the packed `rows`.

    Range and mean are None for categories, and of microseconds since 1970 for dates; `distinct` only of categories; `ascending`
    says that whole numbers never fall from row to row, as those that count rows do.
    """

    name: str
    kind: Kind
    missing: int = 0
    infinite: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    spread: float | None = None
    distinct: int | None = None
    ascending: bool = False
    rows: int = 0

    @property
    def missing_share(self) -> float:
        """The share of rows without a finite value."""
        return (self.missing + self.infinite) / max(self.rows, 1)


class Schema(Record):
    """What a packed table holds. Every source row is in `rows`, by reason in `quarantined`, or for lack of a target in `unlabelled`; what
    people should know is in `notes`."""

    source: str
    rows: int
    columns: tuple[PackedColumn, ...]
    target: Target
    digest: str
    quarantined: dict[str, int] = Field(default_factory=dict)
    unlabelled: int = 0
    notes: tuple[str, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the raw feature columns."""
        return tuple(column.name for column in self.columns)

    @property
    def packed_names(self) -> tuple[str, ...]:
        """The names of the packed columns: one each, but several for a date."""
        return tuple(name for column in self.columns for name in column.packed_names)

    @property
    def source_rows(self) -> int:
        """All rows that the source had."""
        return self.rows + self.unlabelled + sum(self.quarantined.values())


@dataclass(frozen=True)
class PackedTable:
    """An opened packed table: arrays are memory-mapped on first use."""

    path: Path
    schema: Schema

    @classmethod
    def open(cls, path: Path) -> "PackedTable":
        """Open the table in folder `path`."""
        return cls(path, Schema.model_validate_json((path / "schema.json").read_text()))

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """`[rows, packed columns]`, row-major; NaN is missing."""
        return self._load("features")

    @cached_property
    def target(self) -> NDArray[Any]:
        """`[rows]`: float64 in the target's unit, or int64 class numbers."""
        return self._load("target")

    def side_column(self, part: str) -> NDArray[Any] | None:
        """`[rows]`: `time` (int64 microseconds or float64), `weight` (float64), `group` or `key` (uint64 hashes); None without one."""
        return self._load(part) if (self.path / f"{part}.npy").exists() else None

    @cached_property
    def facts(self) -> tuple[ColumnFacts, ...]:
        """What was found in every column of the source, target first."""
        return tuple(ColumnFacts.model_validate(item) for item in json.loads((self.path / "statistics.json").read_text()))

    @property
    def quarantine(self) -> Path | None:
        """The Parquet file of the rows that cannot be used; None when all can."""
        path = self.path / "quarantine.parquet"
        return path if path.exists() else None

    @property
    def example(self) -> Path:
        """A Parquet file of a few raw rows."""
        return self.path / "example.parquet"

    def read(self, part: str, start: int, rows: int) -> NDArray[Any]:
        """Return consecutive rows of `features` or `target`, read from the file: mapped pages would count as this process's memory."""
        path = self.path / f"{part}.npy"
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            width = int(np.prod(shape[1:], dtype=np.int64))
            file.seek(start * width * dtype.itemsize, 1)
            found = np.fromfile(file, dtype, max(0, min(rows, shape[0] - start)) * width)
        return found.reshape(-1, *shape[1:])

    def _load(self, part: str) -> NDArray[Any]:
        return np.asarray(np.load(self.path / f"{part}.npy", mmap_mode="r"))
