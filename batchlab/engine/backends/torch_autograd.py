"""The plain backend: stacked weights, torch's autograd. It is the reference that faster backends are checked against."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import Optimizer, State
from batchlab.engine.records import Trial
from batchlab.models import Model

EVALUATION_ROWS = 8192
"""Rows evaluated at once, so that evaluation's memory does not grow with the data."""


class TorchAutograd:
    """Trains all replicas of a strategy together; a replica that stops being finite is frozen and the others go on.

    Everything is kept on the device: no step waits for a number to come back to Python.
    """

    def __init__(
        self,
        model: Model,
        shape: tuple[int, int],
        loss: Loss,
        optimizer: Optimizer,
        trials: Sequence[Trial],
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        networks = [seeded_network(model, shape, trial.seed) for trial in trials]
        self.model, self.loss, self.optimizer, self.network = model, loss, optimizer, networks[0]
        parameters = dict(self.network.named_parameters())
        self.shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        self.sizes = [parameter.numel() for parameter in parameters.values()]
        stacked = [torch.cat([parameter.detach().flatten() for parameter in network.parameters()]) for network in networks]
        self.weights = torch.stack(stacked).to(device, precision)
        self.previous = self.weights
        self.rates = torch.tensor([[trial.learning_rate] for trial in trials], device=device, dtype=precision)
        self.active = torch.ones(len(trials), dtype=torch.bool, device=device)
        self.diverged = torch.zeros_like(self.active)
        self.steps = torch.zeros(len(trials), dtype=torch.int64, device=device)
        self.rows = torch.zeros_like(self.steps)
        self.state: State = {}

    def step(self, batches: Iterable[tuple[Tensor, Tensor]], rows: int, number: int) -> None:
        """Make update `number` (from 1) with the gradient of `rows` rows, summed over micro-batches.

        Each is features `[replicas, rows, features]` and target `[replicas, rows]`.
        """
        gradient = torch.zeros_like(self.weights)
        loss = torch.zeros_like(self.weights[:, 0])
        for features, target in batches:
            leaf = self.weights.detach().requires_grad_()
            outputs = self.model.stacked(self.network, self.views(leaf), features)
            share = self.loss.per_row(outputs, target).sum(1) / rows
            (part,) = torch.autograd.grad(share.sum(), leaf)
            gradient += part
            loss += share.detach()
        with torch.no_grad():
            self._move(self.optimizer.updated(self.weights, gradient, self.rates, self.state, number), loss, rows)

    def _move(self, updated: Tensor, loss: Tensor, rows: int) -> None:
        """Take the update where loss and new weights are finite; else freeze the replica at its last finite state."""
        loss_is_finite = torch.isfinite(loss)
        moves = self.active & loss_is_finite & torch.isfinite(updated).all(1)
        stays = torch.where((self.active & ~loss_is_finite)[:, None], self.previous, self.weights)
        self.previous = torch.where(moves[:, None], self.weights, self.previous)
        self.weights = torch.where(moves[:, None], updated, stays)
        self.diverged |= self.active & ~moves
        self.active = moves
        self.steps += moves
        self.rows += moves * rows

    def stop(self, replicas: Tensor) -> None:
        """Freeze the marked replicas `[replicas]` where they are; they have not diverged."""
        self.active = self.active & ~replicas

    def diverge(self, replicas: Tensor) -> None:
        """Freeze the marked replicas `[replicas]` and call them diverged."""
        self.diverged |= replicas
        self.stop(replicas)

    @torch.no_grad()
    def mean_loss(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss `[replicas]` over rows `[rows, features]` and their target `[rows]`."""
        count, weights = len(self.weights), self.views(self.weights)
        total = torch.zeros_like(self.weights[:, 0])
        for start in range(0, len(target), EVALUATION_ROWS):
            rows = features[start : start + EVALUATION_ROWS].expand(count, -1, -1)
            truth = target[start : start + EVALUATION_ROWS].expand(count, -1)
            total += self.loss.per_row(self.model.stacked(self.network, weights, rows), truth).sum(1)
        return total / len(target)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return named views `[replicas, *shape]` of flat weights `[replicas, parameters]`."""
        parts = torch.split(flat, self.sizes, dim=1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


def seeded_network(model: Model, shape: tuple[int, int], seed: int) -> nn.Module:
    """Return the network of (features, outputs) `shape` with the initial weights of `seed`, leaving torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.network(*shape)
