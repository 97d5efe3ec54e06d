"""The pass that packs: raw batches in; usable rows, their figures and the rows for quarantine out."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchlab.serving.batchlab_serving import PackedColumn, as_words, exact, instants, is_text, without_missing
from batchlab.table import contract as contracts
from batchlab.table.codes import Codes
from batchlab.table.columns import Columns
from batchlab.table.contract import Contract
from batchlab.table.measuring import Figures
from batchlab.table.plan import Plan
from batchlab.table.reasons import Reasons
from batchlab.table.survey import decoded
from batchlab.table.target import MOST_CLASSES
from batchlab.table.writing import Draft, Quarantine, RowsFile

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLE_ROWS = 5
FAR_OUT = 1e4
"""A column whose mean is so many times its spread is packed less that mean: float32 could not tell its values apart."""
NO_TIME = np.iinfo(np.int64).min
Numbers = NDArray[np.float64]


class Packer:
    """Writes portions of a source into a draft, and gathers what there is to say about them. `precision` holds the raw numbers exactly."""

    def __init__(self, plan: Plan, columns: Columns, contract: Contract | None, draft: Draft, precision: "type[np.floating[Any]]") -> None:
        self.plan, self.columns, self.contract = plan, columns, contract
        self.features = list(plan.features)
        width = sum(len(column.packed_names) for column in self.features)
        self.figures, self.target_figures = Figures(width), Figures(1)
        self.quarantine = Quarantine(draft.path / "quarantine.parquet")
        self.files = {
            "features": RowsFile(draft.path / "features.npy", np.float32, width),
            "target": RowsFile(draft.path / "target.npy", np.float64),
        }
        self.target_values: NDArray[np.float64] | None = np.zeros(0)
        self.weights = Figures(1)
        self.codes, self.target_codes = Codes(self.features), Codes([plan.target])
        self.unlabelled = Counter[str]()
        self.holes: list[dict[str, NDArray[np.generic]]] = []
        self.draft, self.source_rows = draft, 0
        self.precision = precision
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self.writing: Future[None] | None = None
        self.rows = 0
        places = np.cumsum([0, *(len(column.packed_names) for column in self.features)])
        self.rising = {int(place): -np.inf for place, column in zip(places, self.features, strict=False) if column.integer}

    @property
    def width(self) -> int:
        """How many packed columns there are."""
        return len(self.figures.missing)

    def add(self, batch: "pa.RecordBatch") -> None:
        """Pack the usable rows of one portion; put the others into quarantine."""
        reasons = Reasons(batch, self.quarantine, self.source_rows)
        target = self._target(batch, reasons)  # first: a row without one is left out whatever else is wrong with it
        values = self._features(batch, reasons)
        sides = self._sides(batch, reasons)
        self.source_rows += batch.num_rows
        kept = reasons.usable
        if not kept.all():
            if self.columns.window is not None:  # no window reaches over what is left out
                self.holes.append({part: side[~kept] for part, side in sides.items() if part in ("time", "group")})
            values, target, sides = values[:, kept], target[kept], {part: side[kept] for part, side in sides.items()}
        if not len(target):
            return
        if self.rows == 0:
            self._choose_offsets(values)
            self._keep_example(batch.select(self._read_by_models()).filter(_arrow_flags(kept)).slice(0, EXAMPLE_ROWS))
        offsets = np.concatenate([np.full(len(column.packed_names), column.offset) for column in self.features])
        rows, figures = _turned(values, offsets)
        self.figures.add(len(rows), figures)
        self.codes.add(values, figures[:, 2], figures[:, 3])
        target_figures = _turned(target[None], np.zeros(1))[1]
        self.target_figures.add(len(rows), target_figures)
        self.target_codes.add(target[None], target_figures[:, 2], target_figures[:, 3])
        self._write({"features": rows, "target": target, **sides})
        self._note_target(target)
        self._note_rising(values)
        self.rows += len(target)

    def _write(self, parts: "dict[str, NDArray[np.generic]]") -> None:
        """Write in the background, one portion behind."""
        self._await_writing()
        self.writing = self.writer.submit(self._append, parts)

    def _await_writing(self) -> None:
        if self.writing is not None:
            self.writing.result()

    def _append(self, parts: "dict[str, NDArray[np.generic]]") -> None:
        for part, rows in parts.items():
            if part not in self.files:
                self.files[part] = RowsFile(self.draft.path / f"{part}.npy", rows.dtype)
            self.files[part].add(rows)

    def _features(self, batch: "pa.RecordBatch", reasons: Reasons) -> Numbers:
        """Return the features as exact numbers `[packed columns, rows]`."""
        block, place = np.empty((self.width, batch.num_rows), self.precision), 0
        for column in self.features:
            values = decoded(batch.column(column.name))
            found, unreadable = exact(values, column)
            block[place : place + found.shape[1]] = found.T
            place += found.shape[1]
            if unreadable.any():
                reasons.unreadable(column, unreadable, values)
            terms = contracts.bounds(self.contract, column.name)
            if terms is not None:
                reasons.outside(column, terms, found, values)
        return block

    def _target(self, batch: "pa.RecordBatch", reasons: Reasons) -> Numbers:
        column = self.plan.target
        values = decoded(batch.column(column.name))
        found, unreadable = exact(values, column)
        reasons.unreadable(column, unreadable, values)
        gaps = np.isnan(found[:, 0]) & ~unreadable
        if gaps.any():
            self._note_unlabelled(values.filter(_arrow_flags(gaps)))
            reasons.leave_out(gaps)
        reasons.put(np.isinf(found[:, 0]), f"target '{column.name}' is infinite", column.name)
        terms = contracts.bounds(self.contract, column.name)
        if terms is not None:
            reasons.outside(column, terms, found, values)
        return np.asarray(found[:, 0], np.float64)

    def _sides(self, batch: "pa.RecordBatch", reasons: Reasons) -> "dict[str, NDArray[np.generic]]":
        """Return what stands beside the features: times, weights, and hashes of groups and keys."""
        sides: dict[str, NDArray[np.generic]] = {}
        if self.plan.time is not None:
            sides["time"] = self._times(decoded(batch.column(self.plan.time.name)), self.plan.time, reasons)
        elif self.columns.window is not None:
            sides["time"] = np.arange(self.source_rows, self.source_rows + batch.num_rows, dtype=np.float64)  # in the order of rows
        if self.plan.weight is not None:
            found, unreadable = exact(decoded(batch.column(self.plan.weight.name)), self.plan.weight)
            reasons.put(
                unreadable | ~np.isfinite(found[:, 0]), f"weight '{self.plan.weight.name}' is missing or no number", self.plan.weight.name
            )
            sides["weight"] = np.asarray(found[:, 0], np.float64)
            self.weights.add(len(found), _turned(sides["weight"][None], np.zeros(1))[1])
        for part, name in (("group", self.columns.group), ("key", self.columns.key)):
            if name is not None:
                sides[part] = _hashes(decoded(batch.column(name)), part, name, reasons)
        return sides

    def _times(self, values: "pa.Array", column: PackedColumn, reasons: Reasons) -> "NDArray[np.generic]":
        if column.kind == "datetime":
            when, unreadable = instants(values, column.formats)
            reasons.put(unreadable | (when == NO_TIME), f"time '{column.name}' is missing or no date", column.name)
            return when
        found, unreadable = exact(values, column)
        reasons.put(unreadable | ~np.isfinite(found[:, 0]), f"time '{column.name}' is missing or no number", column.name)
        return np.asarray(found[:, 0], np.float64)

    def _choose_offsets(self, values: Numbers) -> None:
        """Choose what is subtracted from columns whose values are many times farther from zero than from each other."""
        first = Figures(self.width)
        first.add(values.shape[1], _turned(values, np.zeros(self.width))[1])
        place = 0
        for number, column in enumerate(self.features):
            mean, spread = first.mean[place], first.spread[place]
            if column.kind == "number" and 0 < spread < abs(mean) / FAR_OUT:
                self.features[number] = replace(column, offset=float(round(mean)) if abs(mean) >= 1 else float(mean))
            place += len(column.packed_names)

    def _read_by_models(self) -> list[str]:
        """Return the raw columns that a model is given: the features and, in sequence, what tells group and order."""
        others = (self.columns.group, self.columns.time) if self.columns.window is not None else ()
        return list(dict.fromkeys([*(column.name for column in self.features), *(name for name in others if name)]))

    def _keep_example(self, rows: "pa.RecordBatch") -> None:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_batches([rows]), self.draft.path / "example.parquet")

    def _note_rising(self, values: Numbers) -> None:
        """Keep those columns of whole numbers that have not fallen yet, with their last value."""
        for place, last in list(self.rising.items()):
            column = values[place]
            if column[0] >= last and (column[1:] >= column[:-1]).all():
                self.rising[place] = float(column[-1])
            else:
                del self.rising[place]

    def _note_target(self, target: Numbers) -> None:
        """Keep the target's different values while they may still be classes."""
        if self.target_values is not None:
            merged = np.union1d(self.target_values, target)
            self.target_values = merged if len(merged) <= MOST_CLASSES else None

    def _note_unlabelled(self, values: "pa.Array") -> None:
        """Count rows without a target by how that is written: a class of the name 'none' would be among them."""
        import pyarrow.compute as pc

        if not is_text(values.type):
            self.unlabelled[""] += len(values)
            return
        counts = pc.value_counts(pc.utf8_trim_whitespace(values.fill_null("")))
        self.unlabelled.update(dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)))

    def code_notes(self) -> list[str]:
        """Return what looks like codes for missing values, in the target first."""
        return [*self.target_codes.notes(self.rows), *self.codes.notes(self.rows)]

    def close(self) -> None:
        """Finish all files."""
        self.quarantine.close()
        self.writer.shutdown()
        self._await_writing()
        for file in self.files.values():
            file.close()


