"""Evaluates the replicas at the marks, keeps their curves and best weights, and says who goes on."""

import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.backends.base import Backend
from batchlab.engine.halts import Halt
from batchlab.engine.records import SETTLED, Curve, Plan, Stopped, Trial, TrialResult, TrialState
from batchlab.strategies import Strategy

OnEvaluation = Callable[["Recorder"], None]
"""Called after every evaluation, in no trial's time."""

EXPLODED = 1e6
"""A training loss this many times the first one counts as diverged."""


class Recorder:
    """The memory of one training.

    With `plan.patience` a replica keeps its best weights and stops after that many evaluations without a lower validation loss. With
    `plan.keep` "settled" it keeps the mean of its weights over those `SETTLED` consecutive evaluations whose mean validation loss is
    lowest (Izmailov et al. 2018 average so), or the last of them while the loss falls from one to the next. Otherwise its last weights.
    """

    def __init__(
        self,
        backend: Backend,
        plan: Plan,
        row_count: int,
        on_evaluation: OnEvaluation = lambda recorder: None,
        begun: Sequence[TrialState] | None = None,
        halt: Halt | None = None,
    ) -> None:
        self.on_evaluation = on_evaluation
        self.backend, self.patience, self.row_count = backend, plan.patience, row_count
        count = len(backend.active)
        self.curves = [Curve() for _ in range(count)]
        if begun is not None:
            if halt is None and (plan.patience is not None or plan.keep != "last"):
                raise ValueError("a training that keeps other than its last weights cannot go on from a state")
            self.curves = [state.curve.copy() for state in begun]
            backend.go_on(begun)
        self.keeps_last = plan.patience is None and plan.keep == "last"
        self.kept = np.zeros(count, np.int64)
        self.kept_loss = np.full(count, np.inf)
        self.kept_weights = np.zeros((0, 0)) if self.keeps_last else backend.weights()
        self.latest: deque[tuple[NDArray[np.floating], NDArray[np.float64]]] | None = (
            deque(maxlen=SETTLED) if plan.keep == "settled" else None
        )
        self.stopped: list[Stopped | None] = [None] * count if begun is None else [state.stopped for state in begun]
        self.seconds_before = [curve.wall_seconds[-1] if curve.step else 0.0 for curve in self.curves]
        self.train_seconds = self.evaluation_seconds = self.recorded_seconds = self.waiting_seconds = 0.0
        if halt is not None:
            self._take_up(halt)

    def _take_up(self, halt: Halt) -> None:
        """Go on with what was held beside the states."""
        self.kept, self.kept_loss, self.kept_weights = halt.kept.copy(), halt.kept_loss.copy(), halt.kept_weights.copy()
        self.seconds_before = [seconds + halt.seconds for seconds in self.seconds_before]
        if self.latest is not None:
            self.latest.extend(zip(halt.latest_weights, halt.latest_losses, strict=True))

    def halt(self, strategy: Strategy, look: float) -> Halt:
        """Return where the trials stand, at their place of their order."""
        weights, losses = zip(*self.latest, strict=True) if self.latest else ((), ())
        return Halt(
            states=self.states(strategy, look),
            seconds=self.train_seconds - self.recorded_seconds,
            kept=self.kept.copy(),
            kept_loss=self.kept_loss.copy(),
            kept_weights=self.kept_weights.copy(),
            latest_weights=np.array(weights),
            latest_losses=np.array(losses),
        )

    def record(self, step: int, rows_seen: int) -> None:
        """Evaluate after `step` updates and `rows_seen` rows; add a point to the curve of each replica that still trains."""
        began = time.perf_counter()
        losses = self.backend.losses()
        train_loss, validation_loss = losses.train, losses.validation
        self.evaluation_seconds += time.perf_counter() - began
        self.recorded_seconds = self.train_seconds
        active = self.backend.active.copy()
        for replica in np.flatnonzero(active):
            curve = self.curves[replica]
            curve.step.append(step)
            curve.epoch.append(rows_seen / self.row_count)
            curve.rows_seen.append(rows_seen)
            curve.wall_seconds.append(self.seconds_before[replica] + self.train_seconds)
            curve.train_loss.append(float(train_loss[replica]))
            curve.validation_loss.append(float(validation_loss[replica]))
            curve.last_validation_loss.append(float(losses.last_validation[replica]))
            curve.portions.append(losses.portions[replica])
        if not self.keeps_last:
            self._keep(active, validation_loss)
        first = np.array([curve.train_loss[0] for curve in self.curves])
        before = np.array([curve.last_validation_loss[0] for curve in self.curves])
        # A loss that is still finite but far beyond where it began: more epochs would overflow it.
        self.backend.diverge(active & ~((train_loss <= EXPLODED * first) & (losses.last_validation <= EXPLODED * before)))
        self.on_evaluation(self)

    def _keep(self, active: NDArray[np.bool_], validation_loss: NDArray[np.float64]) -> None:
        weights = self.backend.weights()
        keeps_best = self.patience is not None
        if self.latest is not None:
            self.latest.append((weights, validation_loss))
            keeps_best = len(self.latest) == SETTLED  # until then, the last weights
        if self.latest is not None and keeps_best:
            held, losses = (np.array(part) for part in zip(*self.latest, strict=True))
            falls: NDArray[np.bool_] = np.all(losses[1:] < losses[:-1], axis=0)  # still on its way down, so its last weights are its best
            weights = np.where(falls[:, None], weights, held.mean(0, dtype=weights.dtype))
            validation_loss = np.where(falls, validation_loss, losses.mean(0))
        better = active & (validation_loss < self.kept_loss) if keeps_best else active
        self.kept_loss = np.where(better & keeps_best, validation_loss, self.kept_loss)
        points = np.array([len(curve.step) - 1 for curve in self.curves])
        self.kept = np.where(better, points, self.kept)
        self.kept_weights[better] = weights[better]
        if self.patience is not None:
            self._stop(active & (points - self.kept >= self.patience), "patience")

    def _stop(self, replicas: NDArray[np.bool_], reason: Stopped) -> None:
        for replica in np.flatnonzero(replicas):
            self.stopped[replica] = reason
        self.backend.stop(replicas)

    def goes_on(self) -> bool:
        """Whether any replica still trains."""
        return bool(self.backend.active.any())

    def results(self, trials: Sequence[Trial], weights: bool) -> list[TrialResult]:
        """Return how each trial ended, with its `weights` or, where nobody will ask for them, without."""
        steps, rows, diverged = self.backend.steps.tolist(), self.backend.rows_seen.tolist(), self.backend.diverged
        if self.keeps_last:
            self.kept = np.array([len(curve.step) - 1 for curve in self.curves])
            self.kept_weights = self.backend.weights() if weights else self.kept_weights
        return [
            TrialResult(
                trial=trial,
                diverged_at=steps[replica] + 1 if diverged[replica] else None,
                stopped=None if diverged[replica] else self.stopped[replica],
                steps=steps[replica],
                rows_seen=rows[replica],
                epochs=rows[replica] / self.row_count,
                train_seconds=self.train_seconds,
                waiting_seconds=self.waiting_seconds,
                evaluation_seconds=self.evaluation_seconds,
                curve=self.curves[replica],
                kept=int(self.kept[replica]),
                weights=self.backend.named(self.kept_weights[replica]) if weights else {},
            )
            for replica, trial in enumerate(trials)
        ]

    def states(self, strategy: Strategy, look: float) -> list[TrialState]:
        """Return what each trial can go on from, at its place of its order."""
        backend = self.backend
        weights, averages, memory = backend.last_weights(), backend.averages(), backend.memory_of()
        steps, rows = backend.steps.tolist(), backend.rows_seen.tolist()
        return [
            TrialState(
                steps=steps[replica],
                rows_seen=rows[replica],
                strategy=strategy,
                look=look,
                weights=weights[replica],
                average=averages[replica],
                memory=memory[:, replica],
                curve=curve.copy(),
                diverged_at=steps[replica] + 1 if backend.diverged[replica] else None,
                stopped=self.stopped[replica],
            )
            for replica, curve in enumerate(self.curves)
        ]
