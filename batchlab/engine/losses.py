"""Losses, per row and for all replicas at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from batchlab.errors import BadInput
from batchlab.target import Task

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal["mse", "huber", "cross_entropy"]
LossChoice = Literal["auto", "mse", "huber", "cross_entropy"]


@dataclass(frozen=True)
class Loss:
    """A loss by its name; `delta` is the Huber loss's knee, in units of the (scaled) target."""

    name: LossName
    delta: float = 1.0

    def per_row(self, outputs: "Tensor", target: "Tensor") -> "Tensor":
        """Return `[replicas, rows]` from outputs `[replicas, rows, outputs]` and target `[replicas, rows]`, as torch.nn defines them."""
        from torch.nn import functional

        if self.name == "cross_entropy":
            return functional.cross_entropy(outputs.movedim(-1, 1), target, reduction="none")
        if self.name == "huber":
            return functional.huber_loss(outputs.squeeze(-1), target, reduction="none", delta=self.delta)
        return functional.mse_loss(outputs.squeeze(-1), target, reduction="none")

    @property
    def curvature(self) -> float:
        """The largest second derivative of the loss in its outputs; for softmax cross-entropy 1/2 (Böhning 1992)."""
        return {"mse": 2.0, "huber": 1.0, "cross_entropy": 0.5}[self.name]


def chosen_loss(choice: LossChoice, task: Task, delta: float) -> Loss:
    """Return the loss for the task; raise BadInput for one that does not fit."""
    fitting = {"cross_entropy"} if task != "regression" else {"mse", "huber"}
    if choice == "auto":
        return Loss("mse" if task == "regression" else "cross_entropy", delta)
    if choice not in fitting:
        raise BadInput(f"train.loss '{choice}' does not fit task {task}; use {' or '.join(sorted(fitting))}.")
    return Loss(choice, delta)
