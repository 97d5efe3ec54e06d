from typing import Literal

from batchlab.strategies.base import Order, Population, Strategy, ascending, in_batches


class FullBatch(Strategy):
    """One update an epoch, with the gradient of all training rows at once."""

    kind: Literal["full_batch"] = "full_batch"

    def order(self, population: Population, seed: int, epoch: int) -> Order:
        return in_batches(ascending(population.row_count), population.row_count)

    def rows_per_step(self, row_count: int) -> int:
        return row_count
