"""Training the chosen rates with fresh seeds: the trials that the verdict rests on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from batchlab.engine.loop import train
from batchlab.engine.recorder import Recorder
from batchlab.engine.records import Progress, Trial, TrialResult
from batchlab.search.progression import NoisePoint, Progression
from batchlab.search.trials import rows_to
from batchlab.search.tuning import run
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch

if TYPE_CHECKING:
    from batchlab.search.search import Search

FRESH = 1_000_003
"""Seeds of the confirmation are so far from those of the tuning."""
NOISE_EVERY, NOISE_BATCHES = 4, 256
"""The noise scale is measured at every fourth evaluation of one seed, from so many small batches."""


def confirm(search: "Search", item: Progression) -> None:
    """Train the best rate with fresh seeds, and measure the noise scale along the first of them."""
    trials = [Trial(item.rate or 0.0, search.profile.seed + FRESH + number) for number in range(search.rule.seeds)]

    def watch(recorder: Recorder) -> None:
        curve = recorder.curves[0]
        if recorder.backend.active[0] and len(curve.step) % NOISE_EVERY == 1 and recorder.backend.seeds[0] == trials[0].seed:
            scale = recorder.backend.noise_scale(0, search.data, NOISE_BATCHES)
            item.noise.append(NoisePoint(curve.step[-1], curve.rows_seen[-1], curve.validation_loss[-1], scale))

    def tell(progress: Progress) -> None:
        search.on_progress(item.group.label, progress)

    item.confirmed = run(search, item, trials, tell, {"keep": "settled"}, weights=True, on_evaluation=watch)
    search.test_losses[item.group] = search.experiment.test_losses(item.confirmed)


def train_sorted(search: "Search") -> None:
    """Train the fastest mini-batch once more, with rows in the order of their target instead of shuffled, seed by seed."""
    eligible = [item for item in search.known if _is_small_batch(item, search.row_count) and search.target is not None]
    if search.data.stored is not None:
        search.notes.append("sorted order was not tried: it would take a sorted copy of rows that stay in files")
    if not eligible or search.data.stored is not None:
        return
    fastest = search.sorted_of = min(eligible, key=lambda item: _mean_rows(item.confirmed, search.target))
    order = torch.argsort(search.data.target, stable=True)
    features, target = search.data.features[order], search.data.target[order]
    data = replace(search.data, features=features, target=target, population=Population(search.row_count))
    strategy = MiniBatch(batch_rows=fastest.group.first.batch_rows, shuffled=False)
    trials = [result.trial for result in fastest.confirmed]
    plan = search.plan.model_copy(update={"optimizer": fastest.group.first.optimizer})
    exp = search.experiment
    search.sorted_results = train(data, search.experiment.model, strategy, trials, plan, exp.loss, exp.device, weights=False)
    search.trial_count += len(trials)


def _is_small_batch(item: Progression, row_count: int) -> bool:
    first = item.group.first
    return isinstance(first.strategy.updates, MiniBatch) and not first.typed and 1 < first.batch_rows < row_count


def _mean_rows(results: Sequence[TrialResult], target: float | None) -> float:
    rows = np.array([rows_to(result, target) for result in results])
    return float(np.where(np.isnan(rows), 1e18, rows).mean())
