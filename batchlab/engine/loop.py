"""The one training loop: runs of steps in, curves out. Strategies differ in their steps, backends in who makes them, not here."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from batchlab.engine.backends.base import Backend
from batchlab.engine.backends.choice import chosen_backend
from batchlab.engine.data import TrainingData
from batchlab.engine.delivery import RUN_ROWS, delivery, looked_up_rows
from batchlab.engine.halts import Keeper, name_of
from batchlab.engine.losses import Loss
from batchlab.engine.memory import replicas_that_fit
from batchlab.engine.ranks import ranks_here
from batchlab.engine.recorder import OnEvaluation, Recorder
from batchlab.engine.records import OnProgress, Plan, Progress, Trial, TrialResult, TrialState
from batchlab.engine.schedule import Cutting, planned_rows
from batchlab.models import Model
from batchlab.strategies import Strategy
from batchlab.strategies.streaming import Streaming

RUN_WORK = 2_000_000_000
"""A run is at most `RUN_ROWS` long, and so many rows × replicas × parameters: bounded memory, progress and Ctrl-C within a second or so."""
SAMPLE_ROWS = 20_000
"""Of rows in files, so many tell the training loss, unless the data say which."""

ADAPTING_BATCHES = 32
"""Small batches behind a noise scale that a strategy adapts to: good to a third or so, at the price of a few small steps."""
Marks = Sequence[float] | NDArray[np.float64]


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
    begun: Sequence[TrialState] | None = None,
    marks: Marks | None = None,
    states: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    keeper: Keeper | None = None,
) -> list[TrialResult]:
    """Train all `trials` of one strategy and return their results in the same order, without `weights` where nobody will ask for them.

    They train stacked, in tiles of as many as fit `memory_bytes` (by default, what is free on the device); those of a strategy that
    adapts to what it measures, one by one. A trial's numbers do not depend on which others train beside it. With `begun` they go on from
    there, all from the same place, as one undisturbed training would have; with `marks` they are evaluated when they have first seen so
    many rows and stop at the last of them, within the plan; with `states` their results hold what they can go on from. When
    `should_stop` says so, asked between runs of steps, training ends there: all trials of a tile have then seen the same rows, those
    of later tiles fewer. With a `keeper` they go on from where one that was killed stood, bit for bit. Processes that train together
    (`ranks.py`) all call this, with the same. Raises BadInput when the strategy does not fit the rows.
    """
    strategy.check(data.population)
    if data.stored is not None and data.sample is None:
        data = data.thinned(SAMPLE_ROWS, len(data.validation_target), seed=0)
    fitting = replicas_that_fit(data, model, strategy, trials, plan, device, memory_bytes)
    one_by_one = strategy.adapts or (ranks_here().count > 1 and isinstance(strategy, Streaming))  # each seed's rows lie elsewhere
    tile = 1 if one_by_one else fitting
    rows_total = planned_rows(strategy, data.population.row_count, plan)
    stretch = _Stretch(data, strategy, plan, marks, device, states, should_stop, keeper)
    results: list[TrialResult] = []
    for start in range(0, len(trials), tile):
        done, share = rows_total * start // len(trials), min(tile, len(trials) - start) / len(trials)

        def tell(progress: Progress, done: int = done, share: float = share) -> None:
            on_progress(Progress(done + int(progress.rows_seen * share), rows_total))

        chosen = trials[start : start + tile]
        backend = chosen_backend(data, model, strategy, chosen, plan, loss, device)
        backend.planned_rows = rows_total
        before = None if begun is None else begun[start : start + tile]
        name = "" if keeper is None else name_of(strategy, data.population.row_count, chosen, plan, () if marks is None else marks, before)
        halt = None if keeper is None else keeper.found(name)
        before = before if halt is None else halt.states
        recorder = Recorder(backend, plan, data.population.row_count, on_evaluation, before, halt)
        results += stretch.trained(backend, recorder, chosen, before, tell, weights, name)
    on_progress(Progress(rows_total, rows_total))
    return results


@dataclass(frozen=True)
class _Stretch:
    """What a tile of trials goes through: a whole training, or a part of one."""

    data: TrainingData
    strategy: Strategy
    plan: Plan
    marks: Marks | None
    device: torch.device
    states: bool
    should_stop: Callable[[], bool]
    keeper: Keeper | None

    def trained(
        self,
        backend: Backend,
        recorder: Recorder,
        trials: Sequence[Trial],
        begun: Sequence[TrialState] | None,
        on_progress: OnProgress,
        weights: bool,
        name: str,
    ) -> list[TrialResult]:
        """Train the backend's trials, which fit into memory together, and return how each ended; `name` is the keeper's."""
        data, population = self.data, self.data.population
        most_rows = rows_a_run(backend.initial.numel())
        if data.stored is not None and not isinstance(self.strategy, Streaming):
            most_rows = min(most_rows, looked_up_rows(data, len(backend.seeds)))
        rows_total = planned_rows(self.strategy, population.row_count, self.plan)
        steps, rows, strategy, look = _place(begun, self.strategy)
        ranks = ranks_here()

        def adapted(now: Strategy) -> Strategy:
            return now.adapted(backend.noise_scale(0, data, ADAPTING_BATCHES).low)  # what it surely is; few batches may say it has no end

        plan = self._until_the_last_mark()
        cutting = Cutting(strategy, population, plan, most_rows, adapted, self.marks, look)
        recorder.train_seconds = 0.0
        if begun is None:
            recorder.record(0, 0)
        if plan.max_rows is None or rows < plan.max_rows:
            with delivery(data, strategy, backend.seeds, backend.divisions, plan, most_rows, self.device, steps) as rows_of:
                started = time.perf_counter()
                for cut in cutting.runs(backend.seeds, steps, rows):
                    run = replace(cut, rows=data.in_pool(cut.rows, backend.divisions, backend.seeds, cut.rows_before))
                    waited = ranks.seconds
                    backend.train(*rows_of(run))
                    recorder.waiting_seconds += ranks.seconds - waited
                    recorder.train_seconds += time.perf_counter() - started
                    steps, rows = run.last_step, run.rows_seen
                    on_progress(Progress(rows, rows_total))
                    ends = ranks.any(self.should_stop())
                    if run.evaluated or ends:
                        recorder.record(steps, rows)
                    started = time.perf_counter()
                    if ends or not recorder.goes_on():
                        break
                    if self.keeper is not None and self.keeper.due():
                        self.keeper.keep(name, recorder.halt(cutting.strategy, cutting.look))
                        started = time.perf_counter()
        if self.keeper is not None:
            self.keeper.ended(name, recorder.halt(cutting.strategy, cutting.look))
        if ranks.count > 1:
            ranks.check_same(backend.last_weights())
        results = recorder.results(trials, weights)
        if not self.states:
            return results
        found = recorder.states(cutting.strategy, cutting.look)
        return [replace(result, state=state) for result, state in zip(results, found, strict=True)]

    def _until_the_last_mark(self) -> Plan:
        """Return the plan that ends with the step that reaches the last mark."""
        if self.marks is None or not len(self.marks):
            return self.plan
        last = math.ceil(self.marks[-1])
        return self.plan.model_copy(update={"max_rows": last if self.plan.max_rows is None else min(last, self.plan.max_rows)})


def _place(begun: Sequence[TrialState] | None, strategy: Strategy) -> tuple[int, int, Strategy, float | None]:
    """Return where the trials stand: steps, rows, the strategy that goes on, and when it is asked again."""
    if begun is None:
        return 0, 0, strategy, None
    places = {(state.steps, state.rows_seen, state.strategy, state.look) for state in begun if state.goes_on}
    if len(places) > 1:
        raise ValueError(f"trials that go on together stand at one place, these at {len(places)}")
    return next(iter(places), (begun[0].steps, begun[0].rows_seen, begun[0].strategy, begun[0].look))


def rows_a_run(weights: int) -> int:
    """Return the rows of the longest run, but for its last step, of replicas with so many weights together."""
    return max(1, min(RUN_ROWS, RUN_WORK // weights))
