from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import PositiveInt

from batchlab.strategies.base import Population, Step, Strategy, portions


class Accumulated(Strategy):
    """The full-batch update in bounded memory: the gradient is summed over portions, each weighted by its rows."""

    kind: Literal["accumulated"] = "accumulated"
    portion_rows: PositiveInt = 256

    def steps(self, population: Population, seed: int, epoch: int) -> Iterator[Step]:
        yield list(portions(np.arange(population.row_count), self.portion_rows))

    def rows_per_step(self, row_count: int) -> int:
        return row_count
