"""Whether fresh rows still come from where the old ones came from: every raw column, the target, a model's predictions and losses."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchlab.errors import BadInput
from batchlab.files.mapped import gathered
from batchlab.records import Result
from batchlab.retraining.shifts import Shift, shift_of_codes, shift_of_numbers
from batchlab.rules.retraining import DriftRule
from batchlab.table.schema import PackedTable

MOST_VALUES, FEWEST_SAMPLED, MOST_NAMED = 2**24, 1000, 3
"""A side's sample holds at most so many values, but at least so many rows; so many columns are named in the text."""
FEWEST_COUNTED = 3
"""A column that holds fewer values is a flag, not a counter, even where it never falls: one that changes once has drifted."""
Predictions = NDArray[np.floating[Any]]
Sides = tuple[Predictions, Predictions]
Rows = NDArray[np.int64]
Kind = Literal["number", "boolean", "datetime", "category", "prediction", "loss"]


MADE_BY_CHAMPION: dict[Kind, str] = {"prediction": "the predictions", "loss": "the champion's losses"}
"""What people call that which is no column of the table."""


class ColumnDrift(Result):
    """One column, old rows against fresh ones. `psi` is its population stability index, `p_value` that of its test after correction.

    `untested` says why there was no test. `change` says in words what changed: median and quartiles, or the value whose share rose most.
    """

    name: str
    kind: Kind
    psi: float
    p_value: float
    drifted: bool
    missing_before: float
    missing_now: float
    change: str
    untested: str | None = None


class Drift(Result):
    """What drifted. `columns` are the raw features in the table's order, `predictions` and `losses` the champion's; rows are those that
    were looked at; `text` is one sentence."""

    columns: tuple[ColumnDrift, ...]
    target: ColumnDrift
    predictions: ColumnDrift | None
    losses: ColumnDrift | None = None
    reference_rows: int
    fresh_rows: int
    drifted: bool
    text: str

    @property
    def every(self) -> tuple[ColumnDrift, ...]:
        """All that was looked at."""
        return (*self.columns, self.target, *filter(None, (self.predictions, self.losses)))

    @property
    def worst(self) -> tuple[ColumnDrift, ...]:
        """What drifted, the largest change first."""
        return _worst(self.every)


class Look(NamedTuple):
    """A column before its test is corrected for the number of tests; what is untested has no shift."""

    name: str
    kind: Kind
    shift: Shift | None
    untested: str | None = None


