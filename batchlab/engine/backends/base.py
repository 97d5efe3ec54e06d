"""What the one loop asks of a backend: it holds all replicas of a strategy and makes runs of steps."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batchlab.analysis.estimates import Estimate
from batchlab.analysis.noise import noise_scale
from batchlab.engine.data import TrainingData
from batchlab.engine.gradients import small_gradients
from batchlab.engine.losses import Loss
from batchlab.engine.records import Plan, Trial, TrialState
from batchlab.engine.runs import Run, Window
from batchlab.errors import BadInput
from batchlab.models import Model
from batchlab.networks.layout import Layout, tensors

Batch = tuple[Tensor, Tensor]
"""Features `[seeds, rows, features]` and target `[seeds, rows]` of one micro-batch."""
Flags = NDArray[np.bool_]
PORTIONS = 16
"""Losses of all rows are summed in so many portions, always the same: several cores share them, and their scatter tells the rows' share
of a loss's uncertainty."""
FEWEST_ROWS = 3
"""Fewer training rows tell no noise from a gradient."""


@dataclass(frozen=True)
class Losses:
    """Mean losses `[replicas]` on the training and the validation rows, of the weights that are judged; on the validation rows also of the
    last weights, and of each portion of these rows `[replicas, portions]`. NaN for a replica that has left."""

    train: NDArray[np.float64]
    validation: NDArray[np.float64]
    last_validation: NDArray[np.float64]
    portions: NDArray[np.float64]


