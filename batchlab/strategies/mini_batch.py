from collections.abc import Iterator
from typing import Literal

from pydantic import PositiveInt

from batchlab.strategies.base import Population, Step, Strategy, permutation, portions


class MiniBatch(Strategy):
    """One update per `batch_rows` shuffled rows; the last step may be short."""

    kind: Literal["mini_batch"] = "mini_batch"
    batch_rows: PositiveInt = 32

    def steps(self, population: Population, seed: int, epoch: int) -> Iterator[Step]:
        for rows in portions(permutation(population.row_count, seed, epoch), self.batch_rows):
            yield [rows]

    def rows_per_step(self, row_count: int) -> int:
        return self.batch_rows
