"""What goes into a training and what comes out of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from batchlab.engine.losses import LossChoice
from batchlab.engine.optimizers import AnyOptimizer, Sgd
from batchlab.records import Record

Precision = Literal["float32", "float64", "tf32", "bf16"]
"""How numbers are kept and multiplied: `tf32` (CUDA) and `bf16` keep float32 and round what goes into matrix products."""


def _as_tuple(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


SETTLED = 5
"""A level is a mean over so many consecutive evaluations: at a high learning rate a single one may be lucky."""


class Plan(Record):
    """How every strategy is trained. Without `learning_rate` the search finds one; those given are the only ones tried."""

    epochs: PositiveInt = 100
    max_steps: PositiveInt | None = None
    max_rows: PositiveInt | None = None
    learning_rate: Annotated[tuple[PositiveFloat, ...], BeforeValidator(_as_tuple), Field(min_length=1)] | None = None
    optimizer: AnyOptimizer = Sgd()
    loss: LossChoice = "auto"
    huber_delta: PositiveFloat = 1.0
    evaluations: PositiveInt = 50
    spacing: Literal["even", "geometric"] = "even"
    patience: PositiveInt | None = None
    keep: Literal["last", "settled"] = "last"
    hopeless_after: Annotated[float, Field(gt=0, le=1)] = 0.25
    precision: Precision = "float32"
    backend: Literal["auto", "kernels", "torch"] = "auto"


@dataclass(frozen=True)
class Trial:
    """One training: a learning rate, and the seed of its order of rows and of its initial weights, unless these are given as `start`."""

    learning_rate: float
    seed: int
    start: Mapping[str, NDArray[np.float64]] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Progress:
    """How far a training is; `rows_total` may be less where training ends early."""

    rows_seen: int
    rows_total: int


OnProgress = Callable[[Progress], None]


@dataclass
class Curve:
    """Mean losses on the training and validation rows against updates, epochs, rows seen and seconds of training (evaluation apart)."""

    step: list[int] = field(default_factory=list)
    epoch: list[float] = field(default_factory=list)
    rows_seen: list[int] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class TrialResult:
    """How one trial ended. Losses are in the units that training saw; `diverged_at` is the step whose loss or weights were not finite.

    `stopped` says why a trial left before the plan's end, where it did. `kept` is the number of the curve's point whose weights were
    kept; `weights` maps parameter names to arrays. `train_seconds` and `evaluation_seconds` are of all trials that trained beside it,
    together.
    """

    trial: Trial
    diverged_at: int | None
    stopped: Literal["patience", "hopeless"] | None
    steps: int
    rows_seen: int
    epochs: float
    train_seconds: float
    evaluation_seconds: float
    curve: Curve
    kept: int
    weights: dict[str, NDArray[np.float64]]

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
