from typing import Literal

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from batchlab.errors import BadInput
from batchlab.strategies.base import Indices, Order, Population, Strategy, ascending, generator, in_batches, permutation
from batchlab.strategies.mini_batch import MiniBatch

Sampling = Literal["shuffled", "sequential", "weighted", "stratified"]


class DataLoader(Strategy):
    """Mini-batches through torch's DataLoader: worker processes, and a sampler of your choice.

    `sampling` orders the rows: `shuffled`; `sequential` as they stand in the split; `weighted` draws as many rows as there
    are, with replacement, in proportion to the column that `weight_column` names (that column is then no feature);
    `stratified` keeps every batch close to the class shares of the training rows.
    """

    kind: Literal["data_loader"] = "data_loader"
    batch_rows: PositiveInt = 32
    workers: NonNegativeInt = 0
    sampling: Sampling = "shuffled"
    weight_column: str | None = None

    def order(self, population: Population, seed: int, epoch: int) -> Order:
        return in_batches(self._sampled(population, seed, epoch), self.batch_rows)

    def rows_per_step(self, row_count: int) -> int:
        return self.batch_rows

    @property
    def updates(self) -> Strategy:
        if self.sampling in ("weighted", "stratified"):
            return self.model_copy(update={"workers": 0})
        return MiniBatch(batch_rows=self.batch_rows, shuffled=self.sampling == "shuffled")

    @property
    def weighted_by(self) -> str | None:
        return self.weight_column

    @property
    def loader_workers(self) -> int | None:
        return self.workers

    def check(self, population: Population) -> None:
        """Raise BadInput when the sampling needs classes or weights that the training rows lack."""
        super().check(population)
        if self.sampling == "stratified" and population.classes is None:
            raise BadInput(
                "sampling 'stratified' needs classes, but the task is regression; use 'shuffled', or --task binary or multiclass."
            )
        if self.sampling == "weighted" and (population.weights is None or population.weights.sum() == 0):
            raise BadInput("sampling 'weighted' needs weight_column, a column of weights of which some are above 0 in the training rows.")

    def _sampled(self, population: Population, seed: int, epoch: int) -> Indices:
        if self.sampling == "sequential":
            return ascending(population.row_count)
        if self.sampling == "weighted" and population.weights is not None:
            shares = population.weights / population.weights.sum()
            return generator(seed, epoch).choice(population.row_count, population.row_count, p=shares)
        if self.sampling == "stratified" and population.classes is not None:
            return stratified_order(population.classes, seed, epoch)
        return permutation(population.row_count, seed, epoch)


def stratified_order(classes: Indices, seed: int, epoch: int) -> Indices:
    """Return every row once, each class spread evenly: row j of a class's n takes a random place in [j/n, (j+1)/n)."""
    rng = generator(seed, epoch)
    place = np.empty(len(classes))
    for label in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == label))
        place[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(place, kind="stable")
