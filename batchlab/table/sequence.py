"""Rows in sequence: those of a group by themselves in the order of time, each with its target some rows later, so that the rows which a
model sees at once lie side by side in the table's files."""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.errors import BadInput
from batchlab.files.mapped import gathered
from batchlab.records import Record
from batchlab.serving.batchlab_serving import InSequence, PackedColumn
from batchlab.table.columns import WindowRule
from batchlab.table.durations import length_of
from batchlab.table.writing import Draft, RowsFile

Sides = Mapping[str, NDArray[Any]]
ROWS_AT_ONCE = 2**16
GAP_STEPS = 10.0
"""Without a rule of the user's a step in time of more than so many median steps is a gap."""
HISTORY, AHEAD, MOST_HISTORY = "history", "ahead", np.iinfo(np.int32).max


class Sequenced(Record):
    """What became of rows put in sequence: how many remain, and how many had no target for lack of a later row."""

    sequence: InSequence
    rows: int
    targetless: int
    runs: int


def put_in_sequence(
    draft: Draft, rule: WindowRule, time: PackedColumn | None, group: str | None, target: str, holes: Iterable[Sides] = ()
) -> Sequenced:
    """Write the files of a draft anew in sequence, with the number of rows before each in its run (`history.npy`) and the moment of its
    target (`ahead.npy`).

    A run is what follows each other in a group without a gap, and without one of the `holes`: times and groups of rows that were left out.
    Rows without another one `horizon` later in their run have no target and are left out. Raises BadInput where rows of a group share a
    moment, and where no row would remain.
    """
    times, groups = _with_holes(draft, holes)
    count = len(np.load(draft.path / "target.npy", mmap_mode="r"))
    order = np.lexsort((times,) if groups is None else (times, groups))
    left_out = order >= count
    before, order = np.cumsum(left_out)[~left_out], order[~left_out]
    steps = np.diff(times[order].astype(np.float64), prepend=-math.inf)
    begins = np.zeros(count, bool) if groups is None else np.diff(groups[order], prepend=~groups[order[:1]]) != 0
    begins[0] = True
    _check_steps(steps[~begins], time, group)
    gap = None if time is None else _gap(rule, steps[~begins], times.dtype.kind == "i")
    begins |= np.diff(before, prepend=before[:1]) > 0
    if gap is not None:
        begins |= steps > gap
    starts = np.flatnonzero(begins)
    history = np.arange(count) - np.repeat(starts, np.diff(starts, append=count))
    last_of_run = np.repeat(np.append(starts[1:], count) - 1, np.diff(starts, append=count))
    kept = np.flatnonzero(np.arange(count) + rule.horizon <= last_of_run)
    _check_kept(kept, history, rule, len(starts))
    shutil.copyfile(draft.path / "time.npy", draft.path / f"{AHEAD}.npy")
    _write(draft, order, kept, rule.horizon, np.minimum(history[kept], MOST_HISTORY))
    own_past = target if rule.horizon else None
    sequence = InSequence(rows=rule.rows, horizon=rule.horizon, gap=gap, time=time, group=group, own_past=own_past)
    return Sequenced(sequence=sequence, rows=len(kept), targetless=count - len(kept), runs=len(starts))


def _with_holes(draft: Draft, holes: Iterable[Sides]) -> "tuple[NDArray[Any], NDArray[Any] | None]":
    """Return the times and groups of the draft's rows, and after them those of rows that were left out, where they have a moment."""
    parts = [{name: np.load(path) for name in ("time", "group") if (path := draft.path / f"{name}.npy").exists()}]
    for hole in holes:
        moments = hole["time"]
        known = moments != np.iinfo(np.int64).min if moments.dtype.kind == "i" else np.isfinite(moments.astype(np.float64))
        parts.append({name: side[known] for name, side in hole.items()})
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return found["time"], found.get("group")


def whole_windows(labels: NDArray[np.uint8], history: NDArray[np.int32], sequence: InSequence) -> NDArray[np.bool_]:
    """Return which rows have a window, and a target, that lie in their own part (`labels` `[rows]`) and run. Of the last rows of a run the
    targets' rows are not in the table: theirs lie in the part in which the run ends, as far as this tells."""
    count, numbers = len(labels), np.arange(len(labels))
    begins = np.ones(count, bool)
    begins[1:] = (labels[1:] != labels[:-1]) | (history[1:] == 0)
    starts = np.flatnonzero(begins)
    lengths, ends = np.diff(starts, append=count), np.append(starts[1:], count)
    whole = numbers - np.repeat(starts, lengths) >= sequence.rows - 1
    beyond = numbers + sequence.horizon >= np.repeat(ends, lengths)
    run_ends = np.append(history[1:] == 0, True)[ends - 1]
    return np.asarray(whole & (~beyond | np.repeat(run_ends, lengths)), bool)


