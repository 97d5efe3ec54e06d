"""Losses. One entry of LOSSES is all that a new one needs: torch's function for all replicas at once, and value and slope of a row for
the CPU kernels."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from batchlab.errors import BadInput
from batchlab.table.target import Task

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal["mse", "huber", "cross_entropy"]
LossChoice = Literal["auto", "mse", "huber", "cross_entropy"]


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


@dataclass(frozen=True)
class Loss:
    """A loss by its name; `delta` is the Huber loss's knee, in units of the (scaled) target."""

    name: LossName
    delta: float = 1.0

    def per_row(self, outputs: "Tensor", target: "Tensor") -> "Tensor":
        """Return `[replicas, rows]` from outputs `[replicas, rows, outputs]` and target `[replicas, rows]`, as torch.nn defines them."""
        return LOSSES[self.name].per_row(outputs, target, self.delta)

    @property
    def curvature(self) -> float:
        """The largest second derivative of the loss in its outputs."""
        return LOSSES[self.name].curvature


def chosen_loss(choice: LossChoice, task: Task, delta: float) -> Loss:
    """Return the loss for the task; raise BadInput for one that does not fit."""
    fitting = [name for name, kind in LOSSES.items() if kind.classes == (task != "regression")]
    if choice == "auto":
        return Loss(fitting[0], delta)
    if choice not in fitting:
        raise BadInput(f"train.loss '{choice}' does not fit task {task}; use {' or '.join(sorted(fitting))}.")
    return Loss(choice, delta)
