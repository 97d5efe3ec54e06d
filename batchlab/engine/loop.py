"""The one training loop: runs of steps in, curves out. Strategies differ in their steps, backends in who makes them, not here."""

import time
from collections.abc import Sequence

import torch

from batchlab.engine.backends.base import Backend
from batchlab.engine.backends.choice import chosen_backend
from batchlab.engine.data import TrainingData
from batchlab.engine.delivery import RUN_ROWS, delivery
from batchlab.engine.losses import Loss
from batchlab.engine.memory import replicas_that_fit
from batchlab.engine.recorder import OnEvaluation, Recorder
from batchlab.engine.records import OnProgress, Plan, Progress, Trial, TrialResult
from batchlab.engine.schedule import planned_rows, runs
from batchlab.models import Model
from batchlab.strategies import Strategy

RUN_WORK = 2_000_000_000
"""A run is at most `RUN_ROWS` long, and so many rows × replicas × parameters: bounded memory, progress and Ctrl-C within a second or so."""
SAMPLE_ROWS = 20_000
"""Of rows in files, so many tell the training loss, unless the data say which."""

ADAPTING_BATCHES = 32
"""Small batches behind a noise scale that a strategy adapts to: good to a third or so, at the price of a few small steps."""


def train(
    data: TrainingData,
    model: Model,
    strategy: Strategy,
    trials: Sequence[Trial],
    plan: Plan,
    loss: Loss,
    device: torch.device,
    on_progress: OnProgress = lambda progress: None,
    memory_bytes: int | None = None,
    on_evaluation: OnEvaluation = lambda point: None,
    weights: bool = True,
) -> list[TrialResult]:
    """Train all `trials` of one strategy and return their results in the same order, without `weights` where nobody will ask for them.

    They train stacked, in tiles of as many as fit `memory_bytes` (by default, what is free on the device); those of a strategy that
    adapts to what it measures, one by one. A trial's numbers do not depend on which others train beside it. Raises BadInput when the
    strategy does not fit the rows.
    """
    strategy.check(data.population)
    if data.stored is not None and data.sample is None:
        data = data.thinned(SAMPLE_ROWS, len(data.validation_target), seed=0)
    fitting = replicas_that_fit(data, model, strategy, trials, plan, device, memory_bytes)
    tile = 1 if strategy.adapts else fitting
    rows_total = planned_rows(strategy, data.population.row_count, plan)
    results: list[TrialResult] = []
    for start in range(0, len(trials), tile):
        done, share = rows_total * start // len(trials), min(tile, len(trials) - start) / len(trials)

        def tell(progress: Progress, done: int = done, share: float = share) -> None:
            on_progress(Progress(done + int(progress.rows_seen * share), rows_total))

        chosen = trials[start : start + tile]
        backend = chosen_backend(data, model, strategy, chosen, plan, loss, device)
        recorder = Recorder(backend, plan, data.population.row_count, rows_total, on_evaluation)
        _train_tile(data, strategy, backend, recorder, plan, device, tell)
        results += recorder.results(chosen, weights)
    on_progress(Progress(rows_total, rows_total))
    return results


def _train_tile(
    data: TrainingData,
    strategy: Strategy,
    backend: Backend,
    recorder: Recorder,
    plan: Plan,
    device: torch.device,
    on_progress: OnProgress,
) -> None:
    """Train the backend's trials, which fit into memory together."""
    most_rows = rows_a_run(backend.initial.numel())
    rows_total = planned_rows(strategy, data.population.row_count, plan)

    def adapted(now: Strategy) -> Strategy:
        return now.adapted(backend.noise_scale(0, data, ADAPTING_BATCHES).low)  # what it surely is; few batches may say it has no end

    recorder.record(0, 0)
    with delivery(data, strategy, backend.seeds, plan, most_rows, device) as rows_of:
        started = time.perf_counter()
        for run in runs(strategy, data.population, backend.seeds, plan, most_rows, adapted):
            backend.train(run, rows_of(run))
            recorder.train_seconds += time.perf_counter() - started
            on_progress(Progress(run.rows_seen, rows_total))
            if run.evaluated:
                recorder.record(run.last_step, run.rows_seen)
            started = time.perf_counter()
            if not recorder.goes_on():
                break


def rows_a_run(weights: int) -> int:
    """Return the rows of the longest run, but for its last step, of replicas with so many weights together."""
    return max(1, min(RUN_ROWS, RUN_WORK // weights))
