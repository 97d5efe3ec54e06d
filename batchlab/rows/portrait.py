"""What a packed table looks like: the distribution of every column, from an evenly spaced sample of rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchlab.rows.repeats import portions
from batchlab.rows.split import Split
from batchlab.rows.timeline import Order, Timeline, timeline
from batchlab.serving.batchlab_serving import PackedColumn
from batchlab.table.alone import Truth, unexplained
from batchlab.table.schema import ColumnFacts, PackedTable

Numbers = NDArray[np.float64]
MOST_ROWS, MOST_VALUES = 200_000, 2**25
PORTIONS = 1000
MOST_COLUMNS, MOST_ASKED = 60, 20_000
BARS, TOP = 24, 3
TAIL = 0.005
"""Where the outermost values stretch the range more than threefold, the end bars hold so large a share of the rows and what lies beyond."""


@dataclass(frozen=True)
class Distribution:
    """Rows a bar `[bars]`, from `low` to `high`; `clipped` says that the end bars hold what lies beyond."""

    rows: Numbers
    low: float
    high: float
    clipped: bool = False


@dataclass(frozen=True)
class ColumnPortrait:
    """One column: its facts, how it is packed (None for the target), its distribution, and its most frequent values with their shares."""

    facts: ColumnFacts
    column: PackedColumn | None
    distribution: Distribution
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Portrait:
    """The target, then the features in the table's order, or of very many those that alone tell most of the target; `unshown` more."""

    target: ColumnPortrait
    features: tuple[ColumnPortrait, ...]
    unshown: int
    sampled_rows: int
    timeline: Timeline


@dataclass(frozen=True)
class Sample:
    """Evenly spaced rows: their numbers `[rows]`, packed features `[rows, packed columns]` and targets `[rows]`."""

    rows: NDArray[np.int64]
    features: NDArray[np.float32]
    target: NDArray[np.generic]


def portrayed(table: PackedTable, split: Split, order: Order) -> Portrait:
    """Return what the table looks like; memory and time are bounded by the sample."""
    schema, facts = table.schema, table.facts
    sample = sampled(table)
    shown, places = _shown(table, sample), _places(schema.columns)
    features = tuple(_of_feature(schema.columns[number], facts[1 + number], sample.features[:, places[number]]) for number in shown)
    return Portrait(
        target=_of_target(facts[0], schema.target.classes, sample.target),
        features=features,
        unshown=len(schema.columns) - len(shown),
        sampled_rows=len(sample.rows),
        timeline=timeline(table, split, order, sample.rows, sample.features, sample.target),
    )


def sampled(table: PackedTable) -> Sample:
    """Return at most 200,000 rows, fewer of a wide table, in short portions all over the table."""
    rows, width = table.schema.rows, max(1, len(table.schema.packed_names))
    most = max(1000, min(MOST_ROWS, MOST_VALUES // width))
    if rows <= most:
        spans = list(portions(table, rows))
    else:
        starts = np.linspace(0, rows - most // PORTIONS, PORTIONS).astype(np.int64)
        spans = [(int(start), most // PORTIONS) for start in starts]
    numbers = np.concatenate([np.arange(start, start + count) for start, count in spans])
    features = np.concatenate([table.read("features", start, count) for start, count in spans])
    target = np.concatenate([table.read("target", start, count) for start, count in spans])
    return Sample(numbers, features, target)


def _places(columns: Sequence[PackedColumn]) -> list[int]:
    """Return the first packed column of each raw one."""
    return [int(place) for place in np.cumsum([0, *(len(column.packed_names) for column in columns)])[:-1]]


def _shown(table: PackedTable, sample: Sample) -> list[int]:
    """Return which features are shown: all, or of very many those that alone leave least of the target unexplained."""
    columns = table.schema.columns
    if len(columns) <= MOST_COLUMNS:
        return list(range(len(columns)))
    most = max(200, min(MOST_ASKED, MOST_VALUES // 4 // len(table.schema.packed_names)))
    asked = np.random.default_rng(0).permutation(len(sample.rows))[:most]
    target = table.schema.target
    left = unexplained(sample.features[asked], Truth(target.name, sample.target[asked], target.classes))
    places = _places(columns)
    return [int(number) for number in np.argsort(left[places], kind="stable")[:MOST_COLUMNS]]


def _of_target(facts: ColumnFacts, classes: Sequence[str], values: "NDArray[np.generic]") -> ColumnPortrait:
    if not classes:
        return ColumnPortrait(facts, None, spread_out(np.asarray(values, np.float64)))
    return _of_codes(facts, None, classes, np.asarray(values, np.int64))


def _of_feature(column: PackedColumn, facts: ColumnFacts, packed: NDArray[np.float32]) -> ColumnPortrait:
    known = packed[~np.isnan(packed)]
    if column.kind == "category":
        return _of_codes(facts, column, column.vocabulary, known.astype(np.int64))
    if column.kind == "boolean":
        return _of_codes(facts, column, ("false", "true"), known.astype(np.int64))
    return ColumnPortrait(facts, column, spread_out(known.astype(np.float64) + column.offset))


def _of_codes(facts: ColumnFacts, column: PackedColumn | None, names: Sequence[str], codes: NDArray[np.int64]) -> ColumnPortrait:
    """Return a portrait of codes by how often each occurs, the most frequent first; a last code stands for values outside the names."""
    counts = np.bincount(codes, minlength=len(names)).astype(np.float64)
    named = [*names, "others"]
    order = np.argsort(-counts, kind="stable")
    top = tuple((named[code], counts[code] / max(len(codes), 1)) for code in order[:TOP] if counts[code])
    return ColumnPortrait(facts, column, Distribution(counts[order[:BARS]], 0, min(len(counts), BARS)), top)


def spread_out(values: Numbers) -> Distribution:
    """Return the distribution of numbers: a bar for each of few whole numbers, else bars of equal width without a far tail's range."""
    if not len(values):
        return Distribution(np.zeros(1), 0.0, 0.0)
    low, high = float(values.min()), float(values.max())
    if low == high:
        return Distribution(np.array([float(len(values))]), low, high)
    if high - low < BARS and (np.floor(values) == values).all():
        return Distribution(np.bincount((values - low).astype(np.int64)).astype(np.float64), low, high)
    inner = np.quantile(values, (TAIL, 1 - TAIL))
    clipped = bool(inner[1] > inner[0] and high - low > 3 * (inner[1] - inner[0]))
    if clipped:
        low, high = float(inner[0]), float(inner[1])
    rows = np.histogram(np.clip(values, low, high), BARS, (low, high))[0]
    return Distribution(rows.astype(np.float64), low, high, clipped)
