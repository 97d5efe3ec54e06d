from typing import Literal

from pydantic import PositiveInt

from batchlab.strategies.base import Order, Population, Strategy, in_batches, permutation


class Growing(Strategy):
    """Mini-batches that grow, never shrink: small while any step helps, large once noise is what is left.

    With `growth` "noise" the batch becomes, whenever the noise scale is measured, the largest multiple `batch_rows` · factorᵏ that the
    lower end of its interval reaches (McCandlish et al. 2018, section 2.3); with "schedule" it is multiplied by `factor` every `epochs`
    epochs (Smith et al. 2018). `most_rows` is the largest batch; without it, all training rows.
    """

    kind: Literal["growing"] = "growing"
    batch_rows: PositiveInt = 8
    growth: Literal["noise", "schedule"] = "noise"
    factor: PositiveInt = 2
    epochs: PositiveInt = 10
    most_rows: PositiveInt | None = None

    def order(self, population: Population, seed: int, epoch: int) -> Order:
        return in_batches(permutation(population.row_count, seed, epoch), self._rows_at(epoch, population.row_count))

    def rows_per_step(self, row_count: int) -> int:
        """Rows behind one of the first updates: at most all there are."""
        return min(self.batch_rows, row_count)

    @property
    def grows(self) -> bool:
        return True

    @property
    def adapts(self) -> bool:
        return self.growth == "noise"

    def adapted(self, noise_scale: float) -> "Growing":
        limit = min(noise_scale, self.most_rows or 2**62)
        grown = self.batch_rows
        while self.factor > 1 and grown * self.factor <= limit:
            grown *= self.factor
        return self.model_copy(update={"batch_rows": grown})

    def _rows_at(self, epoch: int, row_count: int) -> int:
        grown = self.batch_rows
        for _ in range(epoch // self.epochs if self.growth == "schedule" else 0):
            if grown >= row_count:
                break
            grown *= self.factor
        return max(min(grown, self.most_rows or row_count, row_count), min(self.batch_rows, row_count))
