from typing import Literal

import numpy as np
from pydantic import PositiveInt

from batchlab.strategies.base import Order, Population, Strategy, ascending, cuts
from batchlab.strategies.full_batch import FullBatch


class Accumulated(Strategy):
    """The full-batch update in bounded memory: the gradient is summed over portions, each weighted by its rows."""

    kind: Literal["accumulated"] = "accumulated"
    portion_rows: PositiveInt = 256

    def order(self, population: Population, seed: int, epoch: int) -> Order:
        count = population.row_count
        return Order(ascending(count), portions=cuts(count, self.portion_rows), steps=np.array([count]))

    def rows_per_step(self, row_count: int) -> int:
        return row_count

    def rows_per_portion(self, row_count: int) -> int:
        return min(self.portion_rows, row_count)

    @property
    def updates(self) -> Strategy:
        return FullBatch()