class Backend(ABC):
    """Trains replicas side by side. A replica whose loss or weights stop being finite has diverged: it keeps its last finite weights
    and leaves, the others go on. Weights are flat, `[replicas, numbers]`, as `layout` says; the optimizer remembers of those that are
    trained."""

    def __init__(self, model: Model, shape: tuple[int, int], trials: Sequence[Trial], loss: Loss, data: TrainingData, plan: Plan) -> None:
        self.model, self.loss, self.rows, self.plan = model, loss, data, plan
        self.network = seeded_network(model, shape, trials[0].seed).eval()
        self.layout = Layout.of(self.network)
        self.initial = _initial(model, shape, trials)
        draws = {(trial.seed, trial.division): None for trial in trials}
        place = {draw: number for number, draw in enumerate(draws)}
        self.seeds, self.divisions = [seed for seed, _ in draws], np.array([division for _, division in draws])
        self.seed_of_replica = np.array([place[trial.seed, trial.division] for trial in trials])
        self.planned_rows = 0  # set by the loop; only a schedule asks for it
        self.active = np.ones(len(trials), bool)
        self.diverged = np.zeros(len(trials), bool)
        self.steps = np.zeros(len(trials), np.int64)
        self.rows_seen = np.zeros(len(trials), np.int64)

    @abstractmethod
    def train(self, run: Run, rows: Iterator[Batch] | Window | None) -> None:
        """Make all steps of the run: with training rows gathered here, with those of a window, or with a batch for each micro-batch."""

    @abstractmethod
    def summed(self, features: Tensor, target: Tensor, replicas: NDArray[np.intp], last: bool) -> NDArray[np.float64]:
        """Return the summed losses `[replicas, portions]` of equal portions of rows, for some replicas that still train: of
        the weights that are judged or, for `last`, of the last ones."""

    @abstractmethod
    def last_weights(self) -> NDArray[np.floating]:
        """Return a copy of all weights `[replicas, numbers]` as the last step left them."""

    @abstractmethod
    def averages(self) -> NDArray[np.floating]:
        """Return a copy of the running averages `[replicas, numbers]`."""

    @abstractmethod
    def memory_of(self) -> NDArray[np.floating]:
        """Return a copy of the optimizer's memory `[slots, replicas, trained numbers]`."""

    @abstractmethod
    def take_up(self, weights: NDArray[Any], averages: NDArray[Any], memory: NDArray[Any]) -> None:
        """Go on from these weights, averages and memories, in the shapes that they are returned in."""

    def weights(self) -> NDArray[np.floating]:
        """Return a copy of the weights `[replicas, numbers]` that are judged and kept: the averages, where training averages."""
        return self.averages() if self.plan.averaging else self.last_weights()

    def go_on(self, states: Sequence[TrialState]) -> None:
        """Go on from where these trials stand; raises BadInput for states of another network or optimizer."""
        wanted = (self.initial.shape[1:], self.memory_of().swapaxes(0, 1).shape[1:])
        if wrong := [state for state in states if (state.weights.shape, state.memory.shape) != wanted]:
            found = (wrong[0].weights.shape, wrong[0].memory.shape)
            raise BadInput(
                f"a training cannot go on from weights and memory {found} of another network; {wanted} are its own. Start it again."
            )
        self.steps = np.array([state.steps for state in states], np.int64)
        self.rows_seen = np.array([state.rows_seen for state in states], np.int64)
        self.diverged = np.array([state.diverged_at is not None for state in states])
        self.active = np.array([state.goes_on for state in states])
        weights, averages = np.array([state.weights for state in states]), np.array([state.average for state in states])
        self.take_up(weights, averages, np.array([state.memory for state in states]).swapaxes(0, 1))

    def losses(self) -> Losses:
        """Return the mean losses of all replicas that still train."""
        count = len(self.active)
        train, validation, last = (np.full(count, np.nan) for _ in range(3))
        portions = None
        for replicas, (sample, held_out) in self._evaluated():
            rows = len(held_out[1])
            bounds = np.diff(np.arange(min(PORTIONS, rows) + 1) * rows // min(PORTIONS, rows))
            train[replicas] = self.summed(*sample, replicas, last=False).sum(1) / len(sample[1])
            sums = self.summed(*held_out, replicas, last=False)
            portions = np.full((count, len(bounds)), np.nan) if portions is None else portions
            portions[replicas], validation[replicas] = sums / bounds, sums.sum(1) / rows
            last[replicas] = self.summed(*held_out, replicas, last=True).sum(1) / rows if self.plan.averaging else validation[replicas]
        return Losses(train, validation, last, np.full((count, 1), np.nan) if portions is None else portions)

    def _evaluated(self) -> Iterator[tuple[NDArray[np.intp], tuple[Batch, Batch]]]:
        """Yield the replicas of each division that still train, with its training and validation rows."""
        division = self.divisions[self.seed_of_replica]
        for number in np.unique(division[self.active]):
            yield np.flatnonzero(self.active & (division == number)), self.rows.evaluated_in(int(number))

    def factors(self, run: Run) -> NDArray[np.float64]:
        """Return the factor on the learning rate of each of the run's steps; one for all where it never changes."""
        if self.plan.schedule.is_constant:
            return np.ones(1)
        shares = run.step_rows / max(self.planned_rows, 1)
        return self.plan.schedule.factors(shares[:-1], shares[1:])

    def noise_scale(self, replica: int, data: TrainingData, batches: int) -> Estimate:
        """Return the replica's gradient noise scale at its weights now, from that many small batches of training rows."""
        weights = torch.from_numpy(self.last_weights()[replica])
        if data.population.row_count < FEWEST_ROWS:
            return Estimate(value=math.inf, low=0.0, high=math.inf)
        own = data.trained_on(int(self.divisions[self.seed_of_replica[replica]]))
        gradients, batch_rows = small_gradients(self.model, self.network, weights, data, self.loss, batches, own)
        return noise_scale(gradients, batch_rows)

    def stop(self, replicas: Flags) -> None:
        """Take the marked replicas `[replicas]` out where they are; they have not diverged."""
        self.active &= ~replicas

    def diverge(self, replicas: Flags) -> None:
        """Take the marked replicas `[replicas]` out and call them diverged."""
        self.diverged |= replicas & self.active
        self.active &= ~replicas

    def named(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Return flat weights `[numbers]` of one replica by name, in their shapes."""
        shapes = self.layout.shapes
        parts = np.split(weights.astype(np.float64), np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def _count(self, run: Run, made: NDArray[np.int64], diverged: Flags) -> None:
        """Note for every replica how many steps it has `made` in all and whether it `diverged` in this run."""
        in_run = np.clip(made - run.first_step + 1, 0, None)
        rows_seen = run.step_rows[in_run]
        self.rows_seen = np.where(self.active, rows_seen, self.rows_seen)
        self.steps = np.where(self.active, made, self.steps)
        self.diverge(diverged)


def _initial(model: Model, shape: tuple[int, int], trials: Sequence[Trial]) -> Tensor:
    """Return the weights `[replicas, numbers]` that the trials start from: given ones, or those of their seeds."""
    of_seed: dict[int, Tensor] = {}
    rows = []
    for trial in trials:
        if trial.seed not in of_seed or trial.start is not None:
            network = seeded_network(model, shape, trial.seed)
            layout = Layout.of(network)
            of_seed.setdefault(trial.seed, layout.flat(network))
        if trial.start is None:
            rows.append(of_seed[trial.seed])
            continue
        with torch.no_grad():
            own = tensors(network)
            for name in layout.shapes:
                own[name].copy_(torch.tensor(trial.start[name]))
        rows.append(layout.flat(network))
    return torch.stack(rows)


def seeded_network(model: Model, shape: tuple[int, int], seed: int) -> nn.Module:
    """Return the network of (features, outputs) `shape` with the initial weights of `seed`, leaving torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        # Without a GPU, whose generators it would seed, `manual_seed` spends most of its time on noting where it was called from.
        (torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed)(seed)
        return model.network(*shape)
