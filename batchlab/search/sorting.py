"""What shuffling is worth: the best mini-batch trained once more with rows in the order of their target."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from batchlab.engine.data import Divisions, TrainingData
from batchlab.engine.loop import train
from batchlab.engine.records import Plan
from batchlab.experiment import Experiment
from batchlab.search.known import Known
from batchlab.search.space import Setting
from batchlab.search.terms import Terms
from batchlab.search.work import confirming_marks
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch


def sorted_trainings(
    experiment: Experiment, data: TrainingData, plan: Plan, known: Known, terms: Terms, is_over: Callable[[], bool]
) -> Known:
    """Return what is known with trainings of the best mini-batch whose rows come sorted by their target, draw by draw."""
    if data.stored is not None:
        note = "sorted order was not tried: it would take a sorted copy of rows that stay in files"
        return replace(known, notes=(*known.notes, note))
    fastest = _best_mini_batch(known, terms.row_count)
    if fastest is None or is_over():
        return known
    strategy = MiniBatch(batch_rows=getattr(fastest.updates, "batch_rows", 1), shuffled=False)
    results = known.confirmed[fastest]
    trials, rows = [result.trial for result in results], max(result.rows_seen for result in results)
    plan = plan.model_copy(update={"optimizer": fastest.optimizer, "patience": None, "keep": "last"})
    part, marks = ordered_by_target(data), confirming_marks(rows)
    found = train(
        part, experiment.model, strategy, trials, plan, experiment.loss, experiment.device, marks=marks, weights=False, should_stop=is_over
    )
    return replace(known, sorted_of=fastest, sorted_results=found, trainings=known.trainings + len(found))


def _best_mini_batch(known: Known, row_count: int) -> Setting | None:
    eligible = [
        setting
        for setting, results in known.confirmed.items()
        if isinstance(setting.updates, MiniBatch) and not setting.typed and setting.updates.shuffled
        if 1 < setting.updates.batch_rows < row_count and all(result.diverged_at is None for result in results)
    ]
    losses = {setting: np.mean([result.curve.validation_loss[-1] for result in known.confirmed[setting]]) for setting in eligible}
    return min(eligible, key=lambda setting: losses[setting], default=None)


def ordered_by_target(data: TrainingData) -> TrainingData:
    """Return the data with their training rows, those of each division by themselves, in the order of their target."""
    if data.divisions is not None:
        target = data.target.numpy()
        ordered = [train[np.argsort(target[train], kind="stable")] for train in data.divisions.train]
        return replace(data, divisions=Divisions(np.array(ordered, np.int32), data.divisions.validation))
    if data.places is not None:
        return replace(data, places=data.places[np.argsort(data.target.numpy()[data.places], kind="stable")])
    order = torch.argsort(data.target, stable=True)
    return replace(data, features=data.features[order], target=data.target[order], population=Population(len(data.target)))