def drift(
    table: PackedTable,
    reference: Rows,
    fresh: Rows,
    rule: DriftRule,
    predictions: Sides | None = None,
    time_column: str | None = None,
    losses: Sides | None = None,
) -> Drift:
    """Compare `fresh` with `reference` rows of the table (row numbers, ascending) column by column; memory is bounded by the sample.

    A column has drifted when its test is significant at `rule.alpha`, corrected for the number of tests (Benjamini and Hochberg 1995),
    and its population stability index is `rule.largest_psi` or more: of many rows the smallest change is significant, of few the index
    is mostly chance. `predictions` are those of one model on reference and on fresh rows, `[rows]` or `[rows, outputs]`; they need not
    be for the rows that are looked at here. `losses` `[rows]` are that model's on rows of both sides that it was not trained on. Dates,
    the `time_column` and counters (whole numbers that never fall from row to row) are not tested: they always move on. Raises BadInput
    where a side has no rows.
    """
    if not len(reference) or not len(fresh):
        raise BadInput(f"drift is a comparison of old and fresh rows, but there are {len(reference):,} old and {len(fresh):,} fresh ones.")
    most = min(rule.most_rows, max(FEWEST_SAMPLED, MOST_VALUES // max(1, len(table.schema.packed_names))))
    sides = _some(reference, most), _some(fresh, most)
    looks = [*_features(table, sides, time_column), _target(table, sides)]
    if predictions is not None:
        before, now = _drawn(predictions, most)
        looks.append(_predictions(before, now, table.schema.target.classes))
    if losses is not None:
        before, now = _drawn(losses, most)
        looks.append(Look("losses", "loss", shift_of_numbers(before, now)))
    found = _judged(looks, rule)
    columns, target = found[: len(table.schema.columns)], found[len(table.schema.columns)]
    by_kind = {item.kind: item for item in found[len(table.schema.columns) + 1 :]}
    return Drift(
        columns=columns,
        target=target,
        predictions=by_kind.get("prediction"),
        losses=by_kind.get("loss"),
        reference_rows=len(sides[0]),
        fresh_rows=len(sides[1]),
        drifted=any(item.drifted for item in found),
        text=_said(found, (len(sides[0]), len(sides[1]))),
    )


def _some(rows: Rows, most: int) -> Rows:
    """Return at most so many of the rows, drawn at random but always the same, ascending."""
    return rows if len(rows) <= most else rows[np.sort(np.random.default_rng(0).choice(len(rows), most, replace=False))]


def _drawn(sides: Sides, most: int) -> list[NDArray[np.float64]]:
    return [np.asarray(side, np.float64)[_some(np.arange(len(side)), most)] for side in sides]


def _features(table: PackedTable, sides: tuple[Rows, Rows], time_column: str | None) -> Iterator[Look]:
    before, now = (gathered(table.features, rows) for rows in sides)
    place = 0
    for column, facts in zip(table.schema.columns, table.facts[1:], strict=True):
        counts = facts.ascending and len(np.unique(before[:, place])) >= FEWEST_COUNTED
        untested = _untested(column.kind, counts, column.name == time_column)
        if untested is not None:
            yield Look(column.name, column.kind, None, untested)
        else:
            old, new = (side[:, place].astype(np.float64) + column.offset for side in (before, now))
            names = {"category": column.vocabulary, "boolean": ("false", "true")}.get(column.kind)
            yield Look(column.name, column.kind, shift_of_numbers(old, new) if names is None else shift_of_codes(old, new, names))
        place += len(column.packed_names)


def _untested(kind: Kind, counts: bool, is_time: bool) -> str | None:
    if kind == "datetime":
        return "dates always move on"
    if is_time:
        return "time always moves on"
    return "it never falls from row to row, as counters do" if counts else None


def _target(table: PackedTable, sides: tuple[Rows, Rows]) -> Look:
    target = table.schema.target
    before, now = (gathered(table.target, rows).astype(np.float64) for rows in sides)
    shift = shift_of_codes(before, now, target.classes) if target.classes else shift_of_numbers(before, now)
    return Look(target.name, "category" if target.classes else "number", shift)


def _predictions(before: Predictions, now: Predictions, classes: Sequence[str]) -> Look:
    """Compare predicted numbers, the probability of the second of two classes, or the most probable of several."""
    sides = [side.reshape(len(side), -1).astype(np.float64) for side in (before, now)]
    if sides[0].shape[1] > 2:
        old, new = (side.argmax(axis=1).astype(np.float64) for side in sides)
        return Look("predictions", "prediction", shift_of_codes(old, new, classes))
    old, new = (side[:, -1] for side in sides)
    return Look("predictions", "prediction", shift_of_numbers(old, new))


def _judged(looks: Sequence[Look], rule: DriftRule) -> tuple[ColumnDrift, ...]:
    """Return the columns with their p values corrected for their number."""
    from scipy import stats

    corrected = iter(stats.false_discovery_control([look.shift.p_value for look in looks if look.shift is not None]))
    found = []
    for look in looks:
        shift, p_value = look.shift or Shift(1.0, 0.0, 0.0, 0.0, ""), float(next(corrected)) if look.shift else 1.0
        drifted = p_value < rule.alpha and shift.psi >= rule.largest_psi
        known = shift._asdict() | {"p_value": p_value}
        found.append(ColumnDrift(name=look.name, kind=look.kind, drifted=drifted, untested=look.untested, **known))
    return tuple(found)


def _worst(found: Sequence[ColumnDrift]) -> tuple[ColumnDrift, ...]:
    return tuple(sorted((item for item in found if item.drifted), key=lambda item: -item.psi))


def _said(found: Sequence[ColumnDrift], rows: tuple[int, int]) -> str:
    """Return one sentence: how many drifted, and the worst of them with their numbers."""
    worst, tested = _worst(found), sum(item.untested is None for item in found)
    between = f"between {rows[0]:,} old and {rows[1]:,} fresh rows"
    if not worst:
        return f"No drift {between}: none of {tested} columns, with target, predictions and losses, changed much."
    named = [f"{_name(item)} (PSI {item.psi:.2f}; {item.change})" for item in worst[:MOST_NAMED]]
    more = f" and {len(worst) - MOST_NAMED} more" if len(worst) > MOST_NAMED else ""
    return f"{len(worst)} of {tested} columns drifted {between}: {', '.join(named)}{more}."


def _name(item: ColumnDrift) -> str:
    return MADE_BY_CHAMPION.get(item.kind, f"'{item.name}'")
