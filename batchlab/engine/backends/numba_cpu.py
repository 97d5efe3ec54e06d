"""The CPU backend: linear models and mlps, whole runs of steps in compiled kernels, replicas over the cores."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchlab.engine.backends.base import PORTIONS, Backend, Batch
from batchlab.engine.data import TrainingData, overlaps
from batchlab.engine.kernels import compiled
from batchlab.engine.kernels.training import DIVERGED, MOST_LANES, Replicas, Rows, Scratch, Task, lane_count
from batchlab.engine.losses import LOSSES, Loss
from batchlab.engine.optimizers import OPTIMIZERS
from batchlab.engine.records import Plan, Precision, Trial
from batchlab.engine.runs import Run, Window
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.networks.activations import ACTIVATIONS
from batchlab.strategies import Population

BLOCK_ROWS, SMALLEST_BLOCK, LARGEST_PRODUCT = 192, 96, 1_000_000
"""Rows a block: what the nearest caches hold, and fewer (but not under SMALLEST_BLOCK) where rows × width × width passes what BLAS's
small-matrix paths take."""
SHARED_WORK, SHARED_CALL = 40_000, 4_000_000
"""Rows × parameters from which a step, and a call, are worth sharing with other cores: these come late where others use them, too."""


class NumbaCpu(Backend):
    """Trains in float32 or float64. The same numbers come out, bit for bit, whatever the number of cores and of other replicas."""

    def __init__(
        self, model: Linear | Mlp, shape: tuple[int, int], loss: Loss, plan: Plan, trials: Sequence[Trial], data: TrainingData
    ) -> None:
        super().__init__(model, shape, trials, loss, data, plan)
        optimizer = plan.rule
        real = data.features.numpy().dtype
        compiled.ready(str(real))
        widths = layer_widths(model, shape)
        self.threads = compiled.cores()
        self.task = Task(
            widths=widths,
            parameters=self.initial.shape[1],
            activation=list(ACTIVATIONS).index(model.activation) if isinstance(model, Mlp) else 0,
            loss=[*map(str, LOSSES)].index(loss.name),
            knee=real.type(loss.delta),
            optimizer=list(OPTIMIZERS).index(optimizer.kind),
            settings=np.array(optimizer.settings, np.float64),
            block_rows=block_rows(widths),
            averages=int(plan.averaging),
        )
        count, row = len(trials), padded(self.task.parameters)
        self.replicas = Replicas(
            seed=self.seed_of_replica,
            rate=np.array([trial.learning_rate for trial in trials], real),
            weights=np.zeros((2, count, row), real),
            average=np.zeros((count, row), real),
            memory=np.zeros((optimizer.slots, count, row), real),
            state=np.zeros(count, np.int64),
            steps=np.zeros(count, np.int64),
        )
        self.kernel_order = self._kernel_order()
        self.replicas.weights[0, :, : self.task.parameters] = self.initial.numpy()[:, self.kernel_order]
        self.replicas.average[:] = self.replicas.weights[0]
        # no array of it is kept: a DataLoader's workers move it into shared memory
        self.features = data.features if overlaps(data.features) else data.features.contiguous()
        self.stored_target = None if data.stored is None else data.stored.arrays[1]
        self.own_target = None if data.stored else data.target.numpy().astype(real)
        self.blocks = np.zeros((self.threads, padded(block_scratch(widths))), real)
        self.scratch: dict[bool, Scratch] = {}

    def train(self, run: Run, rows: Iterator[Batch] | Window | None) -> None:
        if rows is None:
            self._train(Rows(_begun(self.features)[None], self.target[None], run.rows, run.steps, self._pace(run)))
        elif isinstance(rows, Window):
            target = rows.target.astype(rows.features.dtype, copy=False)
            self._train(Rows(rows.features, target, rows.order, run.steps, self._pace(run)))
        else:
            pace = self._pace(run)
            for number, spans in enumerate(run.spans()):
                place = min(number, len(pace) - 1)
                self._train(_delivered([next(rows) for _ in spans], pace[place : place + 1]))
        self._count(run, self.replicas.steps.copy(), self.replicas.state == DIVERGED)

    @cached_property
    def target(self) -> NDArray[Any]:
        """The target in the kernels' numbers: a copy of that in memory; of one in a file, where nobody may need it all, at first use."""
        if self.own_target is not None:
            return self.own_target
        assert self.stored_target is not None
        return np.asarray(self.stored_target).astype(self.blocks.dtype, copy=False)

    def _pace(self, run: Run) -> NDArray[Any]:
        return self.factors(run).astype(self.blocks.dtype)

    def _train(self, rows: Rows) -> None:
        """Make the steps: a replica a core where that keeps the cores busy, else every step shared by the cores."""
        active = np.flatnonzero(self.active & (self.replicas.state != DIVERGED))
        if len(active) == 0:
            return
        lanes = lane_count.py_func(int(rows.ends[0]))
        together = self._had_better_share(len(active), lanes, int(rows.ends[0]))
        threads = min(self._threads(len(active) * rows.order.shape[1]), len(active) * lanes if together else len(active))
        compiled.call("train", threads, rows, self.replicas, self.task, active, together, self._scratch(len(active), together))

    def _threads(self, replica_rows: int) -> int:
        """Return how many cores a call is worth waking: one where it is over before the others have come."""
        return self.threads if replica_rows * self.task.parameters >= SHARED_CALL else 1

    def _had_better_share(self, replicas: int, lanes: int, step_rows: int) -> bool:
        """Whether replicas alone would leave a fifth of the cores idle while a step is long enough to be shared."""
        rounds = -(-replicas // self.threads)
        return replicas < 0.8 * rounds * self.threads and lanes > 1 and step_rows * self.task.parameters >= SHARED_WORK

    def _scratch(self, replicas: int, together: bool) -> Scratch:
        if together not in self.scratch:
            jobs = replicas * MOST_LANES if together else 2 * self.threads
            row, real = padded(self.task.parameters), self.blocks.dtype
            self.scratch[together] = Scratch(
                gradients=np.zeros((jobs, row), real),
                transposed=np.zeros((replicas if together else self.threads, row), real),
                blocks=self.blocks,
                losses=np.zeros(jobs),
                meeting=np.zeros(2, np.int64),
            )
        return self.scratch[together]

    def summed(self, features: Tensor, target: Tensor, replicas: NDArray[np.intp], last: bool) -> NDArray[np.float64]:
        rows, truth = features.contiguous().numpy(), target.numpy()
        if target is self.rows.target:
            truth = self.target
        weights = self._current()[replicas] if last or not self.plan.averaging else self.replicas.average[replicas, : self.task.parameters]
        sums = np.zeros((len(replicas), min(PORTIONS, len(target))))
        threads = self._threads(len(replicas) * len(target))
        truth = np.ascontiguousarray(truth, self.blocks.dtype)
        compiled.call("summed_losses", threads, rows, truth, weights, self.task, self.blocks, sums)
        return sums

    def last_weights(self) -> NDArray[np.floating]:
        return self._in_torchs_order(self._current())

    def averages(self) -> NDArray[np.floating]:
        return self._in_torchs_order(self.replicas.average[:, : self.task.parameters])

    def memory_of(self) -> NDArray[np.floating]:
        return self._in_torchs_order(self.replicas.memory[:, :, : self.task.parameters])

    def take_up(self, weights: NDArray[Any], averages: NDArray[Any], memory: NDArray[Any]) -> None:
        size, order = self.task.parameters, self.kernel_order
        self.replicas.weights[self.steps % 2, np.arange(len(self.steps)), :size] = weights[:, order]
        self.replicas.average[:, :size] = averages[:, order]
        self.replicas.memory[:, :, :size] = memory[:, :, order]
        self.replicas.steps[:] = self.steps
        self.replicas.state[:] = np.where(self.diverged, DIVERGED, self.replicas.state)

    def _in_torchs_order(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of numbers `[…, parameters]` in torch's order."""
        turned = np.empty_like(rows)
        turned[..., self.kernel_order] = rows
        return turned

    def _current(self) -> NDArray[Any]:
        """Return a copy of all weights `[replicas, parameters]` in the kernels' order."""
        replicas = np.arange(len(self.active))
        current: NDArray[Any] = self.replicas.weights[self.replicas.steps % 2, replicas, : self.task.parameters]
        return current

    def _kernel_order(self) -> NDArray[np.int64]:
        """Return where each of the kernels' weights stands in torch's order: matrices are [inputs, outputs] here, the reverse there."""
        places = self.named(np.arange(self.initial.shape[1], dtype=np.float64))
        turned = [place.astype(np.int64).T.ravel() for place in places.values()]
        return np.concatenate(turned)


def warm(precision: Precision = "float32") -> None:
    """Compile the kernels, or load them from disk, by training a linear model on two rows."""
    rows = torch.zeros(2, 1, dtype=torch.float64 if precision == "float64" else torch.float32)
    data = TrainingData(rows, rows[:, 0], rows, rows[:, 0], Population(2), output_count=1)
    backend = NumbaCpu(Linear(), (1, 1), Loss("mse"), Plan(), [Trial(0.1, 0)], data)
    backend.train(Run(np.zeros((1, 2), np.int32), np.array([2]), np.array([2]), first_step=1, rows_before=0, evaluated=True), None)
    backend.losses()


def _begun(features: Tensor) -> NDArray[Any]:
    """Return rows as the kernels take them: of windows only where each begins. The network's width says how far a row goes; that the last
    ones go beyond the array is right, since it is a part of a larger one."""
    rows = features.numpy()
    return rows[:, : features.stride(0)] if overlaps(features) else rows


def _delivered(batches: list[Batch], pace: NDArray[Any]) -> Rows:
    """Return one step's rows as tables of their own, one a seed, with the factor on its rate."""
    features, target = (torch.cat(parts, dim=1).numpy() for parts in zip(*batches, strict=True))
    seeds, count = target.shape
    order = np.tile(np.arange(count, dtype=np.int32), (seeds, 1))
    return Rows(features, target.astype(features.dtype, copy=False), order, np.array([count]), pace)


def layer_widths(model: Linear | Mlp, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return the widths of all layers, features first and outputs last."""
    hidden = model.widths if isinstance(model, Mlp) else ()
    return np.array([shape[0], *hidden, shape[1]])


def block_rows(widths: NDArray[np.int64]) -> int:
    """Return how many rows go through the network at once."""
    largest = int((widths[:-1] * widths[1:]).max())
    return min(BLOCK_ROWS, LARGEST_PRODUCT // largest) if largest * SMALLEST_BLOCK <= LARGEST_PRODUCT else BLOCK_ROWS


def block_scratch(widths: NDArray[np.int64]) -> int:
    """Return how many numbers a block needs; mlp.py says for what."""
    hidden = widths[1:-1]
    largest = int((widths[:-1] * widths[1:]).max())
    return int(block_rows(widths) * (widths.sum() + hidden.sum() + 2 * hidden.max(initial=0))) + largest


def padded(count: int) -> int:
    """Return a row's length that keeps what two cores write apart by two cache lines, whatever the array's address."""
    return (count + 31) // 32 * 32 + 32
