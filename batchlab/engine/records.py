"""What goes into a training and what comes out of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt

from batchlab.engine.losses import known_choice
from batchlab.engine.optimizers import AnyOptimizer, Optimizer, Sgd
from batchlab.engine.pace import Schedule
from batchlab.records import Record

if TYPE_CHECKING:
    from batchlab.strategies import Strategy

Precision = Literal["float32", "float64", "tf32", "bf16"]
"""How numbers are kept and multiplied: `tf32` (CUDA) and `bf16` keep float32 and round what goes into matrix products."""
Stopped = Literal["patience"]
"""Why a trial left before the plan's end."""


def _as_tuple(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


SETTLED = 5
"""A level is a mean over so many consecutive evaluations: at a high learning rate a single one may be lucky."""


class Plan(Record):
    """How every strategy is trained. Without `learning_rate` the search finds one; those given are the only ones tried; likewise the
    `optimizer`. With `averaging` the weights that are judged and kept are their running average (`averaging.py`). Every training
    divides the rows of its steps over so many `processes`."""

    epochs: PositiveInt = 100
    max_steps: PositiveInt | None = None
    max_rows: PositiveInt | None = None
    learning_rate: Annotated[tuple[PositiveFloat, ...], BeforeValidator(_as_tuple), Field(min_length=1)] | None = None
    optimizer: AnyOptimizer | None = None
    schedule: Schedule = Schedule()
    averaging: bool = True
    loss: Annotated[str, AfterValidator(known_choice)] = "auto"
    huber_delta: PositiveFloat = 1.0
    evaluations: PositiveInt = 50
    spacing: Literal["even", "geometric"] = "even"
    patience: PositiveInt | None = None
    keep: Literal["last", "settled"] = "last"
    precision: Precision = "float32"
    backend: Literal["auto", "kernels", "torch"] = "auto"
    processes: PositiveInt = 1

    @property
    def rule(self) -> Optimizer:
        """The optimizer to train with: plain gradient descent unless another is named."""
        return self.optimizer or Sgd()


@dataclass(frozen=True)
class Trial:
    """One training: a learning rate, and the seed of its order of rows and of its initial weights, unless these are given as `start`; and
    which of the data's divisions it trains on, where they have several."""

    learning_rate: float
    seed: int
    division: int = field(default=0, kw_only=True)
    start: Mapping[str, NDArray[np.float64]] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Progress:
    """How far a training is; `rows_total` may be less where training ends early."""

    rows_seen: int
    rows_total: int


OnProgress = Callable[[Progress], None]


@dataclass
class Curve:
    """Mean losses on the training and validation rows against updates, epochs, rows seen and seconds of training (evaluation apart).

    They are those of the averaged weights where training averages; `last_validation_loss` is that of the last weights themselves.
    `portions` holds, for each point, the mean validation losses of equal portions of the rows.
    """

    step: list[int] = field(default_factory=list)
    epoch: list[float] = field(default_factory=list)
    rows_seen: list[int] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    last_validation_loss: list[float] = field(default_factory=list)
    portions: list[NDArray[np.float64]] = field(default_factory=list)

    def copy(self) -> "Curve":
        """Return a curve that can grow without changing this one."""
        return Curve(**{name: list(values) for name, values in vars(self).items()})


@dataclass(frozen=True)
class TrialState:
    """All that a trial needs to go on from where it stands: steps and rows of its order, the strategy as it has adapted and the rows at
    which it is asked again, weights and average `[parameters]` and the optimizer's memory `[slots, parameters]` in the engine's precision
    and the order of the network's parameters, and its curve. One that has left stays where it is."""

    steps: int
    rows_seen: int
    strategy: "Strategy"
    look: float
    weights: NDArray[np.floating]
    average: NDArray[np.floating]
    memory: NDArray[np.floating]
    curve: Curve
    diverged_at: int | None = None
    stopped: Stopped | None = None

    @property
    def goes_on(self) -> bool:
        """Whether it trains on: it has neither diverged nor been stopped."""
        return self.diverged_at is None and self.stopped is None


@dataclass(frozen=True)
class TrialResult:
    """How one trial ended. Losses are in the units that training saw; `diverged_at` is the step whose loss or weights were not finite.

    `stopped` says why a trial left before the plan's end, where it did. `kept` is the number of the curve's point whose weights were
    kept; `weights` maps parameter names to arrays; `state`, where it was asked for, is what the trial can go on from. `train_seconds` and
    `evaluation_seconds` are of all trials that trained beside it, together; `waiting_seconds` those of training that were spent on the
    other processes of a training that is divided.
    """

    trial: Trial
    diverged_at: int | None
    stopped: Stopped | None
    steps: int
    rows_seen: int
    epochs: float
    train_seconds: float
    evaluation_seconds: float
    curve: Curve
    kept: int
    weights: dict[str, NDArray[np.float64]]
    state: TrialState | None = field(default=None, repr=False)
    waiting_seconds: float = 0.0

    @property
    def validation_loss(self) -> float:
        """The validation loss of the kept weights; infinite for a diverged trial, so that it never wins."""
        loss = self.curve.validation_loss[self.kept]
        return loss if self.diverged_at is None and math.isfinite(loss) else math.inf

    @property
    def settled_loss(self) -> float:
        """The mean validation loss of the last tenth of the evaluations up to the kept one: at a high learning rate a single point may
        be lucky. Infinite for a diverged trial."""
        points = self.curve.validation_loss[: self.kept + 1]
        return math.inf if math.isinf(self.validation_loss) else float(np.mean(points[-max(1, len(points) // 10) :]))


def best(results: list[TrialResult]) -> TrialResult:
    """Return the trial with the lowest settled validation loss; when all diverged, the one that lasted longest."""
    return min(results, key=lambda result: (result.settled_loss, -result.steps, result.trial.learning_rate))
