"""Losses. An entry of LOSSES is what trains: torch's function for all replicas at once, and value and slope of a row for the CPU kernels.
Predictions in the target's unit are scored by `scoring/evaluation.py:row_losses`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from pydantic_core import PydanticCustomError

from batchlab.engine.own_loss import OwnLoss
from batchlab.errors import BadInput, nearest
from batchlab.imported import imported
from batchlab.table.target import Task

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal["mse", "huber", "cross_entropy"]


class LossKind(NamedTuple):
    """`per_row(outputs [replicas, rows, outputs], target [replicas, rows], delta)` returns `[replicas, rows]`; of one replica all without
    the first dimension.

    `value_and_slope(outputs [rows, outputs], row, target, delta)` returns the row's loss and overwrites its outputs with the loss's
    slopes in them; it is compiled into the kernels. `curvature` bounds the loss's second derivative in its outputs.
    """

    classes: bool
    curvature: float
    per_row: "Callable[[Tensor, Tensor, float], Tensor]"
    value_and_slope: Callable[[Any, int, Any, float], float]


def _mse_per_row(outputs: "Tensor", target: "Tensor", delta: float) -> "Tensor":
    from torch.nn import functional

    return functional.mse_loss(outputs.squeeze(-1), target, reduction="none")


def _mse(outputs, row, target, delta):  # type: ignore[no-untyped-def]
    error = outputs[row, 0] - target
    outputs[row, 0] = error + error
    return error * error


def _huber_per_row(outputs: "Tensor", target: "Tensor", delta: float) -> "Tensor":
    from torch.nn import functional

    return functional.huber_loss(outputs.squeeze(-1), target, reduction="none", delta=delta)


def _huber(outputs, row, target, delta):  # type: ignore[no-untyped-def]
    error = outputs[row, 0] - target
    slope = min(max(error, -delta), delta)
    outputs[row, 0] = slope
    return slope * (error - 0.5 * slope)


def _cross_entropy_per_row(outputs: "Tensor", target: "Tensor", delta: float) -> "Tensor":
    from torch.nn import functional

    return functional.cross_entropy(outputs.movedim(-1, 1), target, reduction="none")


def _cross_entropy(outputs, row, target, delta):  # type: ignore[no-untyped-def]
    count, label = outputs.shape[1], int(target)
    top = outputs[row, 0]
    for output in range(1, count):
        top = max(top, outputs[row, output])
    of_label, total = outputs[row, label] - top, 0.0
    for output in range(count):
        outputs[row, output] = math.exp(outputs[row, output] - top)
        total += outputs[row, output]
    for output in range(count):
        outputs[row, output] /= total
    outputs[row, label] -= 1
    return math.log(total) - of_label


LOSSES: dict[LossName, LossKind] = {
    "mse": LossKind(False, 2.0, _mse_per_row, _mse),
    "huber": LossKind(False, 1.0, _huber_per_row, _huber),
    "cross_entropy": LossKind(True, 0.5, _cross_entropy_per_row, _cross_entropy),  # the bound: Böhning 1992
}


CHOICES = ("auto", *LOSSES, "package.module:function")


@dataclass(frozen=True)
class Loss:
    """A loss by its name; `delta` is the Huber loss's knee, in units of the (scaled) target. `own` is the user's, named
    `package.module:function`."""

    name: str
    delta: float = 1.0
    own: OwnLoss | None = None

    def per_row(self, outputs: "Tensor", target: "Tensor") -> "Tensor":
        """Return `[replicas, rows]` from outputs `[replicas, rows, outputs]` and target `[replicas, rows]`, as torch.nn defines them."""
        if self.own is not None:
            return self.own.per_row(outputs, target)
        return _kind(self.name).per_row(outputs, target, self.delta)

    @property
    def curvature(self) -> float:
        """The largest second derivative of the loss in its outputs; nobody knows that of one of the user's own."""
        return _kind(self.name).curvature

    @property
    def label(self) -> str:
        """The name for people: of a function without where it lies."""
        return self.name.rpartition(":")[2]


def is_own(choice: str) -> bool:
    """Whether a choice of loss names a function of the user's."""
    return ":" in choice


def known_choice(choice: str) -> str:
    """Return the choice; raises ValueError, which names the nearest, for none that there is."""
    if not is_own(choice) and choice not in CHOICES:
        raise PydanticCustomError(
            "unknown_loss", "'{choice}' does not exist{nearest}", {"choice": choice, "nearest": nearest(choice, CHOICES)}
        )
    return choice


def _kind(name: str) -> LossKind:
    return LOSSES[cast(LossName, name)]


def chosen_loss(choice: str, task: Task, delta: float) -> Loss:
    """Return the loss for the task; raise BadInput for one that does not fit. One of the user's own is in the target's unit until it is
    `fitted`."""
    if is_own(choice):
        return Loss(choice, delta, OwnLoss(imported(choice, "train.loss")))
    fitting = [name for name, kind in LOSSES.items() if kind.classes == (task != "regression")]
    if choice == "auto":
        return Loss(fitting[0], delta)
    if choice not in fitting:
        raise BadInput(f"train.loss '{choice}' does not fit task {task}; use {' or '.join(sorted(fitting))}.")
    return Loss(choice, delta)