def exact_precision(schema: "pa.Schema", columns: Sequence[PackedColumn]) -> "type[np.floating[Any]]":
    """Return the smallest precision that holds all raw numbers exactly: float32 where every column is one of short numbers."""
    import pyarrow as pa

    short = (pa.float32(), pa.float16(), pa.int8(), pa.int16(), pa.uint8(), pa.uint16(), pa.bool_())
    return np.float32 if all(schema.field(column.name).type in short for column in columns) else np.float64


def _turned(values: NDArray[Any], offsets: Numbers) -> tuple[NDArray[np.float32], Numbers]:
    from batchlab.table.turning import turned  # numba is most of a second to import, and most that opens tables packs none

    return turned(values, offsets)


def _hashes(values: "pa.Array", part: str, name: str, reasons: Reasons) -> "NDArray[np.generic]":
    """Return a hash of each value, the same in every run and on every machine."""
    import pandas as pd

    words = as_words(values)
    words = without_missing(words) if is_text(values.type) else words
    reasons.put(np.asarray(words.is_null().to_numpy(zero_copy_only=False), bool), f"{part} '{name}' is missing", name)
    return np.asarray(pd.util.hash_array(words.to_numpy(zero_copy_only=False)), np.uint64)


def _arrow_flags(flags: NDArray[np.bool_]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(flags)
