from typing import Literal

from pydantic import PositiveInt

from batchlab.strategies.base import Order, Population, Strategy, in_batches, permutation


class MiniBatch(Strategy):
    """One update per `batch_rows` shuffled rows; the last step may be short."""

    kind: Literal["mini_batch"] = "mini_batch"
    batch_rows: PositiveInt = 32

    def order(self, population: Population, seed: int, epoch: int) -> Order:
        return in_batches(permutation(population.row_count, seed, epoch), self.batch_rows)

    def rows_per_step(self, row_count: int) -> int:
        return self.batch_rows
