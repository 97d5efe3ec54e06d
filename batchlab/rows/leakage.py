"""What gives the target away, or makes a held-out row known: warnings from a packed table and its split."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batchlab.files.mapped import gathered
from batchlab.rows.repeats import Repeated, by_chance, repeated
from batchlab.rows.split import Split
from batchlab.serving.batchlab_serving import PackedColumn
from batchlab.table.alone import SCREENED, Truth, determined, missing_tells, unexplained
from batchlab.table.columns import ColumnRule
from batchlab.table.schema import PackedTable

MOST_ROWS, MOST_VALUES = 20_000, 2**24
MOST_CONFIRMED, MOST_NAMED = 50, 5
SMALLEST_SHARE, FEWEST_REPEATS = 0.001, 2
COUNTED_ROWS, EXACT = 1_000, 2**24
"""So many rows, evenly over the table, tell that a column numbers them; float32 holds numbers below 2²⁴ exactly."""
LeakKind = Literal["target", "missing", "repeats", "time", "numbers"]


@dataclass(frozen=True)
class Leak:
    """A way in which the scores may be better than new rows will be: where it is, and a sentence with the numbers and what to do."""

    kind: LeakKind
    columns: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Sample:
    """Training rows in random order: packed features `[rows, packed columns]`, and the truth."""

    features: NDArray[np.float32]
    truth: Truth
    columns: tuple[PackedColumn, ...]
    places: tuple[slice, ...] = field(init=False)

    def __post_init__(self) -> None:
        ends = np.cumsum([0, *(len(column.packed_names) for column in self.columns)])
        object.__setattr__(self, "places", tuple(slice(int(low), int(high)) for low, high in pairwise(ends)))

    def of(self, number: int) -> NDArray[np.float32]:
        """Return the packed columns `[rows, parts]` of a raw one."""
        return self.features[:, self.places[number]]


def leaks(table: PackedTable, split: Split, columns: ColumnRule, kind: str) -> tuple[Leak, ...]:
    """Return all warnings, those on single features first; `kind` is that of the split. Memory and time are bounded by samples."""
    sample = sampled(table, split)
    known = set() if table.schema.sequence is None else {table.schema.sequence.own_past}  # before the target is, by definition
    found = [*_of_missing(sample), *_of_features(sample, known), *_of_time(table, columns, kind), *_of_numbers(table)]
    if kind != "in_sample":
        found += _of_repeats(table, split, sample)
    return tuple(found)


def sampled(table: PackedTable, split: Split) -> Sample:
    """Return training rows, at most 20,000 and fewer of a wide table, in random order."""
    most = min(MOST_ROWS, max(200, MOST_VALUES // max(1, len(table.schema.packed_names))))
    rows = split.rows("train", most)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    target = table.schema.target
    truth = Truth(target.name, gathered(table.target, rows)[shuffled], target.classes)
    return Sample(gathered(table.features, rows)[shuffled], truth, table.schema.columns)


def _of_features(sample: Sample, known: Container[str | None]) -> list[Leak]:
    """Warn of features that are the target, or almost determine it; not of those that are surely known before."""
    left = unexplained(sample.features, sample.truth)
    least = np.array([left[places].min() for places in sample.places])
    near = [int(number) for number in np.argsort(least, kind="stable")[:MOST_CONFIRMED] if least[number] < SCREENED]
    found = [(sample.columns[number].name, determined(sample.columns[number], sample.of(number), sample.truth)) for number in near]
    return _warned("target", [(name, said) for name, said in found if said is not None and name not in known])


def _of_missing(sample: Sample) -> list[Leak]:
    """Warn of features whose gaps tell the target."""
    found = [(column.name, missing_tells(column, sample.of(number), sample.truth)) for number, column in enumerate(sample.columns)]
    return _warned("missing", [(name, said) for name, said in found if said is not None])


def _warned(kind: LeakKind, found: Sequence[tuple[str, str]]) -> list[Leak]:
    """Return a warning a feature for the first few, and one for all others."""
    warned = [
        Leak(kind, (name,), f"{said}; if it is not known before the target is, leave it out (--drop '{name}')")
        for name, said in found[:MOST_NAMED]
    ]
    others = tuple(name for name, _ in found[MOST_NAMED:])
    if others:
        named = ", ".join(f"'{name}'" for name in others[:10]) + (" and others" if len(others) > 10 else "")
        warned.append(Leak(kind, others, f"{len(others)} more features give the target away: {named}"))
    return warned


def _of_time(table: PackedTable, columns: ColumnRule, kind: str) -> list[Leak]:
    """Warn of rows that have a time and are split as if they had none."""
    if kind not in ("random", "stratified"):
        return []
    why = "the model is then tested on rows older than some that it learnt from"
    if columns.time is not None:
        return [
            Leak(
                "time",
                (columns.time,),
                f"rows are split at random although '{columns.time}' dates them: {why}; use split.kind=chronological",
            )
        ]
    facts = {item.name: item for item in table.facts}
    dates = [
        column.name
        for column in table.schema.columns
        if column.kind == "datetime" and column.parts[0] == "days" and facts[column.name].minimum != facts[column.name].maximum
    ]
    if not dates:
        return []
    named = ", ".join(f"'{name}'" for name in dates[:MOST_NAMED]) + (" and others" if len(dates) > MOST_NAMED else "")
    said = f"rows are split at random although {named} may date them: {why}; if so, use --time-column '{dates[0]}'"
    return [Leak("time", tuple(dates), said)]


def _of_numbers(table: PackedTable) -> list[Leak]:
    """Warn of features that number the rows: 0, 1, 2, … in the order of the source, beside others."""
    rows = min(table.schema.rows, EXACT)
    if len(table.schema.columns) < 2 or rows < COUNTED_ROWS // 10:
        return []
    places = np.unique(np.linspace(0, rows - 1, COUNTED_ROWS).astype(np.int64))
    apart = gathered(table.features, places).astype(np.float64) - places[:, None]
    same = dict(zip(table.schema.packed_names, (apart == apart[0]).all(axis=0), strict=True))
    numbered = [column.name for column in table.schema.columns if column.kind != "datetime" and same[column.packed_names[0]]]
    said = "numbers the rows of the source, so that new rows have values that no training row had; leave it out unless it means something"
    return [Leak("numbers", (name,), f"'{name}' {said} (--drop '{name}')") for name in numbered[:MOST_NAMED]]


def _of_repeats(table: PackedTable, split: Split, sample: Sample) -> list[Leak]:
    """Warn of held-out rows that stand among the training rows too, more than chance would put there."""
    many = [item for item in repeated(table, split) if item.found >= max(FEWEST_REPEATS, SMALLEST_SHARE * item.looked_at)]
    if not many:
        return []
    expected = by_chance(sample.features, sample.truth.values, split.sizes()["train"])
    many = [item for item in many if expected < item.share / 2]
    if not many:
        return []
    said = " and ".join(_said(item) for item in many)
    advice = "drop the copies, or keep rows of one origin together (--group-column), unless such rows are different cases that look alike"
    return [Leak("repeats", (), f"{said} also stand in the training rows, target included; {advice}")]


def _said(item: Repeated) -> str:
    least = "" if item.all_training else "at least "
    rows = f"{item.looked_at:,} {item.part} rows{'' if item.all_rows else ' looked at'}"
    return f"{least}{item.found:,} of {rows} ({item.share:.1%})"
