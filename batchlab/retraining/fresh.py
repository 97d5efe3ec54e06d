"""Which rows are new since the last decision: the mark that a decision leaves, and the rows before and after it."""

from datetime import datetime, timedelta

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from batchlab.errors import BadInput
from batchlab.records import Record
from batchlab.rows.split import ROWS_AT_ONCE, times_of
from batchlab.table import PackedTable

FEWEST_REFERENCE = 1000


class Mark(Record):
    """How far a table went when a decision was made on it: its digest, its rows, how many more could not be used, and the newest moment of
    its time column (microseconds since 1970 where it is `dated`). Without such a column rows count, and `targets` is a digest of theirs:
    new ones must stand at the end. Drift is looked for against the rows after `since`: what was before them has been told of."""

    digest: str
    rows: int = Field(ge=0)
    quarantined: int | None = None
    newest: float | None = None
    dated: bool | None = None
    targets: str | None = None
    since: float | None = None

    @property
    def last(self) -> float:
        """The last moment that was known; without a time column, the number of the last row."""
        return self.rows - 1 if self.newest is None else self.newest

    @property
    def text(self) -> str:
        """The last moment for people."""
        if self.newest is None:
            return f"row {self.rows:,}"
        return date_text(self.newest) if self.dated else f"{self.newest:.15g}"


class Stretch(Record):
    """The moments after `after` up to `last`: of the time column, else row numbers."""

    after: float
    last: float


def date_text(microseconds: float) -> str:
    """Return a moment in microseconds since 1970 as a date for people; also one that Python's own dates do not reach."""
    return str(np.datetime64(int(microseconds), "us")).replace("T", " ").removesuffix(".000000").removesuffix(" 00:00:00")


def mark_of(table: PackedTable) -> Mark:
    """Return how far the table goes."""
    times, rows = table.side_column("time"), table.schema.rows
    known = {"digest": table.schema.digest, "rows": rows, "quarantined": sum(table.schema.quarantined.values())}
    if times is None:
        return Mark(**known, targets=_targets(table, rows))
    return Mark(**known, newest=float(times.max()), dated=times.dtype.kind == "i")


def _targets(table: PackedTable, rows: int) -> str:
    """Return a digest of the first rows' targets, whatever numbers their classes have."""
    digest, classes = xxhash.xxh3_128(), np.array(table.schema.target.classes)
    for start in range(0, rows, ROWS_AT_ONCE):
        part = table.target[start : min(rows, start + ROWS_AT_ONCE)]
        digest.update("\0".join(classes[part]).encode() if len(classes) else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def check_not_ahead(table: PackedTable, days_ahead: float, now: datetime) -> None:
    """Raise BadInput where the newest row is dated more than `days_ahead` after now: once decided on, no other row would count as new."""
    times, latest = table.side_column("time"), (now + timedelta(days=days_ahead)).replace(microsecond=0).timestamp() * 1e6
    if times is not None and times.dtype.kind == "i" and times.max() > latest:
        raise BadInput(
            f"{int((times > latest).sum()):,} of {table.schema.rows:,} rows are dated after {date_text(latest)}, up to "
            f"{date_text(times.max())}: after a decision on them no row would count as new until then; mend them, or say with "
            "retraining.days_ahead how many days ahead rows may be."
        )


def fresh_count(table: PackedTable, mark: Mark | None) -> int:
    """Return how many rows are newer than all of the mark; all of them without a mark.

    Raises BadInput where the table goes by another kind of time than the mark, and, where the order of rows has to tell, when those of
    the mark are no longer the first.
    """
    if mark is None:
        return table.schema.rows
    times = table.side_column("time")
    if (times is None) != (mark.newest is None) or (times is not None and mark.dated not in (None, times.dtype.kind == "i")):
        before, now = (
            _order_said(mark.newest is None, mark.dated),
            _order_said(times is None, times is not None and times.dtype.kind == "i"),
        )
        raise BadInput(
            f"the last decision went by {before}, the table goes by {now}: which rows are new cannot be told. Order them as they were then "
            "(columns.time), or train another model (--model)."
        )
    if times is None and (table.schema.rows < mark.rows or _targets(table, mark.rows) != mark.targets):
        raise BadInput(
            f"without a time column new rows must stand at the end, but the first {mark.rows:,} rows are not those of the last decision; "
            "name the column that orders them (columns.time), or let new files sort after the old ones."
        )
    return int((times_of(table) > mark.last).sum())


def _order_said(by_rows: bool, dated: bool | None) -> str:
    return "the order of rows" if by_rows else "dates" if dated else "a time in numbers"


def unusable_share(table: PackedTable, mark: Mark | None) -> float:
    """Return the share of the rows that are new since the mark which could not be used; of all rows where nobody counted them then."""
    unusable = sum(table.schema.quarantined.values())
    if mark is None or mark.quarantined is None:
        return unusable / max(1, table.schema.source_rows)
    new = max(0, unusable - mark.quarantined)
    return new / max(1, new + len(rows_after(table, mark)))


def rows_within(table: PackedTable, stretch: Stretch) -> NDArray[np.int64]:
    """Return the numbers of the rows of a stretch, ascending."""
    times = times_of(table)
    return np.flatnonzero((times > stretch.after) & (times <= stretch.last))


def rows_after(table: PackedTable, mark: Mark) -> NDArray[np.int64]:
    """Return the numbers of the rows that are newer than all of the mark, ascending."""
    return np.flatnonzero(times_of(table) > mark.last)


def reference_rows(table: PackedTable, mark: Mark, most: int) -> NDArray[np.int64]:
    """Return the numbers of the latest rows up to the mark that no drift lies before, ascending: at most so many, but not fewer than 1,000
    where there are."""
    times, most = times_of(table), max(most, FEWEST_REFERENCE)
    old = np.flatnonzero((times <= mark.last) & (times > (-np.inf if mark.since is None else mark.since)))
    if len(old) <= most:
        return old
    return np.sort(old[np.argpartition(times[old], len(old) - most)[-most:]])
