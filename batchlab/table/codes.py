"""Numbers that stand for missing values, such as -999 or 9999: found because they lie far outside everything else in their column."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

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


@dataclass
class _Seen:
    """Codes at the ends of one column with how often they occur, and the range of all other values."""

    counts: "Counter[float]" = field(default_factory=Counter)
    low: float = np.inf
    high: float = -np.inf

    def suspicious(self) -> list[tuple[float, int]]:
        """Return the codes that are farther from all other values than those are from each other."""
        inside = [code for code in self.counts if self.low <= code <= self.high]
        low, high = self.low, self.high
        found = []
        for code, count in sorted(self.counts.items(), key=lambda item: max(low - item[0], item[0] - high)):
            if code in inside or not low <= high:
                continue
            if count >= FEWEST and max(low - code, code - high) > high - low:
                found.append((code, count))
            elif not found:  # an ordinary value that looks like a code: part of the range
                low, high = min(low, code), max(high, code)
        return found


class Codes:
    """Looks, portion by portion, at the ends of every column of numbers."""

    def __init__(self, columns: Sequence[PackedColumn]) -> None:
        self.names, place = {}, 0
        for column in columns:
            if column.kind == "number":
                self.names[place] = column.name
            place += len(column.packed_names)
        self.places = np.array(list(self.names), np.int64)
        self.seen = {place: _Seen() for place in self.names}

    def add(self, values: NDArray[np.floating], least: NDArray[np.float64], largest: NDArray[np.float64]) -> None:
        """Take in exact numbers `[packed columns, rows]`, and the least and largest of each column."""
        ends = np.isin(least[self.places], CODES) | np.isin(largest[self.places], CODES)
        for place, coded in zip(self.places.tolist(), ends.tolist(), strict=True):
            seen = self.seen[place]
            if coded:
                self._add_coded(seen, np.asarray(values[place], np.float64))
            elif least[place] <= largest[place]:
                seen.low, seen.high = min(seen.low, float(least[place])), max(seen.high, float(largest[place]))

    def _add_coded(self, seen: _Seen, values: NDArray[np.float64]) -> None:
        rest = values[np.isfinite(values)]
        while len(rest):
            low, high = float(rest.min()), float(rest.max())
            codes = [end for end in {low, high} if end in CODES]
            if not codes:
                seen.low, seen.high = min(seen.low, low), max(seen.high, high)
                return
            for code in codes:
                seen.counts[code] += int(np.count_nonzero(rest == code))
            rest = rest[~np.isin(rest, codes)]

    def notes(self, rows: int) -> list[str]:
        """Return a note on every column with such codes, of so many rows; of many columns the rest in one."""
        found = {self.names[place]: codes for place, seen in self.seen.items() if (codes := seen.suspicious())}
        said = [self._note(name, codes, rows) for name, codes in list(found.items())[:MOST_NAMED]]
        rest = list(found)[MOST_NAMED:]
        return [*said, f"{len(rest)} more columns hold such codes: {', '.join(rest[:MOST_NAMED])} …"] if rest else said

    def _note(self, name: str, codes: list[tuple[float, int]], rows: int) -> str:
        place = next(place for place, own in self.names.items() if own == name)
        seen = self.seen[place]
        counts = " and ".join(f"{code:.10g} {count:,} times ({100 * count / max(rows, 1):.1f}% of the rows)" for code, count in codes)
        options = " ".join(f"--missing {code:.10g}" for code, _ in codes)
        listed = ", ".join(f"{code:.10g}" for code, _ in codes)
        return (
            f"column '{name}' holds {counts}, far outside its other values ({seen.low:g} to {seen.high:g}): taken as a number; where it "
            f"stands for a missing value, give {options} (columns.missing=[{listed}])"
        )
