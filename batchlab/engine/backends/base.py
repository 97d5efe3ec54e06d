"""What the one loop asks of a backend: it holds all replicas of a strategy and makes runs of steps."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batchlab.analysis.estimates import Estimate
from batchlab.analysis.noise import noise_scale
from batchlab.engine.data import TrainingData
from batchlab.engine.gradients import small_gradients
from batchlab.engine.losses import Loss
from batchlab.engine.records import Trial
from batchlab.engine.runs import Run, Window
from batchlab.models import Model

Batch = tuple[Tensor, Tensor]
"""Features `[seeds, rows, features]` and target `[seeds, rows]` of one micro-batch."""
Flags = NDArray[np.bool_]
FEWEST_ROWS = 3
"""Fewer training rows tell no noise from a gradient."""


class Backend(ABC):
    """Trains replicas side by side. A replica whose loss or weights stop being finite has diverged: it keeps its last finite weights
    and leaves, the others go on. Weights are flat, `[replicas, parameters]`, in the order of the network's parameters."""

    def __init__(self, model: Model, shape: tuple[int, int], trials: Sequence[Trial], loss: Loss) -> None:
        self.model, self.loss = model, loss
        networks = [_begun(seeded_network(model, shape, trial.seed), trial) for trial in trials]
        self.network = networks[0]
        self.shapes = {name: tuple(parameter.shape) for name, parameter in self.network.named_parameters()}
        self.sizes = [parameter.numel() for parameter in self.network.parameters()]
        self.initial = torch.stack([torch.cat([weight.detach().flatten() for weight in network.parameters()]) for network in networks])
        self.seeds = list(dict.fromkeys(trial.seed for trial in trials))
        self.seed_of_replica = np.array([self.seeds.index(trial.seed) for trial in trials])
        self.active = np.ones(len(trials), bool)
        self.diverged = np.zeros(len(trials), bool)
        self.steps = np.zeros(len(trials), np.int64)
        self.rows_seen = np.zeros(len(trials), np.int64)

    @abstractmethod
    def train(self, run: Run, rows: Iterator[Batch] | Window | None) -> None:
        """Make all steps of the run: with training rows gathered here, with those of a window, or with a batch for each micro-batch."""

    @abstractmethod
    def losses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean loss `[replicas]` on the training and on the validation rows; NaN for a replica that has left."""

    @abstractmethod
    def weights(self) -> NDArray[np.floating]:
        """Return a copy of all weights `[replicas, parameters]`."""

    def noise_scale(self, replica: int, data: TrainingData, batches: int) -> Estimate:
        """Return the replica's gradient noise scale at its weights now, from that many small batches of training rows."""
        weights = torch.from_numpy(self.weights()[replica])
        if len(data.target) < FEWEST_ROWS:
            return Estimate(value=math.inf, low=0.0, high=math.inf)
        gradients, batch_rows = small_gradients(self.model, self.network, self.shapes, weights, data, self.loss, batches)
        return noise_scale(gradients, batch_rows)

    def stop(self, replicas: Flags) -> None:
        """Take the marked replicas `[replicas]` out where they are; they have not diverged."""
        self.active &= ~replicas

    def diverge(self, replicas: Flags) -> None:
        """Take the marked replicas `[replicas]` out and call them diverged."""
        self.diverged |= replicas & self.active
        self.active &= ~replicas

    def named(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Return flat weights `[parameters]` of one replica by parameter name, in their shapes."""
        parts = np.split(weights.astype(np.float64), np.cumsum(self.sizes)[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def _count(self, run: Run, made: NDArray[np.int64], diverged: Flags) -> None:
        """Note for every replica how many steps it has `made` in all and whether it `diverged` in this run."""
        in_run = np.clip(made - run.first_step + 1, 0, None)
        rows_seen = run.rows_before + np.append(0, run.steps)[in_run]
        self.rows_seen = np.where(self.active, rows_seen, self.rows_seen)
        self.steps = np.where(self.active, made, self.steps)
        self.diverge(diverged)


def _begun(network: nn.Module, trial: Trial) -> nn.Module:
    """Give the network the weights that the trial starts from, where it has some."""
    if trial.start is not None:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(torch.from_numpy(np.asarray(trial.start[name])))
    return network


def seeded_network(model: Model, shape: tuple[int, int], seed: int) -> nn.Module:
    """Return the network of (features, outputs) `shape` with the initial weights of `seed`, leaving torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.network(*shape)
