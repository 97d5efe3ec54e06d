"""The rows laid along time: how the parts of the split lie there, and how the target goes."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from batchlab.files.mapped import gathered, portion
from batchlab.rows.assigning import EVERY, PARTS, UNUSED
from batchlab.rows.split import ROWS_AT_ONCE, Split
from batchlab.serving.batchlab_serving import DAY
from batchlab.table.schema import PackedTable

Numbers = NDArray[np.float64]
SPLIT_BINS, TARGET_BINS = 120, 60
ROWS_A_BIN, FEWEST_ROWS = 20, 5
ROWS_A_SHARE = 100
"""Of a split by chance, and of classes: shares of fewer rows would look uneven."""
BAND = (0.1, 0.9)
FAR = 0.001
"""Dates far out (a 9999-12-31 that stands for none) are gathered in the end bins where they would stretch the time more than threefold."""
LABELS = (*PARTS, "every part", "unused")
TIMED = ("chronological", "walk_forward")
"""The kinds of split that go by time."""


@dataclass(frozen=True)
class Timeline:
    """Sampled rows along what orders them: `name` is its column (None: the order of rows), `dated` says that it holds microseconds.

    `split` `[bins, labels]` counts rows by label in the bins between `split_edges`; `target` holds the mean and the band's ends
    `[bins, 3]`, NaN where there are too few rows, or how often each class occurs `[bins, classes]`. `spans` are the first and last time of
    each part, over all rows where `exact`.
    """

    name: str | None
    dated: bool
    split_edges: Numbers
    split: Numbers
    target_edges: Numbers
    target: Numbers
    spans: dict[str, tuple[float, float]]
    exact: bool


@dataclass(frozen=True)
class Order:
    """What orders the rows: the time column where there is one; `timed`: the split goes by time, without one by the order of rows."""

    column: str | None
    timed: bool


def timeline(
    table: PackedTable, split: Split, order: Order, rows: NDArray[np.int64], features: NDArray[np.float32], target: "NDArray[np.generic]"
) -> Timeline:
    """Return sampled rows along the time column, else the first date among the features, else their order."""
    name, dated, times = _times(table, order, rows, features)
    known, classes = np.isfinite(times), len(table.schema.target.classes)
    times, labels, target = times[known], np.asarray(split.labels[rows])[known], target[known]
    split_edges = _edges(times, SPLIT_BINS, ROWS_A_BIN if order.timed else ROWS_A_SHARE)
    target_edges = _edges(times, TARGET_BINS, ROWS_A_SHARE if classes else ROWS_A_BIN)
    counts = np.zeros((len(split_edges) - 1, UNUSED + 1))
    np.add.at(counts, (_bins(times, split_edges), labels), 1)
    along = _shares(times, target, target_edges, classes) if classes else _band(times, target.astype(np.float64), target_edges)
    exact = name is None or table.side_column("time") is not None
    spans = _all_spans(table, split) if exact else _spans(times, labels)
    return Timeline(name, dated, split_edges, counts, target_edges, along, spans, exact)


def _times(table: PackedTable, order: Order, rows: NDArray[np.int64], features: NDArray[np.float32]) -> tuple[str | None, bool, Numbers]:
    """Return the time of each sampled row, its column, and whether it is a date."""
    side, place = table.side_column("time"), 0
    if side is not None:
        return order.column or "time", side.dtype == np.int64, gathered(side, rows).astype(np.float64)
    for column in () if order.timed else table.schema.columns:
        if column.kind == "datetime" and column.parts[0] == "days" and np.isfinite(features[:, place]).any():
            return column.name, True, features[:, place].astype(np.float64) * DAY
        place += len(column.packed_names)
    return None, False, rows.astype(np.float64)


def _edges(times: Numbers, most: int, rows_a_bin: int) -> Numbers:
    low, high = float(times.min()), float(times.max())
    inner = np.quantile(times, (FAR, 1 - FAR))
    if inner[1] > inner[0] and high - low > 3 * (inner[1] - inner[0]):
        low, high = float(inner[0]), float(inner[1])
    count = int(np.clip(len(times) // rows_a_bin, 1, most))
    return np.linspace(low, high if high > low else low + 1, count + 1)


def _bins(times: Numbers, edges: Numbers) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(edges) - 2)
    return found


def _shares(times: Numbers, target: "NDArray[np.generic]", edges: Numbers, classes: int) -> Numbers:
    counts = np.zeros((len(edges) - 1, classes))
    np.add.at(counts, (_bins(times, edges), target.astype(np.int64)), 1)
    return counts


def _band(times: Numbers, target: Numbers, edges: Numbers) -> Numbers:
    found, bins = np.full((len(edges) - 1, 3), np.nan), _bins(times, edges)
    order = np.argsort(bins, kind="stable")
    cuts = np.searchsorted(bins[order], np.arange(len(edges)))
    for number, (low, high) in enumerate(pairwise(cuts)):
        values = target[order[low:high]]
        if len(values) >= FEWEST_ROWS:
            found[number] = values.mean(), *np.quantile(values, BAND)
    return found


def _spans(times: Numbers, labels: NDArray[np.uint8]) -> dict[str, tuple[float, float]]:
    flags = {part: (labels == number) | (labels == EVERY) for number, part in enumerate(PARTS)}
    return {part: (float(times[mine].min()), float(times[mine].max())) for part, mine in flags.items() if mine.any()}


def _all_spans(table: PackedTable, split: Split) -> dict[str, tuple[float, float]]:
    """Return the first and last time of each part, over all rows in portions."""
    side, found = table.side_column("time"), dict[str, tuple[float, float]]()
    for start in range(0, table.schema.rows, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, table.schema.rows)
        times = np.arange(start, stop) if side is None else portion(side, start, stop)
        for part, (low, high) in _spans(np.asarray(times, np.float64), np.asarray(split.labels[start:stop])).items():
            before = found.get(part, (low, high))
            found[part] = min(before[0], low), max(before[1], high)
    return found
