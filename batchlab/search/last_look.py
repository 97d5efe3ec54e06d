"""The last look at trainings that confirm, which decides: at more validation rows than there is time for along their curves."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.backends.base import PORTIONS
from batchlab.engine.backends.choice import chosen_backend
from batchlab.engine.data import TrainingData
from batchlab.engine.records import Curve, Trial, TrialResult
from batchlab.experiment import Experiment
from batchlab.search.space import Setting
from batchlab.strategies import Population

if TYPE_CHECKING:
    from torch import Tensor

LAST_ROWS, LAST_VALUES = 65_536, 4_194_304
"""The most rows of the last look, and the most values in them."""
Numbers = NDArray[np.float64]


def most_rows(data: TrainingData) -> int:
    """Return how many validation rows a last look may go by."""
    return max(1, min(len(data.validation_target), LAST_ROWS, LAST_VALUES // max(1, data.validation_features[0].numel())))


def last_rows(data: TrainingData, rows: int, seed: int) -> TrainingData:
    """Return data to look at alone: so many of the validation rows, drawn once."""
    whole = only_looked_at(data, data.validation_features, data.validation_target)
    return whole.thinned(1, rows, seed)


def only_looked_at(data: TrainingData, features: "Tensor", target: "Tensor") -> TrainingData:
    """Return data whose validation rows are these, and that nobody trains on."""
    few = slice(0, 1)
    return replace(
        data,
        features=data.features[few],
        target=data.target[few],
        validation_features=features,
        validation_target=target,
        population=Population(1),
        sample=None,
        stored=None,
    )


def losses_on(experiment: Experiment, data: TrainingData, setting: Setting, results: Sequence[TrialResult]) -> tuple[Numbers, Numbers]:
    """Return what the weights of trainings come to on the data's validation rows, `[draws]`, and on equal portions of them
    `[draws, portions]`, as training sees it; infinite for a diverged one."""
    losses, portions = np.full(len(results), np.inf), np.full((len(results), min(PORTIONS, len(data.validation_target))), np.inf)
    alive = [place for place, result in enumerate(results) if result.diverged_at is None]
    trials = [Trial(setting.learning_rate, 0, start=results[place].weights) for place in alive]
    if trials:
        plan = experiment.profile.train.model_copy(update={"averaging": False})
        backend = chosen_backend(data, experiment.model, setting.updates, trials, plan, experiment.loss, experiment.device)
        found = backend.losses()
        losses[alive], portions[alive] = found.validation, found.portions
    return losses, portions


def looked_at_last(experiment: Experiment, data: TrainingData, setting: Setting, results: Sequence[TrialResult]) -> list[TrialResult]:
    """Return the trainings with their validation losses as the data's validation rows have them: each curve is multiplied by what brings
    its end there (a ratio estimate: the rows that it was looked at on are easier or harder than others all along)."""
    losses, portions = losses_on(experiment, data, setting, results)
    return [
        result
        if result.diverged_at is not None or not result.curve.validation_loss[-1] > 0
        else replace(result, curve=_ending(result.curve, loss, parts))
        for result, loss, parts in zip(results, losses.tolist(), portions, strict=True)
    ]


def _ending(curve: Curve, loss: float, portions: Numbers) -> Curve:
    """Return the curve scaled so that it ends with the loss, and with those of portions."""
    factor = loss / curve.validation_loss[-1]
    scaled = curve.copy()
    scaled.validation_loss = [*(value * factor for value in curve.validation_loss[:-1]), loss]
    scaled.last_validation_loss = [value * factor for value in curve.last_validation_loss]
    scaled.portions = [*(value * factor for value in curve.portions[:-1]), portions]
    return scaled
