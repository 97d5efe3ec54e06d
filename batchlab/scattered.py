"""A random order of very many rows of which any part can be had without the rest."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

ROUNDS = 6


class Scattered:
    """A random permutation of `row_count` rows that takes a few KiB: a generalised Feistel network (Black and Rogaway 2002) over a grid of
    places about as wide as it is high, whose round functions are tables of random numbers (Luby and Rackoff 1988)."""

    def __init__(self, row_count: int, rng: np.random.Generator) -> None:
        self.row_count, self.width = row_count, int(np.ceil(np.sqrt(row_count)))
        self.height = -(-row_count // self.width)
        shape = (ROUNDS // 2, max(self.width, self.height))
        self.downs, self.alongs = (rng.integers(side, size=shape) for side in (self.height, self.width))

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows at the places from `start` to `stop` of the order."""
        found = np.empty(max(0, min(stop, self.row_count) - start), np.int64)
        _stir(start, self.row_count, (self.width, self.height), self.downs, self.alongs, found)
        return found


@njit(cache=True, nogil=True)
def _stir(start: Any, row_count: Any, grid: Any, downs: Any, alongs: Any, found: Any) -> None:  # pragma: no cover - compiled
    width, height = grid
    for number in range(len(found)):
        row = start + number
        while True:  # the grid is hardly larger than the table: few places lie outside and are stirred again
            down, along = row // width, row % width
            for turn in range(len(downs)):
                down += downs[turn, along]
                if down >= height:
                    down -= height
                along += alongs[turn, down]
                if along >= width:
                    along -= width
            row = down * width + along
            if row < row_count:
                break
        found[number] = row