def windows(features: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """Return a view `[windows, rows × columns]` of packed features: at each place the so many rows that begin there, oldest first."""
    count, width = features.shape
    strides = (features.strides[0], features.itemsize)
    # by its constructor, so that a mapped file stays known as one
    return np.ndarray((max(0, count - rows + 1), rows * width), features.dtype, features, strides=strides)


def notes(sequenced: Sequenced) -> list[str]:
    """Say how the rows follow each other, and what was left out."""
    sequence = sequenced.sequence
    place = "the order of rows" if sequence.time is None else f"'{sequence.time.name}'"
    each = f" of each '{sequence.group}'" if sequence.group else ""
    found = [f"a model sees {sequence.rows} rows{each} at once, in the order of {place.removeprefix('the order of ')}"]
    if sequence.gap is not None:
        unit = 1e6 if sequence.time is not None and sequence.time.kind == "datetime" else 1.0
        step = _duration(sequence.gap / unit) if unit > 1 else f"{sequence.gap:g}"
        runs = "1 run" if sequenced.runs == 1 else f"{sequenced.runs:,} runs"
        found.append(f"a step in time of more than {step} is a gap, which no window reaches over: {runs} without one")
    if sequenced.targetless:
        later = "1 row" if sequence.horizon == 1 else f"{sequence.horizon} rows"
        rows = "1 row has" if sequenced.targetless == 1 else f"{sequenced.targetless:,} rows have"
        found.append(f"{rows} no target, which would come {later} later: the run ends before")
    return found


def _duration(seconds: float) -> str:
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.4g} {name}"
    return f"{seconds:.4g} seconds"


def _check_steps(steps: NDArray[np.float64], time: PackedColumn | None, group: str | None) -> None:
    """Raise BadInput where rows that follow each other share a moment: which is first cannot be told."""
    same = int((steps == 0).sum())
    if same and time is not None:
        of = f"of one '{group}' " if group else ""
        way = "remove repeats" if group else "name the column that tells several series apart (--group-column), or remove repeats"
        raise BadInput(
            f"{same:,} of {len(steps) + 1:,} rows {of}have the '{time.name}' of another one, so that their order is not known; {way}."
        )


def _gap(rule: WindowRule, steps: NDArray[np.float64], dated: bool) -> float | None:
    if rule.gap is None:
        return GAP_STEPS * float(np.median(steps)) if len(steps) else None
    gap = length_of(rule.gap, dated, "columns.window.gap")
    if not gap > 0:
        raise BadInput(f"columns.window.gap is {rule.gap}; it must be longer than nothing.")
    return gap


def _check_kept(kept: NDArray[np.int64], history: NDArray[np.int64], rule: WindowRule, runs: int) -> None:
    if not len(kept) or history[kept].max() < rule.rows - 1:
        raise BadInput(
            f"no window of {rule.rows} rows with a target {rule.horizon} later fits: the longest of {runs:,} runs of rows without a gap "
            f"has {int(history.max()) + 1:,}; use a shorter window (columns.window.rows), or a longer columns.window.gap."
        )


def _write(draft: Draft, order: NDArray[np.int64], kept: NDArray[np.int64], horizon: int, history: NDArray[np.int64]) -> None:
    """Write every file anew: the rows `kept` of those in `order`, with the target of the row `horizon` later."""
    for path in sorted(draft.path.glob("*.npy")):
        rows = order[kept + horizon] if path.stem in ("target", AHEAD) else order[kept]
        _rewrite(path, rows)
    _append(
        draft.path / f"{HISTORY}.npy", (history[start : start + ROWS_AT_ONCE] for start in range(0, len(history), ROWS_AT_ONCE)), np.int32
    )


def _rewrite(path: Path, rows: NDArray[np.int64]) -> None:
    old = np.load(path, mmap_mode="r")
    beside = path.with_suffix(".part")
    portions = (gathered(old, rows[start : start + ROWS_AT_ONCE]) for start in range(0, len(rows), ROWS_AT_ONCE))
    _append(beside, portions, old.dtype, old.shape[1] if old.ndim == 2 else None)
    beside.replace(path)


def _append(path: Path, portions: "Iterator[NDArray[Any]]", dtype: Any, width: int | None = None) -> None:
    file = RowsFile(path, dtype, width)
    for portion in portions:
        file.add(portion)
    file.close()
