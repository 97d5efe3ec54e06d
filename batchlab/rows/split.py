"""The split: train, validation and test rows, assigned reproducibly in bounded memory and identified by a digest."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batchlab.errors import BadInput
from batchlab.files.mapped import portion
from batchlab.files.received import array_of
from batchlab.records import Record
from batchlab.rows import assigning
from batchlab.rows.assigning import EVERY, PARTS, TEST, TRAIN, UNUSED, VALIDATION, Labels
from batchlab.table import PackedTable
from batchlab.table.durations import length_of
from batchlab.table.sequence import AHEAD, whole_windows

Rows = NDArray[np.int64]
Part = Literal["train", "validation", "test"]
SMALLEST_PART = 2
WHOLE = ("chronological", "walk_forward", "group", "in_sample")
"""The kinds of split that leave stretches of rows whole, as windows of them need."""
ROWS_AT_ONCE = 2**20


class SplitRule(Record):
    """How rows are divided. `random` is seeded; `stratified` keeps the shares of the classes in every part; `chronological` trains on the
    past (by `columns.time`, or in the order of rows); `group` keeps the rows of a group (`columns.group`) together; `walk_forward` tests on
    the last of `folds` periods, and the recommended setting on each of them; `in_sample` trains, validates and tests on all rows, as the
    notebook does: its scores say nothing about new rows.

    `embargo` leaves out the rows of so long a time before each cut: a number in the time column's unit, a duration like "5 days" for
    dates, rows where there is no time column. Where `columns.key` names a key, a random row's side depends on its key alone, and so stays
    when rows are added.
    """

    kind: Literal["random", "stratified", "chronological", "group", "walk_forward", "in_sample"] = "random"
    validation: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.15, gt=0, lt=1)
    embargo: float | str | None = None
    folds: int = Field(3, ge=2)


@dataclass(frozen=True)
class Split:
    """Which part each row of a table belongs to: `labels` `[rows]`, and the digest that identifies them."""

    labels: Labels
    digest: str

    @property
    def train(self) -> Rows:
        """The numbers of the training rows, ascending."""
        return self.rows("train")

    @property
    def validation(self) -> Rows:
        """The numbers of the validation rows, ascending."""
        return self.rows("validation")

    @property
    def test(self) -> Rows:
        """The numbers of the test rows, ascending."""
        return self.rows("test")

    def rows(self, part: Part, most: int | None = None, seed: int = 0) -> Rows:
        """Return the numbers of a part's rows, ascending; of more than `most` a random sample, drawn in bounded memory."""
        size = self.sizes()[part]
        if most is None or size <= most:
            return np.concatenate([start + np.flatnonzero(flags) for start, flags in self.portions(part)])
        rng, found, left, wanted = np.random.default_rng(seed), [], size, most
        for start, flags in self.portions(part):
            numbers = np.flatnonzero(flags)
            left -= len(numbers)
            count = int(rng.hypergeometric(len(numbers), left, wanted))  # as many of the sample as chance puts into this portion
            found.append(start + np.sort(rng.choice(numbers, count, replace=False)))
            wanted -= count
        return np.concatenate(found)

    def portions(self, part: Part) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Yield where each portion of the table starts, and which of its rows are of the part."""
        for start in range(0, len(self.labels), ROWS_AT_ONCE):
            labels = self.labels[start : start + ROWS_AT_ONCE]
            yield start, (labels == PARTS.index(part)) | (labels == EVERY)

    def sizes(self) -> dict[str, int]:
        """Return the number of rows of each part."""
        return {part: int(self._counts[number] + self._counts[EVERY]) for number, part in enumerate(PARTS)}

    @property
    def unused(self) -> int:
        """How many rows are in no part: those of an embargo, and of later periods."""
        return int(self._counts[UNUSED])

    @cached_property
    def _counts(self) -> Rows:
        counts = np.zeros(UNUSED + 1, np.int64)
        for start in range(0, len(self.labels), ROWS_AT_ONCE):
            counts += np.bincount(self.labels[start : start + ROWS_AT_ONCE], minlength=UNUSED + 1)
        return counts

    def save(self, table: PackedTable) -> Path:
        """Write the split beside the packed table, under its digest, and return the file."""
        path = table.path / f"split-{self.digest}.npy"
        if not path.exists():
            draft = path.with_name(f".{path.stem}-{np.random.default_rng().integers(2**62):x}.npy")
            np.save(draft, self.labels)
            draft.replace(path)
        return path

    @classmethod
    def open(cls, path: Path) -> "Split":
        """Read a split that `save` wrote; its labels are memory-mapped. Raises BadInput for labels that its name is not the digest of."""
        labels, digest = array_of(path, "split"), path.stem.removeprefix("split-")
        if labels.dtype != np.uint8 or labels.ndim != 1 or labels.max(initial=0) > UNUSED or _digest(path.parent.name, labels) != digest:
            raise BadInput(f"'{path}' is not as it was written: its digest is another; remove it, so that the rows are divided again.")
        return cls(labels, digest)


def split(table: PackedTable, rule: SplitRule, seed: int) -> Split:
    """Divide the table's rows by `rule`; the same table, rule and seed give the same split.

    Raises BadInput when a part would have fewer than 2 rows, when the training rows lack a class, and for a rule that the table does not
    allow.
    """
    if rule.embargo is not None and rule.kind not in ("chronological", "walk_forward"):
        raise BadInput(f"split.embargo keeps parts apart in time, but split.kind is {rule.kind}; use chronological or walk_forward.")
    if rule.kind == "walk_forward":
        return walk_forward(table, rule)[-1]
    if rule.kind != "in_sample" and rule.validation + rule.test >= 1:
        raise BadInput(f"split.validation {rule.validation} and split.test {rule.test} leave no training rows; their sum must be below 1.")
    if table.schema.sequence is not None and rule.kind not in WHOLE:
        raise BadInput(
            f"windows of rows overlap, so split.kind {rule.kind} would train on rows that it tests on; use chronological, "
            "walk_forward or group."
        )
    return split_of(in_whole_windows(_labels(table, rule, seed), table), table, rule)


def _labels(table: PackedTable, rule: SplitRule, seed: int) -> Labels:
    """Return the part of each row."""
    rows, shares = table.schema.rows, (rule.validation, rule.test)
    if rule.kind == "in_sample":
        return np.full(rows, EVERY, np.uint8)
    if rule.kind == "chronological":
        held = [round(rows * (rule.validation + rule.test)), round(rows * rule.test)]
        return assigning.by_time(times_of(table), [rows - count for count in held], rows, embargo_of(table, rule))
    if rule.kind == "group":
        groups = table.side_column("group")
        if groups is None:
            raise BadInput("split.kind 'group' needs a column of groups; name it with --group-column.")
        return assigning.by_group(groups, shares, seed)
    keys = table.side_column("key")
    if rule.kind == "stratified" and not table.schema.target.classes:
        raise BadInput("split.kind 'stratified' needs classes, but the task is regression; use 'random', or --task binary or multiclass.")
    if keys is not None:
        return assigning.by_key(keys, shares, seed)
    return assigning.at_random(table.target if rule.kind == "stratified" else None, rows, shares, seed)


def walk_forward(table: PackedTable, rule: SplitRule) -> list[Split]:
    """Return one split a fold, earliest first: each tests on the period after its training and validation rows; later rows are unused."""
    rows, test, validation = table.schema.rows, round(table.schema.rows * rule.test), round(table.schema.rows * rule.validation)
    if rule.folds * rule.test + rule.validation >= 1:
        raise BadInput(
            f"{rule.folds} folds with split.test {rule.test} and split.validation {rule.validation} leave no training rows to the first; "
            f"use at most {max(1, int((1 - rule.validation) / rule.test - 1e-9))} folds, or smaller shares."
        )
    times, embargo = times_of(table), embargo_of(table, rule)
    ends = [rows - (rule.folds - 1 - fold) * test for fold in range(rule.folds)]
    labels = (assigning.by_time(times, [end - test - validation, end - test], end, embargo) for end in ends)
    return [split_of(in_whole_windows(each, table), table, rule) for each in labels]


def in_whole_windows(labels: Labels, table: PackedTable) -> Labels:
    """Return the labels; of a table in sequence without the rows whose window or target lies in another part, which are unused."""
    if table.schema.sequence is None or table.history is None:
        return labels
    whole, ahead = whole_windows(labels, table.history, table.schema.sequence), table.side_column(AHEAD)
    if ahead is not None:
        times = times_of(table)
        for part in (TRAIN, VALIDATION):
            own, later = labels == part, (labels > part) & (labels <= TEST)
            if own.any() and later.any() and times[own].max() < times[later].min():  # not by groups, which may be of the same time
                whole &= ~own | (np.asarray(ahead) < times[later].min())
    return np.where(whole, labels, np.uint8(UNUSED)).astype(np.uint8)


def times_of(table: PackedTable) -> NDArray[Any]:
    """Return the time of each row; without a time column its number."""
    times = table.side_column("time")
    return np.arange(table.schema.rows, dtype=np.int64) if times is None else times


def embargo_of(table: PackedTable, rule: SplitRule) -> float:
    """Return the embargo in the unit of the times."""
    if rule.embargo is None:
        return 0.0
    times = table.side_column("time")
    dated, unit = times is not None and times.dtype == np.int64, "rows, as there is no time column"
    return length_of(rule.embargo, dated, "split.embargo", unit if times is None else "the unit of the time column")


def split_of(labels: Labels, table: PackedTable, rule: SplitRule) -> Split:
    """Return the split of these labels `[rows]`; raises BadInput for one that nothing can be learnt from."""
    made = Split(labels, _digest(table.schema.digest, labels))
    sizes = list(made.sizes().values())
    if min(sizes) < SMALLEST_PART:
        groups = table.side_column("group") if rule.kind == "group" else None
        held = "" if groups is None else f" of {len(np.unique(groups))} groups"
        held += "" if table.span == 1 else f", each with the {table.span - 1} before it in the same part,"
        shorter = "" if table.span == 1 else ", see fewer at once (columns.window.rows)"
        raise BadInput(
            f"{table.schema.rows} rows{held} split {sizes[0]} / {sizes[1]} / {sizes[2]} into train / validation / test, but each "
            f"part needs at least {SMALLEST_PART} rows; bring more rows{shorter}, or change "
            f"split.validation ({rule.validation}) and split.test ({rule.test})."
        )
    _check_classes(made, table)
    return made


def _digest(table: str, labels: Labels) -> str:
    """Return the digest of labels of the table with that digest."""
    digest = hashlib.sha256(table.encode())
    for start in range(0, len(labels), ROWS_AT_ONCE):
        digest.update(labels[start : start + ROWS_AT_ONCE].tobytes())
    return digest.hexdigest()[:16]


def _check_classes(made: Split, table: PackedTable) -> None:
    classes = table.schema.target.classes
    if not classes:
        return
    counts, in_train = np.zeros(len(classes), np.int64), np.zeros(len(classes), np.int64)
    for start, flags in made.portions("train"):
        labels = portion(table.target, start, start + len(flags))
        counts += np.bincount(labels, minlength=len(classes))
        in_train += np.bincount(labels[flags], minlength=len(classes))
    absent = np.flatnonzero(in_train == 0).tolist()
    if absent:
        names = ", ".join(f"'{classes[label]}' ({int(counts[label])} rows in all)" for label in absent[:5])
        names += f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise BadInput(
            f"the training split has no row of class {names}; bring more rows of it, remove it, use another --seed, "
            "or split.kind=stratified."
        )
