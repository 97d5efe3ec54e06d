"""Rows that stand in two parts of a split: found by a hash of their packed values, in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.rows.assigning import PARTS, mixed
from batchlab.rows.split import Split
from batchlab.table.schema import PackedTable

Hashes = NDArray[np.uint64]
HELD_OUT = ("validation", "test")
VALUES_AT_ONCE = 2**20
ALL_ROWS, SAMPLED_ROWS = 5_000_000, 1_000_000
"""Of a table of more rows, held-out rows are looked for among so many."""
MOST_VALUES = 2**29
"""At most so many values (2 GiB) are read of the training rows, in evenly spaced portions."""


@dataclass(frozen=True)
class Repeated:
    """How many of the `looked_at` rows of a part also stand among the training rows; `all_training`: all of those were compared."""

    part: str
    looked_at: int
    found: int
    all_rows: bool
    all_training: bool

    @property
    def share(self) -> float:
        """The share of rows that do."""
        return self.found / max(self.looked_at, 1)


def repeated(table: PackedTable, split: Split) -> list[Repeated]:
    """Return for validation and test how many rows equal a training row in all features and the target."""
    rows, width = table.schema.rows, len(table.schema.packed_names)
    held, own = _held_out(table, split, rows if rows <= ALL_ROWS else SAMPLED_ROWS)
    order = np.argsort(held)
    values, seen, compared = held[order], np.zeros(len(held), bool), 0
    for start, count in portions(table, MOST_VALUES // max(width, 1)):
        found = _hashed(table, split.labels, start, count, (PARTS.index("train"),))[0]
        compared += len(found)
        _mark(values, seen, found)
    parts, sizes = own[order], split.sizes()
    return [
        Repeated(part, len(mine), int(mine.sum()), len(mine) == sizes[part], compared == sizes["train"])
        for part in HELD_OUT
        if len(mine := seen[parts == PARTS.index(part)])
    ]


def _mark(values: Hashes, seen: NDArray[np.bool_], found: Hashes) -> None:
    """Mark those of the sorted `values` that were found."""
    if not len(values):
        return
    found = np.unique(found)
    found = found[values[np.minimum(np.searchsorted(values, found), len(values) - 1)] == found]
    low, high = np.searchsorted(values, found), np.searchsorted(values, found, side="right")
    for count in range(int((high - low).max(initial=0))):
        places = low + count
        seen[places[places < high]] = True


def _held_out(table: PackedTable, split: Split, most: int) -> tuple[Hashes, NDArray[np.uint8]]:
    """Return the hashes of held-out rows and the part of each."""
    wanted = tuple(PARTS.index(part) for part in HELD_OUT)
    pairs = [_hashed(table, split.labels, start, count, wanted) for start, count in portions(table, most)]
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


def portions(table: PackedTable, most: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of portions that cover the table, or of more than `most` rows so many, evenly spaced."""
    rows = table.schema.rows
    size = max(1, min(VALUES_AT_ONCE // max(len(table.schema.packed_names), 1), rows, most))
    if rows <= most:
        yield from ((start, min(size, rows - start)) for start in range(0, rows, size))
        return
    for start in np.linspace(0, rows - size, max(1, most // size)).astype(np.int64).tolist():
        yield start, size


def _hashed(
    table: PackedTable, labels: NDArray[np.uint8], start: int, count: int, wanted: tuple[int, ...]
) -> tuple[Hashes, NDArray[np.uint8]]:
    own = np.asarray(labels[start : start + count])
    flags = np.isin(own, wanted)
    if not flags.any():
        return np.zeros(0, np.uint64), own[:0]
    features, target = table.read("features", start, count), table.read("target", start, count)
    return (hashes(features, target), own) if flags.all() else (hashes(features[flags], target[flags]), own[flags])


def hashes(features: NDArray[np.float32], target: NDArray[Any]) -> Hashes:
    """Return a 64-bit hash of each row `[rows]`: equal rows have equal ones, and others hardly ever."""
    factors = np.random.default_rng(0).integers(0, 2**63, features.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    with np.errstate(over="ignore"):
        bits = (features + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0 becomes 0
        bits *= np.uint64(0x9E3779B97F4A7C15)
        bits ^= bits >> np.uint64(32)
        bits *= factors
        of_target = mixed(np.where(target == 0, 0, target).astype(target.dtype).view(np.uint64), 1)
        return mixed(bits.sum(axis=1, dtype=np.uint64) ^ of_target, 0)


def by_chance(features: NDArray[np.float32], target: "NDArray[np.generic]", training_rows: int) -> float:
    """Return the share of rows that a training row would equal if columns were independent: large where all take few values."""
    rows, alike = len(target), 1.0
    for values in (target, *features.T):
        _, counts = np.unique(values, return_counts=True)
        alike *= float((counts * (counts - 1.0)).sum()) / max(rows * (rows - 1.0), 1.0)
        if alike == 0:
            break
    return float(-np.expm1(-training_rows * alike))
