from typing import Literal

from pydantic import PositiveInt

from batchlab.strategies.base import Order, Population, Strategy, ascending, in_batches, permutation


class MiniBatch(Strategy):
    """One update per `batch_rows` rows, shuffled anew every epoch or (`shuffled` false) as they stand; the last step may be short."""

    kind: Literal["mini_batch"] = "mini_batch"
    batch_rows: PositiveInt = 32
    shuffled: bool = True

    def order(self, population: Population, seed: int, epoch: int) -> Order:
        rows = permutation(population.row_count, seed, epoch) if self.shuffled else ascending(population.row_count)
        return in_batches(rows, self.batch_rows)

    def rows_per_step(self, row_count: int) -> int:
        return self.batch_rows
