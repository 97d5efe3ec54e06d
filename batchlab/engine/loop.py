"""The one training loop: steps in, curves out. Strategies differ in their steps, not here."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchlab.engine.backends.torch_autograd import TorchAutograd
from batchlab.engine.data import TrainingData
from batchlab.engine.delivery import Batch, gathered, loaded
from batchlab.engine.losses import Loss
from batchlab.engine.recorder import Recorder
from batchlab.engine.records import OnProgress, Plan, Progress, Trial, TrialResult
from batchlab.models import Model
from batchlab.strategies import Population, Strategy

STEPS_BETWEEN_PROGRESS = 64


def train(
    data: TrainingData,
    model: Model,
    strategy: Strategy,
    trials: Sequence[Trial],
    plan: Plan,
    loss: Loss,
    device: torch.device,
    on_progress: OnProgress = lambda progress: None,
) -> list[TrialResult]:
    """Train all `trials` of one strategy together and return their results in the same order.

    A trial's numbers do not depend on which others train beside it. Raises BadInput when the strategy does not fit the rows.
    """
    strategy.check(data.population)
    shape = (data.features.shape[1], data.output_count)
    backend = TorchAutograd(model, shape, loss, plan.optimizer, trials, device, data.features.dtype)
    seeds = list(dict.fromkeys(trial.seed for trial in trials))
    replica_seed = torch.tensor([seeds.index(trial.seed) for trial in trials], device=device)
    recorder = Recorder(backend, data, plan, device)
    rows_total = planned_rows(strategy, data.population.row_count, plan)
    marks = iter(np.linspace(0, rows_total, plan.evaluations + 1)[1:])

    recorder.record(0, 0)
    batches = _batches(data, strategy, seeds, plan, device)
    mark, rows_seen, number, started = next(marks), 0, 0, time.perf_counter()
    for number, step in enumerate(_steps(strategy, data.population, seeds, plan), 1):
        rows = sum(block.shape[1] for block in step)
        delivered = (_spread(batch, replica_seed, len(seeds)) for batch in islice(batches, len(step)))
        backend.step(delivered, rows, number)
        rows_seen += rows
        if number % STEPS_BETWEEN_PROGRESS == 0:
            on_progress(Progress(rows_seen, rows_total))
        if rows_seen >= mark:
            recorder.train_seconds += _elapsed(started, device)
            recorder.record(number, rows_seen)
            on_progress(Progress(rows_seen, rows_total))
            if not recorder.goes_on():
                break
            mark = next((later for later in marks if later > rows_seen), np.inf)
            started = time.perf_counter()
    if rows_seen > recorder.rows_recorded:
        recorder.train_seconds += _elapsed(started, device)
        recorder.record(number, rows_seen)
    on_progress(Progress(rows_total, rows_total))
    return recorder.results(trials)


def planned_rows(strategy: Strategy, row_count: int, plan: Plan) -> int:
    """Return the rows that a training of `row_count` rows will see at most: all epochs, or as many steps as the plan allows."""
    all_epochs = plan.epochs * row_count
    return all_epochs if plan.max_steps is None else min(all_epochs, plan.max_steps * strategy.rows_per_step(row_count))


def _steps(strategy: Strategy, population: Population, seeds: list[int], plan: Plan) -> Iterator[list[NDArray[np.int64]]]:
    """Yield each update's micro-batches as index blocks `[seeds, rows]`."""

    def endless() -> Iterator[list[NDArray[np.int64]]]:
        for epoch in range(plan.epochs):
            for of_each_seed in zip(*(strategy.steps(population, seed, epoch) for seed in seeds), strict=True):
                yield [np.stack(blocks) for blocks in zip(*of_each_seed, strict=True)]

    return islice(endless(), plan.max_steps)


def _batches(data: TrainingData, strategy: Strategy, seeds: list[int], plan: Plan, device: torch.device) -> Iterator[Batch]:
    def blocks() -> Iterator[NDArray[np.int64]]:
        for step in _steps(strategy, data.population, seeds, plan):
            yield from step

    if strategy.loader_workers is None:
        return gathered(data.features, data.target, blocks, device)
    return loaded(data.features, data.target, blocks, device, strategy.loader_workers)


def _spread(batch: Batch, replica_seed: Tensor, seed_count: int) -> Batch:
    """Give each replica the rows of its seed: `[seeds, …]` → `[replicas, …]`, without a copy when all share one seed."""
    features, target = batch
    if seed_count == 1:
        return features.expand(len(replica_seed), -1, -1), target.expand(len(replica_seed), -1)
    return features[replica_seed], target[replica_seed]


def _elapsed(started: float, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - started
