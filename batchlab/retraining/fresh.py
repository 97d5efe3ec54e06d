"""Which rows are new since the last decision, and the split of a retraining: train on the past, hold out the latest of the new rows."""

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from batchlab import assigning
from batchlab.assigning import TEST, TRAIN, UNUSED, VALIDATION
from batchlab.config import Profile
from batchlab.errors import BadInput
from batchlab.records import Record
from batchlab.split import ROWS_AT_ONCE, Split, embargo_of, split_of, times_of
from batchlab.table import PackedTable

FEWEST_REFERENCE, MOST_OLD_VALIDATION = 1000, 500


class Mark(Record):
    """How far a table went when a decision was made on it: its digest, its rows, and the newest moment of its time column (microseconds
    since 1970 for dates). Without such a column rows count, and `targets` is a digest of theirs: new ones must stand at the end."""

    digest: str
    rows: int = Field(ge=0)
    newest: float | None = None
    targets: str | None = None

    @property
    def last(self) -> float:
        """The last moment that was known; without a time column, the number of the last row."""
        return self.rows - 1 if self.newest is None else self.newest


class Stretch(Record):
    """The moments after `after` up to `last`: of the time column, else row numbers."""

    after: float
    last: float


def mark_of(table: PackedTable) -> Mark:
    """Return how far the table goes."""
    times, rows = table.side_column("time"), table.schema.rows
    if times is None:
        return Mark(digest=table.schema.digest, rows=rows, targets=_targets(table, rows))
    return Mark(digest=table.schema.digest, rows=rows, newest=float(times.max()))


def _targets(table: PackedTable, rows: int) -> str:
    """Return a digest of the first rows' targets, whatever numbers their classes have."""
    digest, classes = xxhash.xxh3_128(), np.array(table.schema.target.classes)
    for start in range(0, rows, ROWS_AT_ONCE):
        part = table.target[start : min(rows, start + ROWS_AT_ONCE)]
        digest.update("\0".join(classes[part]).encode() if len(classes) else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def fresh_count(table: PackedTable, mark: Mark | None) -> int:
    """Return how many rows are newer than all of the mark; all of them without a mark.

    Raises BadInput where the order of rows has to tell, and those of the mark are no longer the first.
    """
    if mark is None:
        return table.schema.rows
    if mark.newest is None and (table.schema.rows < mark.rows or _targets(table, mark.rows) != mark.targets):
        raise BadInput(
            f"without a time column new rows must stand at the end, but the first {mark.rows:,} rows are not those of the last decision; "
            "name the column that orders them (columns.time), or let new files sort after the old ones."
        )
    return int((times_of(table) > mark.last).sum())


def rows_within(table: PackedTable, stretch: Stretch) -> NDArray[np.int64]:
    """Return the numbers of the rows of a stretch, ascending."""
    times = times_of(table)
    return np.flatnonzero((times > stretch.after) & (times <= stretch.last))


def rows_after(table: PackedTable, mark: Mark) -> NDArray[np.int64]:
    """Return the numbers of the rows that are newer than all of the mark, ascending."""
    return np.flatnonzero(times_of(table) > mark.last)


def reference_rows(table: PackedTable, mark: Mark, most: int) -> NDArray[np.int64]:
    """Return the numbers of the latest rows up to the mark, ascending: at most so many, but not fewer than 1,000 where there are."""
    times, most = times_of(table), max(most, FEWEST_REFERENCE)
    old = np.flatnonzero(times <= mark.last)
    if len(old) <= most:
        return old
    return np.sort(old[np.argpartition(times[old], len(old) - most)[-most:]])


def retraining_split(table: PackedTable, profile: Profile, mark: Mark | None) -> Split:
    """Return the split of a retraining from all rows: the latest of the fresh ones are held out (a first model holds out `split.test` of
    all), the latest of those before validate, the others train; `split.embargo` keeps them apart.

    At most a third of the fresh rows that are not held out validate (but 500 rows may): otherwise a large table's share of validation
    rows would keep all that is new from training.

    Raises BadInput when a part would have fewer than 2 rows, or the training rows lack a class.
    """
    rule, rows = profile.retraining, table.schema.rows
    if mark is None:
        held = round(rows * profile.split.test)
        return split_of(_by_time(table, profile, held, round((rows - held) * rule.validation)), table, profile.split)
    fresh = fresh_count(table, mark)
    held = round(fresh * rule.holdout)
    validating = min(round((rows - held) * rule.validation), max(MOST_OLD_VALIDATION, (fresh - held) // 3))
    return split_of(_by_time(table, profile, held, validating), table, profile.split)


def update_split(table: PackedTable, profile: Profile, mark: Mark, seed: int) -> Split:
    """Return the split of an update: as of a retraining, but only the fresh rows train and validate, beside `replay` old rows, drawn at
    random, for each fresh one that trains."""
    rule = profile.retraining
    fresh = fresh_count(table, mark)
    held = round(fresh * rule.holdout)
    labels = _by_time(table, profile, held, round((fresh - held) * rule.validation))
    times, drawn = times_of(table), np.random.default_rng(seed)
    trains = int(((labels == TRAIN) & (times > mark.last)).sum())
    old = np.flatnonzero((times <= mark.last) & ((labels == TRAIN) | (labels == VALIDATION)))
    labels[old] = UNUSED
    labels[drawn.choice(old, min(len(old), round(rule.replay * trains)), replace=False)] = TRAIN
    return split_of(labels, table, profile.split)


def _by_time(table: PackedTable, profile: Profile, held: int, validating: int) -> NDArray[np.uint8]:
    """Return labels `[rows]` that hold out so many of the latest rows, and let so many before them validate."""
    rows = table.schema.rows
    before = rows - held
    return assigning.by_time(times_of(table), [before - validating, before], rows, embargo_of(table, profile.split))


def held_out(table: PackedTable, split: Split) -> Stretch:
    """Return the stretch that the split holds out."""
    times, held = times_of(table), split.labels == TEST
    moments = times[held]
    earlier = times[~held]
    return Stretch(after=float(earlier.max()) if len(earlier) else float(moments.min()) - 1, last=float(moments.max()))
