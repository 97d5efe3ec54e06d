"""The split of a retraining: train on the past, hold out the latest of the new rows."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batchlab.config import Profile
from batchlab.errors import BadInput
from batchlab.retraining.fresh import Mark, Stretch, rows_after, rows_within
from batchlab.rows import assigning
from batchlab.rows.assigning import TEST, TRAIN, UNUSED, VALIDATION
from batchlab.rows.split import SMALLEST_PART, Split, embargo_of, in_whole_windows, split_of, times_of
from batchlab.table import PackedTable

MOST_OLD_VALIDATION = 200
FEWEST_LATEST, LONGER = 100, 5
"""The shortest window of training rows, and how many times as long each window is as the one before."""
Labels = NDArray[np.uint8]


class NotYet(BadInput):
    """The rows cannot be divided as they are, but more of them will let them be."""


def retraining_split(table: PackedTable, profile: Profile, mark: Mark | None) -> Split:
    """Return the split of a retraining from all rows: the latest of the fresh ones are held out (a first model holds out `split.test` of
    all), the latest of those before validate, the others train; `split.embargo` keeps them apart.

    At most a third of the fresh rows that are not held out validate (but 200 rows may): otherwise a large table's share of validation
    rows would keep all that is new from training. Rows of the same time stay together: where all fresh rows have one, all of them judge.

    Raises NotYet when a part would have fewer than 2 rows, or the training rows lack a class.
    """
    if profile.target_scale == "log":
        raise BadInput(
            "target_scale 'log' is for comparisons: a retraining judges champion and challenger in the target's unit; use 'linear'."
        )
    return _made(_by_time(table, profile, _held(table, profile, mark), _validating(table, profile, mark)), table, profile, mark)


def windows(split: Split, table: PackedTable, profile: Profile, mark: Mark) -> Iterator[Split]:
    """Yield the split of a retraining with only the latest of its training rows, the same rows validating and judging: the rows that are
    fresh, five times as many, and so on up to half of all; the longest window first. Rows of the same time stay together. None is shorter
    than 100 rows or lacks a class.
    """
    times, trains = times_of(table), split.labels == TRAIN
    count, fresh = int(trains.sum()), int((trains & (times > mark.last)).sum())
    length, lengths = max(fresh, FEWEST_LATEST), list[int]()
    while length <= count // 2:
        lengths.append(length)
        length *= LONGER
    for rows in reversed(lengths):
        labels = split.labels.copy()
        labels[trains & (times < assigning.smallest(times, count - rows))] = UNUSED
        if not _absent(table, labels):
            yield split_of(labels, table, profile.split)


def trainable_rows(table: PackedTable, profile: Profile, mark: Mark | None) -> int:
    """Return about how many rows a retraining would train on, whatever an update does."""
    return table.schema.rows - _held(table, profile, mark) - _validating(table, profile, mark)


def _held(table: PackedTable, profile: Profile, mark: Mark | None) -> int:
    return (
        round(table.schema.rows * profile.split.test) if mark is None else round(len(rows_after(table, mark)) * profile.retraining.holdout)
    )


def _validating(table: PackedTable, profile: Profile, mark: Mark | None) -> int:
    before = table.schema.rows - _held(table, profile, mark)
    share = round(before * profile.retraining.validation)
    if mark is not None:
        share = min(share, max(MOST_OLD_VALIDATION, (len(rows_after(table, mark)) - _held(table, profile, mark)) // 3))
    return share


def update_split(table: PackedTable, profile: Profile, mark: Mark, seed: int, spared: Stretch | None = None) -> Split:
    """Return the split of an update: as of a retraining, but only the fresh rows train and validate, beside `replay` old rows, drawn at
    random, for each new one that trains, and one of each class that all those lack. Old rows of the stretch `spared` are not drawn: what
    is forgotten is measured on them.

    Raises NotYet as `retraining_split` does.
    """
    rule, fresh = profile.retraining, len(rows_after(table, mark))
    held = round(fresh * rule.holdout)
    labels = _by_time(table, profile, held, round((fresh - held) * rule.validation))
    times, drawn = times_of(table), np.random.default_rng(seed)
    old = np.flatnonzero((times <= mark.last) & ((labels == TRAIN) | (labels == VALIDATION)))
    labels[old] = UNUSED
    replayed = old if spared is None else np.setdiff1d(old, rows_within(table, spared), assume_unique=True)
    wanted = round(rule.replay * int((labels == TRAIN).sum()))
    labels[drawn.choice(replayed, min(len(replayed), wanted), replace=False)] = TRAIN
    for label in _absent(table, labels):
        labels[replayed[table.target[replayed] == label][-1:]] = TRAIN
    return _made(labels, table, profile, mark)


def _by_time(table: PackedTable, profile: Profile, held: int, validating: int) -> Labels:
    """Return labels `[rows]` that hold out so many of the latest rows, all of the earliest one's time among them, and let so many before
    those validate."""
    times, rows = times_of(table), table.schema.rows
    before = int((times < assigning.smallest(times, rows - held)).sum())
    labels = assigning.by_time(times, [before - max(SMALLEST_PART, validating), before], rows, embargo_of(table, profile.split))
    return in_whole_windows(labels, table)


def _made(labels: Labels, table: PackedTable, profile: Profile, mark: Mark | None) -> Split:
    """Return the split of these labels; raises NotYet, in the words of a retraining, where nothing can be learnt or judged."""
    counts, rule = np.bincount(labels, minlength=UNUSED + 1), profile.retraining
    if counts[[TRAIN, VALIDATION, TEST]].min() < SMALLEST_PART:
        judging = f"split.test ({profile.split.test:g})" if mark is None else f"retraining.holdout ({rule.holdout:g})"
        embargo = "" if profile.split.embargo is None else f" or split.embargo ({profile.split.embargo})"
        raise NotYet(
            f"of {len(labels):,} rows {counts[TRAIN]:,} / {counts[VALIDATION]:,} / {counts[TEST]:,} can train / validate / judge, since "
            f"those of one time stay together, and each takes {SMALLEST_PART} or more; bring rows of other times, or change "
            f"{judging}, retraining.validation ({rule.validation:g}){embargo}."
        )
    if absent := _absent(table, labels):
        label, classes = absent[0], table.schema.target.classes
        more = f" (nor of {len(absent) - 1} other classes)" if len(absent) > 1 else ""
        raise NotYet(
            f"no row that trains is of class '{classes[label]}'{more}, which {int((table.target == label).sum()):,} of the later rows are; "
            "mend them if that is a mistake, else bring more rows of it."
        )
    return split_of(labels, table, profile.split)


def _absent(table: PackedTable, labels: Labels) -> list[int]:
    """Return the classes that no training row has."""
    present = (
        np.bincount(table.target[labels == TRAIN], minlength=len(table.schema.target.classes)) if table.schema.target.classes else None
    )
    return [] if present is None else np.flatnonzero(present == 0).tolist()


def held_out(table: PackedTable, split: Split) -> Stretch:
    """Return the stretch that the split holds out."""
    times, held = times_of(table), split.labels == TEST
    moments = times[held]
    earlier = times[times < moments.min()]
    return Stretch(after=float(earlier.max()) if len(earlier) else float(moments.min()) - 1, last=float(moments.max()))
