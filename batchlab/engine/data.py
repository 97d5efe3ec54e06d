"""Rows made ready to train on: split, scaled with statistics of the training rows only, as tensors."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchlab.packing import PackedTable
from batchlab.split import Rows, Split
from batchlab.strategies import Population

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    LabelledRows = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Scaling:
    """What was subtracted and what was divided by: features `[features]`, and the target's two numbers."""

    feature_mean: NDArray[np.float64]
    feature_scale: NDArray[np.float64]
    target_mean: float = 0.0
    target_scale: float = 1.0


@dataclass(frozen=True)
class TrainingData:
    """Scaled tensors of the training and validation rows: features `[rows, features]`, target `[rows]`; and what sampling may know.

    `sample` holds those training rows whose loss is evaluated, where that is not all of them.
    """

    features: "Tensor"
    target: "Tensor"
    validation_features: "Tensor"
    validation_target: "Tensor"
    population: Population
    output_count: int
    sample: "LabelledRows | None" = None

    @property
    def evaluated(self) -> "tuple[LabelledRows, LabelledRows]":
        """The training and the validation rows whose losses make the curves."""
        return self.sample or (self.features, self.target), (self.validation_features, self.validation_target)

    def thinned(self, train_rows: int, validation_rows: int, seed: int) -> "TrainingData":
        """Return the same with evaluations of at most so many rows, drawn once, so that they do not cost more than training."""
        import torch

        rng = np.random.default_rng(seed)

        def some(most: int, features: "Tensor", target: "Tensor") -> "LabelledRows":
            if len(target) <= most:
                return features, target
            rows = torch.from_numpy(np.sort(rng.choice(len(target), most, replace=False)))
            return features[rows], target[rows]

        sample = some(train_rows, self.features, self.target)
        validation = some(validation_rows, self.validation_features, self.validation_target)
        return replace(self, sample=sample, validation_features=validation[0], validation_target=validation[1])


def measured_scaling(table: PackedTable, split: Split, scale: bool) -> Scaling:
    """Return mean and standard deviation of the training rows (population form; a constant column scales by 1).

    The target is scaled only in regression; with `scale` false nothing is.
    """
    width = len(table.schema.features)
    if not scale:
        return Scaling(np.zeros(width), np.ones(width))
    mean, spread = _mean_and_spread(table.features[split.train].astype(np.float64))
    if table.schema.target.task != "regression":
        return Scaling(mean, spread)
    target_mean, target_spread = _mean_and_spread(table.target[split.train][:, None])
    return Scaling(mean, spread, float(target_mean[0]), float(target_spread[0]))


def _mean_and_spread(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    constant = values.min(axis=0) == values.max(axis=0)
    return values.mean(axis=0), np.where(constant, 1.0, values.std(axis=0))


def prepared(table: PackedTable, split: Split, scaling: Scaling, precision: "torch.dtype") -> TrainingData:
    """Return the training and validation rows scaled, in `precision`, on the CPU."""
    import torch

    def features(rows: Rows) -> "Tensor":
        return torch.from_numpy((table.features[rows] - scaling.feature_mean) / scaling.feature_scale).to(precision)

    def target(rows: Rows) -> "Tensor":
        values: NDArray[Any] = table.target[rows]
        if classes:
            return torch.from_numpy(values)
        return torch.from_numpy((values - scaling.target_mean) / scaling.target_scale).to(precision)

    classes = table.schema.target.classes
    weights = table.side_column("weight")
    population = Population(
        row_count=len(split.train),
        classes=table.target[split.train] if classes else None,
        weights=None if weights is None else weights[split.train],
    )
    return TrainingData(
        features=features(split.train),
        target=target(split.train),
        validation_features=features(split.validation),
        validation_target=target(split.validation),
        population=population,
        output_count=max(1, len(classes)),
    )
