"""Rows made ready to train on, as tensors: all of them in memory, or the training rows in files."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.stored import StoredRows as StoredRows
from batchlab.files.mapped import gathered
from batchlab.strategies import Indices, Population

if TYPE_CHECKING:
    from torch import Tensor

    LabelledRows = tuple[Tensor, Tensor]

DIVISION_ROWS_EVALUATED = 2048


@dataclass(frozen=True)
class Divisions:
    """Ways to divide a pool of rows: places `[divisions, train rows]` and `[divisions, validation rows]` in it. All are of one size. Of a
    division's training rows at most about `train_rows_evaluated` tell the training loss."""

    train: NDArray[np.int32]
    validation: NDArray[np.int32]
    train_rows_evaluated: int = DIVISION_ROWS_EVALUATED

    def thinned(self, train_rows: int, validation_rows: int) -> "Divisions":
        """Return the same with evaluations of at most so many rows, evenly spread over each division's."""
        count = self.validation.shape[1]
        kept = np.arange(min(validation_rows, count)) * count // min(validation_rows, count)
        return replace(self, validation=self.validation[:, kept], train_rows_evaluated=min(train_rows, self.train_rows_evaluated))


@dataclass(frozen=True)
class TrainingData:
    """Scaled tensors of the training and validation rows: features `[rows, features]`, target `[rows]`; and what sampling may know.

    `sample` holds those training rows whose loss is evaluated, where that is not all of them. Where the training rows are `stored` in
    files, `features` and `target` are maps of these: every strategy works on them, `streaming` reads the files themselves. With
    `divisions`, `features` and `target` hold the pool that these divide, and `population` is that of one division's training rows.
    With `places` `[training rows]`, `features` and `target` hold other rows too, and the training rows stand at these; such features may be
    windows, whose rows overlap in memory. With `versions`, so many other ones of all rows, each as long, stand behind them: every epoch
    trains on another one in turn, each seed beginning elsewhere. `memory_bytes` are what a training on a CPU may take beyond the rows;
    None: what is free.
    """

    features: "Tensor"
    target: "Tensor"
    validation_features: "Tensor"
    validation_target: "Tensor"
    population: Population
    output_count: int
    sample: "LabelledRows | None" = None
    stored: StoredRows | None = None
    divisions: Divisions | None = None
    places: "NDArray[np.int32] | None" = None
    versions: int = 0
    memory_bytes: int | None = None
    _evaluated: "dict[int, tuple[LabelledRows, LabelledRows]]" = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of_stored(
        cls,
        stored: StoredRows,
        validation_features: "Tensor",
        validation_target: "Tensor",
        output_count: int,
        population: Population | None = None,
    ) -> "TrainingData":
        """Return training rows in files beside validation rows in memory; without a `population`, one that knows only their number."""
        import torch

        features, target = (torch.from_numpy(array) for array in stored.arrays)
        population = population or Population(len(target))
        return cls(features, target, validation_features, validation_target, population, output_count, stored=stored)

    @property
    def evaluated(self) -> "tuple[LabelledRows, LabelledRows]":
        """The training and the validation rows whose losses make the curves."""
        return self.sample or (self.features, self.target), (self.validation_features, self.validation_target)

    def trained_on(self, division: int) -> "NDArray[np.integer] | None":
        """Return where in `features` a division's training rows stand; None where that is all of them in their order."""
        return self.places if self.divisions is None else self.divisions.train[division]

    def at(self, rows: "Tensor") -> "LabelledRows":
        """Return features and targets at places of any shape; of rows in files as copies, whose pages do not stay in memory."""
        import torch

        if self.stored is None:
            return self.features[rows], self.target[rows]
        features, target = (gathered(array, rows.numpy().ravel()) for array in self.stored.arrays)
        return torch.from_numpy(features).view(*rows.shape, -1), torch.from_numpy(target).view(rows.shape)

    def in_pool(self, rows: Indices, divisions: NDArray[np.intp], seeds: Sequence[int], rows_before: int = 0) -> Indices:
        """Return where in `features` rows `[orders, rows]` stand, each order's of a seed and a division of its own; of several versions
        in that whose turn it is, `rows_before` being those that the seeds have seen before."""
        found: Indices = rows if self.places is None else self.places[rows]
        if self.divisions is not None:
            found = np.take_along_axis(self.divisions.train[divisions], rows, axis=1)
        if not self.versions:
            return found
        epochs = (rows_before + np.arange(rows.shape[1])) // self.population.row_count
        turns = 1 + (epochs + np.array([seed % self.versions for seed in seeds])[:, None]) % self.versions
        return np.asarray(found + turns * (len(self.features) // (1 + self.versions)), found.dtype)

    def evaluated_in(self, division: int) -> "tuple[LabelledRows, LabelledRows]":
        """Return the training and the validation rows whose losses make the curves of a division; gathered once."""
        if self.divisions is None:
            return self.evaluated
        if division not in self._evaluated:
            import torch

            few = self.divisions.train[division]
            few = few[:: max(1, -(-len(few) // self.divisions.train_rows_evaluated))]
            parts = [torch.from_numpy(places.astype(np.int64)) for places in (few, self.divisions.validation[division])]
            train, validation = ((self.features[places], self.target[places]) for places in parts)
            self._evaluated[division] = (train, validation)
        return self._evaluated[division]

    def thinned(self, train_rows: int, validation_rows: int, seed: int) -> "TrainingData":
        """Return the same with evaluations of at most so many rows, drawn once, so that they do not cost more than training."""
        import torch

        if self.divisions is not None:
            return replace(self, divisions=self.divisions.thinned(train_rows, validation_rows))
        rng = np.random.default_rng(seed)

        def some(most: int, features: "Tensor", target: "Tensor") -> "LabelledRows":
            if len(target) <= most:
                return features, target
            rows = np.sort(rng.choice(len(target), most, replace=False))
            if self.stored is not None and features is self.features:
                few, their_target = (torch.from_numpy(array) for array in self.stored.taken(rows))
                return few, their_target
            return features[torch.from_numpy(rows)], target[torch.from_numpy(rows)]

        sample = some(train_rows, *self.evaluated[0])
        validation = some(validation_rows, self.validation_features, self.validation_target)
        return replace(self, sample=sample, validation_features=validation[0], validation_target=validation[1])


def overlaps(features: "Tensor") -> bool:
    """Whether rows `[rows, features]` are windows that reach over the rows after them."""
    return features.ndim == 2 and features.stride(0) < features.shape[1]
