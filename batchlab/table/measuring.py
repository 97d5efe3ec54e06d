"""Figures of numeric columns, gathered batch by batch in bounded memory."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


class Figures:
    """Running figures of `width` columns, each `[width]`: missing and infinite values, range, mean, spread.

    Batches are joined as by Chan, Golub and LeVeque (1983), so that the spread does not cancel.
    """

    def __init__(self, width: int) -> None:
        self.rows = 0
        self.missing, self.infinite = np.zeros(width, np.int64), np.zeros(width, np.int64)
        self.minimum, self.maximum = np.full(width, np.inf), np.full(width, -np.inf)
        self.mean, self.squares = np.zeros(width), np.zeros(width)

    @property
    def known(self) -> NDArray[np.int64]:
        """How many values are finite."""
        known: NDArray[np.int64] = self.rows - self.missing - self.infinite
        return known

    @property
    def spread(self) -> Numbers:
        """Standard deviations, population form."""
        spread: Numbers = np.sqrt(self.squares / np.maximum(self.known, 1))
        return spread

    def add(self, rows: int, figures: Numbers) -> None:
        """Take in the figures `[width, 6]` of so many rows, as `turned` returns them."""
        missing, infinite, least, largest, mean, squares = figures.T
        before, added, step = self.known, rows - missing - infinite, mean - self.mean
        both = np.maximum(before + added, 1)
        self.squares += np.where(added > 0, squares + step**2 * before * added / both, 0.0)
        self.mean += np.where(added > 0, step * added / both, 0.0)
        self.minimum, self.maximum = np.minimum(self.minimum, least), np.maximum(self.maximum, largest)
        self.missing += missing.astype(np.int64)
        self.infinite += infinite.astype(np.int64)
        self.rows += rows
