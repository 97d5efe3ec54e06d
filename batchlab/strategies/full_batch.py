from collections.abc import Iterator
from typing import Literal

import numpy as np

from batchlab.strategies.base import Population, Step, Strategy


class FullBatch(Strategy):
    """One update an epoch, with the gradient of all training rows at once."""

    kind: Literal["full_batch"] = "full_batch"

    def steps(self, population: Population, seed: int, epoch: int) -> Iterator[Step]:
        yield [np.arange(population.row_count)]

    def rows_per_step(self, row_count: int) -> int:
        return row_count
