"""The one training loop: runs of steps in, curves out. Strategies differ in their steps, backends in who makes them, not here."""

import time
from collections.abc import Iterator, Sequence

import torch

from batchlab.engine.backends.base import Batch
from batchlab.engine.backends.choice import chosen_backend
from batchlab.engine.data import TrainingData
from batchlab.engine.delivery import loaded
from batchlab.engine.losses import Loss
from batchlab.engine.memory import replicas_that_fit
from batchlab.engine.recorder import Recorder
from batchlab.engine.records import OnProgress, Plan, Progress, Trial, TrialResult
from batchlab.engine.schedule import planned_rows, runs
from batchlab.models import Model
from batchlab.strategies import Indices, Strategy

RUN_ROWS, RUN_WORK = 2**16, 2_000_000_000
"""A run is at most so many rows long, and rows × replicas × parameters: bounded memory, progress and Ctrl-C within a second or so."""


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
) -> list[TrialResult]:
    """Train all `trials` of one strategy and return their results in the same order.

    They train stacked, in tiles of as many as fit `memory_bytes` (by default, what is free on the device). A trial's numbers do not
    depend on which others train beside it. Raises BadInput when the strategy does not fit the rows.
    """
    strategy.check(data.population)
    tile = replicas_that_fit(data, model, strategy, len(trials), plan, device, memory_bytes)
    rows_total = planned_rows(strategy, data.population.row_count, plan)
    results: list[TrialResult] = []
    for start in range(0, len(trials), tile):
        done, share = rows_total * start // len(trials), min(tile, len(trials) - start) / len(trials)

        def tell(progress: Progress, done: int = done, share: float = share) -> None:
            on_progress(Progress(done + int(progress.rows_seen * share), rows_total))

        results += _train_tile(data, model, strategy, trials[start : start + tile], plan, loss, device, tell)
    on_progress(Progress(rows_total, rows_total))
    return results


def _train_tile(
    data: TrainingData,
    model: Model,
    strategy: Strategy,
    trials: Sequence[Trial],
    plan: Plan,
    loss: Loss,
    device: torch.device,
    on_progress: OnProgress,
) -> list[TrialResult]:
    """Train trials that fit into memory together."""
    rows_total = planned_rows(strategy, data.population.row_count, plan)
    backend = chosen_backend(data, model, strategy, trials, plan, loss, device)
    recorder = Recorder(backend, plan, data.population.row_count, rows_total)
    most_rows = max(1, min(RUN_ROWS, RUN_WORK // backend.initial.numel()))

    recorder.record(0, 0)
    batches = _loaded(data, strategy, backend.seeds, plan, most_rows, device)
    started = time.perf_counter()
    for run in runs(strategy, data.population, backend.seeds, plan, most_rows):
        backend.train(run, batches)
        recorder.train_seconds += time.perf_counter() - started
        on_progress(Progress(run.rows_seen, rows_total))
        if run.evaluated:
            recorder.record(run.last_step, run.rows_seen)
        started = time.perf_counter()
        if not recorder.goes_on():
            break
    return recorder.results(trials)


def _loaded(
    data: TrainingData, strategy: Strategy, seeds: list[int], plan: Plan, most_rows: int, device: torch.device
) -> Iterator[Batch] | None:
    """Return the batches of the whole training from a DataLoader where the strategy wants one; else backends gather rows themselves."""
    if strategy.loader_workers is None:
        return None

    def blocks() -> Iterator[Indices]:
        for run in runs(strategy, data.population, seeds, plan, most_rows):
            for spans in run.spans():
                yield from (run.rows[:, span] for span in spans)

    return loaded(data.features, data.target, blocks, device, strategy.loader_workers)
