"""Which part each row belongs to: pure functions from times, groups, keys or chance to labels `[rows]`, in bounded memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.files.mapped import portion

Labels = NDArray[np.uint8]
PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST, EVERY, UNUSED = range(5)
ROWS_AT_ONCE = 2**20
DIGIT = 16
"""Bits of a time that one pass of `smallest` settles."""


class Draw:
    """Deals so many labels of each part to rows that come in portions: every way to deal them is equally likely."""

    def __init__(self, rows: int, shares: tuple[float, float]) -> None:
        validation, test = shares
        held, tested = round(rows * (validation + test)), round(rows * test)
        self.left = np.array([rows - held, held - tested, tested])

    def labels(self, rows: int, rng: np.random.Generator) -> Labels:
        """Return the labels of the next so many rows."""
        counts = self.left if rows == self.left.sum() else rng.multivariate_hypergeometric(self.left, rows)
        self.left = self.left - counts
        labels = np.empty(rows, np.uint8)
        labels[rng.permutation(rows)] = np.repeat(np.arange(3, dtype=np.uint8), counts)
        return labels


def at_random(classes: NDArray[np.int64] | None, rows: int, shares: tuple[float, float], seed: int) -> Labels:
    """Return random labels with exactly these shares of validation and test; with `classes` `[rows]`, in each class by itself."""
    rng = np.random.default_rng(seed)
    labels = np.empty(rows, np.uint8)
    counts = np.array([rows]) if classes is None else _class_counts(classes)
    draws = [Draw(int(count), shares) for count in counts]
    for start in range(0, rows, ROWS_AT_ONCE):
        goal = labels[start : start + ROWS_AT_ONCE]
        if classes is None:
            goal[:] = draws[0].labels(len(goal), rng)
            continue
        of_rows = portion(classes, start, start + ROWS_AT_ONCE)
        for label in np.unique(of_rows):
            mine = np.flatnonzero(of_rows == label)
            goal[mine] = draws[label].labels(len(mine), rng)
    return labels


def _class_counts(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    counts = np.zeros(0, np.int64)
    for start in range(0, len(classes), ROWS_AT_ONCE):
        found = np.bincount(portion(classes, start, start + ROWS_AT_ONCE), minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    return counts


def by_key(keys: NDArray[np.uint64], shares: tuple[float, float], seed: int) -> Labels:
    """Return labels that depend on each row's key and the seed alone: rows keep their part when others come. Shares are approximate."""
    labels = np.empty(len(keys), np.uint8)
    validation, test = shares
    for start in range(0, len(keys), ROWS_AT_ONCE):
        place = mixed(portion(keys, start, start + ROWS_AT_ONCE), seed) / 2.0**64
        labels[start : start + len(place)] = np.select([place < test, place < test + validation], [TEST, VALIDATION], TRAIN)
    return labels


def mixed(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return the keys hashed with the seed (the finaliser of splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        value = keys + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found: NDArray[np.uint64] = value ^ (value >> np.uint64(31))
    return found


def by_group(groups: NDArray[np.uint64], shares: tuple[float, float], seed: int) -> Labels:
    """Return labels that are the same for all rows of a group: groups in random order fill test, then validation, then train."""
    import pandas as pd

    sizes = pd.Series(dtype="int64")
    for start in range(0, len(groups), ROWS_AT_ONCE):
        sizes = sizes.add(pd.Series(portion(groups, start, start + ROWS_AT_ONCE)).value_counts(), fill_value=0)
    order = np.random.default_rng(seed).permutation(len(sizes))
    validation, test = shares
    before = (np.cumsum(sizes.to_numpy()[order]) - sizes.to_numpy()[order] / 2) / len(groups)
    label_of = np.empty(len(sizes), np.uint8)
    label_of[order] = np.select([before < test, before < test + validation], [TEST, VALIDATION], TRAIN)
    known = pd.Index(sizes.index.astype("uint64"))
    labels = np.empty(len(groups), np.uint8)
    for start in range(0, len(groups), ROWS_AT_ONCE):
        labels[start : start + ROWS_AT_ONCE] = label_of[known.get_indexer(pd.Index(portion(groups, start, start + ROWS_AT_ONCE)))]
    return labels


def by_time(times: "NDArray[np.generic]", cuts: Sequence[int], end: int, embargo: float = 0.0) -> Labels:
    """Return labels by time: train before the first cut, validation before the second, test before `end`, the rest unused.

    Cuts count rows in the order of time and move back to the first row of their time, so that no time is divided. Rows less than `embargo`
    before a cut are unused.
    """
    first, second = (smallest(times, cut) for cut in cuts)
    last = None if end >= len(times) else smallest(times, end)
    labels = np.empty(len(times), np.uint8)
    for start in range(0, len(times), ROWS_AT_ONCE):
        when: NDArray[Any] = portion(times, start, start + ROWS_AT_ONCE)
        part = np.where(when < first, TRAIN, np.where(when < second, VALIDATION, TEST))
        ended = np.zeros(len(when), bool) if last is None else when >= last
        near = ((part == TRAIN) & (when >= first - embargo)) | ((part == VALIDATION) & (when >= second - embargo))
        labels[start : start + len(when)] = np.where(ended | (near if embargo else False), UNUSED, part)
    return labels


def smallest(values: "NDArray[np.generic]", place: int) -> float | int:
    """Return the value that stands at `place` (from 0) in ascending order, by counting the leading digits of ever fewer values."""
    place = min(max(place, 0), len(values) - 1)
    prefix, known = np.uint64(0), 0
    while known < 64:
        counts = np.zeros(1 << DIGIT, np.int64)
        for start in range(0, len(values), ROWS_AT_ONCE):
            keys = _ordered(portion(values, start, start + ROWS_AT_ONCE))
            if known:
                keys = keys[keys >> np.uint64(64 - known) == prefix]
            digits = (keys >> np.uint64(64 - known - DIGIT)) & np.uint64((1 << DIGIT) - 1)
            counts += np.bincount(digits.astype(np.int64), minlength=1 << DIGIT)
        below = np.cumsum(counts)
        digit = int(np.searchsorted(below, place, side="right"))
        place -= int(below[digit - 1]) if digit else 0
        prefix, known = np.uint64((int(prefix) << DIGIT) | digit), known + DIGIT
    return _value(int(prefix), values.dtype)


def _ordered(values: "NDArray[np.generic]") -> NDArray[np.uint64]:
    """Return whole numbers that stand in the same order as the values."""
    bits = np.ascontiguousarray(values).view(np.uint64)
    top = np.uint64(1 << 63)
    if values.dtype == np.int64:
        return bits ^ top
    # a float's bits ascend with it where it is positive and descend where it is negative
    found: NDArray[np.uint64] = np.where(bits & top, ~bits, bits | top)
    return found


def _value(key: int, dtype: "np.dtype[np.generic]") -> float | int:
    top = 1 << 63
    if dtype == np.int64:
        return int(np.array([key ^ top], np.uint64).view(np.int64)[0])
    bits = key ^ top if key & top else key ^ ((1 << 64) - 1)
    return float(np.array([bits], np.uint64).view(np.float64)[0])
