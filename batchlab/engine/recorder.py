"""Evaluates the replicas at the marks, keeps their curves and best weights, and says who goes on."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from batchlab.engine.backends.torch_autograd import TorchAutograd
from batchlab.engine.data import TrainingData
from batchlab.engine.records import Curve, Plan, Trial, TrialResult

EXPLODED = 1e6
"""A training loss this many times the first one counts as diverged."""


class Recorder:
    """The memory of one training. With `plan.patience` a replica keeps its best weights and stops after that many evaluations
    without a lower validation loss; without it, it keeps its last weights."""

    def __init__(self, backend: TorchAutograd, data: TrainingData, plan: Plan, device: torch.device) -> None:
        self.backend, self.patience = backend, plan.patience
        self.row_count = data.population.row_count
        self.train = data.features.to(device), data.target.to(device)
        self.validation = data.validation_features.to(device), data.validation_target.to(device)
        count = len(backend.weights)
        self.curves = [Curve() for _ in range(count)]
        self.kept = np.zeros(count, np.int64)
        self.kept_loss = np.full(count, np.inf)
        self.kept_weights = backend.weights
        self.stopped = np.zeros(count, bool)
        self.train_seconds = 0.0
        self.rows_recorded = 0

    def record(self, step: int, rows_seen: int) -> None:
        """Evaluate after `step` updates and `rows_seen` rows; add a point to the curve of each replica that still trains."""
        self.rows_recorded = rows_seen
        train_loss = self.backend.mean_loss(*self.train).cpu().numpy()
        validation_loss = self.backend.mean_loss(*self.validation).cpu().numpy()
        active = self.backend.active.cpu().numpy()
        for replica in np.flatnonzero(active):
            curve = self.curves[replica]
            curve.step.append(step)
            curve.epoch.append(rows_seen / self.row_count)
            curve.rows_seen.append(rows_seen)
            curve.wall_seconds.append(self.train_seconds)
            curve.train_loss.append(float(train_loss[replica]))
            curve.validation_loss.append(float(validation_loss[replica]))
        self._keep(active, validation_loss)
        self._mark_exploded(active, train_loss)

    def _keep(self, active: NDArray[np.bool_], validation_loss: NDArray[np.floating]) -> None:
        better = active if self.patience is None else active & (validation_loss < self.kept_loss)
        self.kept_loss = np.where(better, validation_loss, self.kept_loss)
        points = np.array([len(curve.step) - 1 for curve in self.curves])
        self.kept = np.where(better, points, self.kept)
        chosen = torch.from_numpy(better).to(self.backend.weights.device)[:, None]
        self.kept_weights = torch.where(chosen, self.backend.weights, self.kept_weights)
        if self.patience is not None:
            impatient = active & (points - self.kept >= self.patience)
            self.stopped |= impatient
            self.backend.stop(torch.from_numpy(impatient).to(self.backend.weights.device))

    def _mark_exploded(self, active: NDArray[np.bool_], train_loss: NDArray[np.floating]) -> None:
        """Call a replica diverged when its loss is still finite but far beyond where it began: more epochs would overflow it."""
        first = np.array([curve.train_loss[0] for curve in self.curves])
        self.backend.diverge(torch.from_numpy(active & ~(train_loss <= EXPLODED * first)).to(self.backend.weights.device))

    def goes_on(self) -> bool:
        """Whether any replica still trains."""
        return bool(self.backend.active.any())

    def results(self, trials: Sequence[Trial]) -> list[TrialResult]:
        """Return how each trial ended."""
        steps, rows = self.backend.steps.tolist(), self.backend.rows.tolist()
        diverged = self.backend.diverged.tolist()
        weights = {name: view.cpu().double().numpy() for name, view in self.backend.views(self.kept_weights).items()}
        return [
            TrialResult(
                trial=trial,
                diverged_at=steps[replica] + 1 if diverged[replica] else None,
                stopped_early=bool(self.stopped[replica]),
                steps=steps[replica],
                rows_seen=rows[replica],
                epochs=rows[replica] / self.row_count,
                train_seconds=self.train_seconds,
                curve=self.curves[replica],
                kept=int(self.kept[replica]),
                weights={name: view[replica] for name, view in weights.items()},
            )
            for replica, trial in enumerate(trials)
        ]
