from collections.abc import Iterator
from typing import Literal

from batchlab.strategies.base import Population, Step, Strategy, permutation, portions


class Stochastic(Strategy):
    """One update a row, in shuffled order: the notebook's mini-batch taken to its small end."""

    kind: Literal["stochastic"] = "stochastic"

    def steps(self, population: Population, seed: int, epoch: int) -> Iterator[Step]:
        for row in portions(permutation(population.row_count, seed, epoch), 1):
            yield [row]

    def rows_per_step(self, row_count: int) -> int:
        return 1
