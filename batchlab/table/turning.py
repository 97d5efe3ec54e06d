"""Columns turned into rows, and measured on the way: compiled, since every value of a table passes here once."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

TURNED_ROWS = 256
"""So many rows are turned at once, that they stay in the cache while every column is written."""


def turned(columns: NDArray[Any], offsets: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return values `[width, rows]` less their column's offset as float32 rows `[rows, width]`, NaN where they are not finite; and, for
    each column before the offset, `[width, 6]`: missing, infinite, least, largest, mean and summed squared deviations."""
    rows = np.empty(columns.shape[::-1], np.float32)
    figures = np.empty((len(columns), 6))
    _turn(columns, offsets, rows, figures)
    return rows, figures


def warm() -> None:
    """Compile what packing and preparing will call, or load it from disk."""
    for rows in (np.zeros((1, 2)), np.zeros((1, 2), np.float32), np.zeros((2, 1), np.float32).T):
        turned(rows, np.zeros(1))


# Not parallel: numba's threads may be at work elsewhere in the process, and the other core is busy reading and writing.
@njit(cache=True, nogil=True)
def _turn(columns: Any, offsets: Any, rows: Any, figures: Any) -> None:  # pragma: no cover - compiled
    width, count = columns.shape
    shifts, sums = np.zeros(width), np.zeros((width, 2))
    for column in range(width):
        figures[column, 0], figures[column, 1], figures[column, 2], figures[column, 3] = 0.0, 0.0, np.inf, -np.inf
        for row in range(count):  # deviations from a value of the column do not cancel
            if columns[column, row] - columns[column, row] == 0.0:
                shifts[column] = columns[column, row]
                break
    for start in range(0, count, TURNED_ROWS):
        end = min(start + TURNED_ROWS, count)
        for column in range(width):
            least, largest = figures[column, 2], figures[column, 3]
            first, second, shift, offset = sums[column, 0], sums[column, 1], shifts[column], offsets[column]
            for row in range(start, end):
                value = np.float64(columns[column, row])
                if value - value == 0.0:
                    least, largest = min(least, value), max(largest, value)
                    first += value - shift
                    second += (value - shift) * (value - shift)
                    rows[row, column] = value - offset
                else:
                    figures[column, 0 if value != value else 1] += 1.0
                    rows[row, column] = np.nan
            figures[column, 2], figures[column, 3] = least, largest
            sums[column, 0], sums[column, 1] = first, second
    for column in range(width):
        known = max(count - figures[column, 0] - figures[column, 1], 1.0)
        figures[column, 4] = shifts[column] + sums[column, 0] / known
        figures[column, 5] = max(sums[column, 1] - sums[column, 0] * sums[column, 0] / known, 0.0)
