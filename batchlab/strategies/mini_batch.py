from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import PositiveInt

from batchlab.strategies.base import (
    MOST_DRAWN_WHOLE,
    Order,
    Population,
    Strategy,
    ascending,
    in_batches,
    part_of_permutation,
    permutation,
    short,
    whole_steps,
)


class MiniBatch(Strategy):
    """One update per `batch_rows` rows, shuffled anew every epoch or (`shuffled` false) as they stand; the last step may be short."""

    kind: Literal["mini_batch"] = "mini_batch"
    batch_rows: PositiveInt = 32
    shuffled: bool = True

    def order(self, population: Population, seed: int, epoch: int) -> Order:
        rows = permutation(population.row_count, seed, epoch) if self.shuffled else ascending(population.row_count)
        return in_batches(rows, self.batch_rows)

    def pieces(self, population: Population, seed: int, epoch: int, steps_done: int = 0) -> Iterator[Order]:
        count = population.row_count
        if count <= MOST_DRAWN_WHOLE:
            yield from super().pieces(population, seed, epoch, steps_done)
            return
        for start in range(steps_done * self.batch_rows, count, piece := self.rows_per_piece(count)):
            stop = min(start + piece, count)
            rows = part_of_permutation(count, seed, epoch, start, stop) if self.shuffled else np.arange(start, stop, dtype=short(count))
            yield in_batches(rows, self.batch_rows)

    def rows_per_piece(self, row_count: int) -> int:
        return row_count if row_count <= MOST_DRAWN_WHOLE else whole_steps(row_count, self.batch_rows)

    def rows_drawn_at_once(self, row_count: int) -> int:
        return self.rows_per_piece(row_count)

    def rows_per_step(self, row_count: int) -> int:
        return self.batch_rows
