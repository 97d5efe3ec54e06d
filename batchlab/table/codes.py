"""Numbers that stand for missing values, such as -999 or 9999: found because they lie far outside everything else in their column."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.serving.batchlab_serving import PackedColumn

CODES = np.array(
    sorted(
        {float(sign * int(digit * count)) for digit in "789" for count in range(2, 9) for sign in (-1, 1)}
        | {sign * (10.0**count - 0.1) for count in range(2, 6) for sign in (-1, 1)}
        | {-9.0, -99.9, 99.9, -999.25, -32768.0, 32767.0, -2147483648.0, 2147483647.0}
    )
)
"""What people write for missing values in columns of numbers: 99, -999, 9999, -88, 999.9, and the ends of short and long integers."""
FEWEST = 2
"""A code occurs more often than once: a single far value is just far."""
MOST_NAMED = 5


def suspicious(counts: "Counter[float]", low: float, high: float) -> list[tuple[float, int]]:
    """Return the codes, with how often they occur, that are farther from the other values (`low` to `high`) than those are from each
    other; the nearest first."""
    found: list[tuple[float, int]] = []
    for code, count in sorted(counts.items(), key=lambda item: max(low - item[0], item[0] - high)):
        if low <= code <= high or not low <= high:
            continue
        if count >= FEWEST and max(low - code, code - high) > high - low:
            found.append((code, count))
        elif not found:  # an ordinary value that looks like a code: one of the others
            low, high = min(low, code), max(high, code)
    return found


class Codes:
    """Looks, portion by portion, at the ends of every column of numbers."""

    def __init__(self, columns: Sequence[PackedColumn]) -> None:
        starts = np.cumsum([0, *(len(column.packed_names) for column in columns)])
        numbers = [number for number, column in enumerate(columns) if column.kind == "number"]
        self.names, self.places = [columns[number].name for number in numbers], starts[numbers].astype(np.int64)
        self.low, self.high = np.full(len(numbers), np.inf), np.full(len(numbers), -np.inf)
        self.counts: dict[int, Counter[float]] = {}

    def add(self, values: NDArray[np.floating[Any]], least: NDArray[np.float64], largest: NDArray[np.float64]) -> None:
        """Take in exact numbers `[packed columns, rows]`, and the least and largest of each column."""
        low, high = least[self.places], largest[self.places]
        for number in np.flatnonzero(np.isin(low, CODES) | np.isin(high, CODES)).tolist():
            rest = np.asarray(values[self.places[number]], np.float64)
            low[number], high[number] = self._without(number, rest[np.isfinite(rest)])
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    def _without(self, number: int, rest: NDArray[np.float64]) -> tuple[float, float]:
        """Count the codes at the ends of a column's values, and return the range of the rest."""
        while len(rest):
            ends = np.unique([rest.min(), rest.max()])
            codes = ends[np.isin(ends, CODES)]
            if not len(codes):
                return float(ends[0]), float(ends[-1])
            for code in codes.tolist():
                self.counts.setdefault(number, Counter())[code] += int(np.count_nonzero(rest == code))
            rest = rest[~np.isin(rest, codes)]
        return np.inf, -np.inf

    def notes(self, rows: int) -> list[str]:
        """Return a note on every column with such codes, of so many rows; of many columns the rest in one."""
        ends = zip(self.low.tolist(), self.high.tolist(), strict=True)
        found = [
            (name, low, high, self.counts.get(number)) for number, (name, (low, high)) in enumerate(zip(self.names, ends, strict=True))
        ]
        said = [
            _note(name, codes, (low, high), rows)
            for name, low, high, counts in found
            if counts and (codes := suspicious(counts, low, high))
        ]
        rest = len(said) - MOST_NAMED
        return [*said[:MOST_NAMED], f"{rest:,} more columns hold such codes"] if rest > 0 else said


def _note(name: str, codes: Sequence[tuple[float, int]], ends: tuple[float, float], rows: int) -> str:
    counts = " and ".join(f"{code:.10g} {count:,} times ({100 * count / max(rows, 1):.1f}% of the rows)" for code, count in codes)
    options = " ".join(f"--missing {code:.10g}" for code, _ in codes)
    listed = ", ".join(f"{code:.10g}" for code, _ in codes)
    return (
        f"column '{name}' holds {counts}, far outside its other values ({ends[0]:g} to {ends[1]:g}): taken as a number; where it stands "
        f"for a missing value, give {options} (columns.missing=[{listed}])"
    )
