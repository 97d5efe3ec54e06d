"""The work that everyone is given: the same rows, initial weights, order of rows, learning rate and number of epochs."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise

import torch
from torch import nn

from batchlab.engine.backends.base import seeded_network
from batchlab.engine.data import TrainingData
from batchlab.models import Model
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.strategies import Indices, Population
from batchlab.strategies.mini_batch import MiniBatch

RATE = 0.01


@lru_cache(maxsize=4)
def made_rows(row_count: int, features: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return standard normal features and a target that is partly linear in them, in float32."""
    generator = torch.Generator().manual_seed(0)
    if features == 1:  # the notebook's prices, standardised
        days = torch.linspace(1, row_count, row_count)
        prices = 0.5 * days + 10 * torch.randn(row_count, generator=generator) + 100
        return ((days - days.mean()) / days.std())[:, None], (prices - prices.mean()) / prices.std()
    rows = torch.randn(row_count, features, generator=generator)
    target = rows[:, 0] - 0.5 * rows[:, 1] + torch.sin(2 * rows[:, 2]) + 0.3 * torch.randn(row_count, generator=generator)
    return rows, target


@dataclass(frozen=True)
class Work:
    """One training, or several replicas of it that differ in their seeds."""

    model: Model
    batch_rows: int
    replicas: int = 1
    epochs: int = 1
    row_count: int = 20_000
    features: int = 20
    first_seed: int = 0

    @property
    def name(self) -> str:
        batch = "full" if self.batch_rows == self.row_count else self.batch_rows
        return f"{self.model.kind} · batch {batch} · {self.replicas} replica{'s' if self.replicas > 1 else ''}"

    @property
    def rows_trained(self) -> int:
        """Rows that go through a forward and a backward pass, of all replicas together."""
        return self.row_count * self.epochs * self.replicas

    @cached_property
    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        return made_rows(self.row_count, self.features)

    @cached_property
    def data(self) -> TrainingData:
        features, target = self.rows
        return TrainingData(features, target, features[:100], target[:100], Population(self.row_count), output_count=1)

    def network(self, replica: int = 0) -> nn.Module:
        return seeded_network(self.model, (self.features, 1), self.first_seed + replica)

    def order(self, replica: int, epoch: int) -> Indices:
        """Return the order of rows of an epoch; drawing it is everybody's work, so everybody calls this while the clock runs."""
        return MiniBatch(batch_rows=self.batch_rows).order(self.data.population, self.first_seed + replica, epoch).rows

    def loss(self, network: nn.Module) -> float:
        """Return the mean squared error on all rows."""
        features, target = self.rows
        with torch.no_grad():
            return float(nn.functional.mse_loss(network.eval()(features)[:, 0], target))

    @property
    def widest(self) -> int:
        return max(self.model.widths) if isinstance(self.model, Mlp) else 0

    def flops_per_row(self) -> int:
        """Return the floating-point operations of a row's forward and backward pass: its matrix products."""
        widths = [self.features, *(self.model.widths if isinstance(self.model, Mlp) else ()), 1]
        products = [2 * inputs * outputs for inputs, outputs in pairwise(widths)]
        return 2 * sum(products) + sum(products[1:])

    def alone(self) -> "Work":
        """Return the work of one replica."""
        return replace(self, replicas=1)


MODELS: tuple[Model, ...] = (Linear(), Mlp(widths=(64, 64)))


def lesson() -> Work:
    """Return the notebook's own problem: 100 prices, batches of 10, 1,000 epochs, a line."""
    return Work(Linear(), batch_rows=10, epochs=1000, row_count=100, features=1)
