"""What a packed table holds, as JSON beside it, and the table itself."""

import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batchlab.errors import BadInput
from batchlab.files.mapped import gathered, portion
from batchlab.files.received import array_of, json_of, refusing, text_of
from batchlab.files.sealing import check_sealed
from batchlab.records import Record
from batchlab.serving.batchlab_serving import InSequence, Kind, PackedColumn
from batchlab.table.sequence import HISTORY, windows
from batchlab.table.target import Target

KINDS = {
    "features": ("<f4",),
    "target": ("<f8", "<i8"),
    "time": ("<f8", "<i8"),
    "weight": ("<f8",),
    "group": ("<u8",),
    "key": ("<u8",),
    "history": ("<i4",),
    "ahead": ("<f8", "<i8"),
}
"""The types of what a packed table holds, as packing writes them."""
VERSIONS = "versions.npy"
ROWS_AT_ONCE = 2**20


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
    people should know is in `notes`. With a `sequence` a model sees several rows at once."""

    source: str
    rows: int
    columns: tuple[PackedColumn, ...]
    target: Target
    digest: str
    quarantined: dict[str, int] = Field(default_factory=dict)
    unlabelled: int = 0
    sequence: InSequence | None = None
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
        """Open the table in folder `path`; raises BadInput for one that is not as it was written, or that packing never writes."""
        untouched = check_sealed(path, _again(path))
        with refusing(path / "schema.json", "description of a packed table", _again(path)):
            table = cls(path, Schema.model_validate_json(text_of(path / "schema.json")))
        if not untouched:
            table._check_classes()
        return table

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """`[rows, packed columns]`, row-major; NaN is missing."""
        return self._load("features")

    @property
    def span(self) -> int:
        """How many rows a model sees at once."""
        return 1 if self.schema.sequence is None else self.schema.sequence.rows

    def seen(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return what a model sees of these rows, `[rows, packed columns]`: they themselves or, in sequence, each with those before it,
        oldest first, `[rows, span × packed columns]`. Raises BadInput for a row that has too few before it."""
        if self.schema.sequence is None:
            return gathered(self.features, rows)
        if not self.has_history(rows).all():
            raise BadInput(f"some of {len(rows):,} rows have fewer than {self.span - 1} rows before them in their run.")
        return gathered(self._windows, rows - (self.span - 1))

    def has_history(self, rows: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return which of these rows have as many before them in their run as a model sees."""
        return np.ones(len(rows), bool) if self.history is None else np.asarray(gathered(self.history, rows) >= self.span - 1)

    @cached_property
    def history(self) -> NDArray[np.int32] | None:
        """`[rows]`: how many rows are before each in its run; None where models see one at a time."""
        return self._load(HISTORY) if self.schema.sequence is not None else None

    @cached_property
    def _windows(self) -> NDArray[np.float32]:
        return windows(self.features, self.span)

    @cached_property
    def target(self) -> NDArray[Any]:
        """`[rows]`: float64 in the target's unit, or int64 class numbers."""
        return self._load("target")

    def side_column(self, part: str) -> NDArray[Any] | None:
        """`[rows]`: `time` (int64 microseconds or float64), `weight` (float64), `group` or `key` (uint64 hashes), in sequence
        `ahead` (the time of each row's target); None without one."""
        return self._load(part) if (self.path / f"{part}.npy").exists() else None

    @cached_property
    def versions(self) -> NDArray[Any] | None:
        """`[versions, rows, …]`: further fetches of items that differ each time, which trainings see; None for other rows."""
        path = self.path / VERSIONS
        if not path.exists():
            return None
        found = array_of(path, "file of a packed table's versions")
        if found.ndim < 2 or found.shape[1] != self.schema.rows:
            raise BadInput(f"'{path}' holds {found.shape} instead of versions of {self.schema.rows:,} rows; {_again(self.path)}.")
        return found

    @cached_property
    def facts(self) -> tuple[ColumnFacts, ...]:
        """What was found in every column of the source, target first."""
        path = self.path / "statistics.json"
        with refusing(path, "list of what is in columns", _again(self.path)):
            return tuple(ColumnFacts.model_validate(item) for item in json_of(path))

    def notes(self, with_place: bool = True) -> list[str]:
        """Return what people should know of how the table was packed; `with_place` also where the rows are that cannot be used."""
        bad, lines = self.schema.quarantined, list(self.schema.notes)
        if bad:
            reasons = "; ".join(f"{reason}: {count:,}" for reason, count in sorted(bad.items(), key=lambda item: -item[1])[:5])
            place = f"; they are in {self.quarantine}" if with_place else ""
            lines.append(f"{sum(bad.values()):,} of {self.schema.source_rows:,} rows cannot be used ({reasons}){place}")
        return lines

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
        whole: NDArray[Any] = getattr(self, part)
        count, width = max(0, min(rows, len(whole) - start)), math.prod(whole.shape[1:])
        with (self.path / f"{part}.npy").open("rb") as file:
            file.seek(start * width * whole.itemsize - whole.nbytes, os.SEEK_END)
            found = np.fromfile(file, whole.dtype, count * width)
        return found.reshape(count, *whole.shape[1:])

    def _load(self, part: str) -> NDArray[Any]:
        path, kinds = self.path / f"{part}.npy", KINDS[part]
        found = array_of(path, "column of a packed table")
        shape = (self.schema.rows, len(self.schema.packed_names)) if part == "features" else (self.schema.rows,)
        if found.shape != shape or found.dtype.str not in kinds:
            raise BadInput(f"'{path}' holds {found.dtype} {found.shape} instead of {' or '.join(kinds)} {shape}; {_again(self.path)}.")
        return found

    def _check_classes(self) -> None:
        """Raise BadInput for class numbers that no class has: whoever looks them up would look elsewhere."""
        most = len(self.schema.target.classes)
        for start in range(0, self.schema.rows, ROWS_AT_ONCE) if most else ():
            numbers = portion(self.target, start, start + ROWS_AT_ONCE)
            if self.target.dtype.kind != "i" or numbers.min() < 0 or numbers.max() >= most:
                raise BadInput(f"'{self.path / 'target.npy'}' holds other numbers than those of {most} classes; {_again(self.path)}.")


def _again(path: Path) -> str:
    return f"remove '{path}', so that the table is packed again"
