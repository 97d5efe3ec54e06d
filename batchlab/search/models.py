"""The trainings behind the models that ship, and what confirmed trainings come to on the test rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.recorder import Recorder
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.experiment import MOST_TESTED, Experiment
from batchlab.rows.training_data import tensors
from batchlab.search.evidence import Ground
from batchlab.search.known import Known
from batchlab.search.last_look import losses_on, only_looked_at
from batchlab.search.noise import NoisePoint
from batchlab.search.space import Setting
from batchlab.search.work import FRESH, confirming_marks

NOISE_EVERY, NOISE_BATCHES = 4, 256
"""The noise scale is measured at every fourth evaluation of one seed, from so many small batches."""
TESTED_ROWS = 200_000
"""Of more test rows the losses that the verdict tells are those of a sample."""


def to_train(known: Known, ground: Ground) -> list[Setting]:
    """Return the confirmed settings that need one more training on the split's own rows, the best first.

    Where the confirmed trainings had these rows themselves, the one of median loss ships, and the further training is for the noise
    scale alone, which nobody asks of what people type.
    """
    order = sorted(known.confirmed, key=lambda setting: float(np.mean(_last(known.confirmed[setting]))))
    return [setting for setting in order if not setting.typed or ground.data.divisions is not None]


def with_model(
    experiment: Experiment, data: TrainingData, plan: Plan, known: Known, ground: Ground, setting: Setting, is_over: Callable[[], bool]
) -> Known:
    """Return what is known with one training of the setting on the split's own rows, and the noise scale along it."""
    if is_over() or setting in known.noise:
        return known
    rows = max(result.rows_seen for result in known.confirmed[setting])
    noise: list[NoisePoint] = []
    model = _trained(experiment, data, plan, setting, rows, noise, is_over)
    models = {**known.models, setting: model} if ground.data.divisions is not None and model.rows_seen >= rows else known.models
    return replace(known, models=models, noise={**known.noise, setting: noise}, trainings=known.trainings + 1)


def with_models_missing(known: Known) -> Known:
    """Return what is known with what is said of the settings that there was no time for."""
    wanted = [setting for setting in known.confirmed if not setting.typed]
    missing = sum(setting not in known.noise for setting in wanted)
    if not missing and wanted:
        return known
    why = "no time" if missing == len(wanted) else f"no time for {missing} of {len(wanted)} settings"
    return replace(known, left_out={**known.left_out, "noise scale": why})


def _last(results: Sequence[TrialResult]) -> list[float]:
    return [np.inf if result.diverged_at is not None else result.curve.validation_loss[-1] for result in results]


def _trained(
    experiment: Experiment,
    data: TrainingData,
    plan: Plan,
    setting: Setting,
    rows: int,
    noise: list[NoisePoint],
    is_over: Callable[[], bool],
) -> TrialResult:
    """Train the setting once on the split's own rows and fill in the noise scale along the way."""

    def watch(recorder: Recorder) -> None:
        curve = recorder.curves[0]
        if recorder.backend.active[0] and len(curve.step) % NOISE_EVERY == 1 and not is_over():
            scale = recorder.backend.noise_scale(0, data, NOISE_BATCHES)
            noise.append(NoisePoint(curve.step[-1], curve.rows_seen[-1], curve.validation_loss[-1], scale))

    trial = Trial(setting.learning_rate, experiment.profile.seed + FRESH)
    plan = plan.model_copy(update={"optimizer": setting.optimizer, "patience": None, "keep": "last"})
    return train(
        data,
        experiment.model,
        setting.updates,
        [trial],
        plan,
        experiment.loss,
        experiment.device,
        marks=confirming_marks(rows),
        on_evaluation=watch,
        should_stop=is_over,
    )[0]


def tested(
    experiment: Experiment, evidence: Mapping[Setting, Sequence[TrialResult]], is_over: Callable[[], bool]
) -> dict[Setting, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return each setting's mean losses `[draws]` on the test rows, in the target's unit, by the engine, and those on equal portions of
    these rows `[draws, portions]`; of those that have weights."""
    data = _test_rows(experiment)
    found: dict[Setting, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for setting, results in evidence.items():
        if is_over() and found:
            break
        if all(result.weights for result in results if result.diverged_at is None):
            losses, portions = losses_on(experiment, data, setting, results)
            found[setting] = losses * experiment.loss_unit, portions * experiment.loss_unit
    return found


def _test_rows(experiment: Experiment) -> TrainingData:
    """Return data whose validation rows are the test rows, or a sample of them."""
    rows = experiment.split.rows("test", min(TESTED_ROWS, MOST_TESTED))
    return only_looked_at(experiment.data, *tensors(experiment.table, rows, experiment.preparation, experiment.data.features.dtype))
