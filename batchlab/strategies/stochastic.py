from typing import Literal

from batchlab.strategies.base import Order, Population, Strategy, in_batches, permutation
from batchlab.strategies.mini_batch import MiniBatch


class Stochastic(Strategy):
    """One update a row, in shuffled order: the notebook's mini-batch taken to its small end."""

    kind: Literal["stochastic"] = "stochastic"

    def order(self, population: Population, seed: int, epoch: int) -> Order:
        return in_batches(permutation(population.row_count, seed, epoch), 1)

    def rows_per_step(self, row_count: int) -> int:
        return 1

    @property
    def updates(self) -> Strategy:
        return MiniBatch(batch_rows=1)
