"""Optimizers over flat weights, each replica with its own learning rate; the arithmetic of torch.optim.

One class here, and its place in AnyOptimizer, is all that a new one needs to be searched and trained: `updated` for torch, `kernel` for the
CPU kernels.
"""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from batchlab.records import Record

if TYPE_CHECKING:
    from torch import Tensor

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Record, ABC):
    """A rule that turns gradients into new weights. What it remembers between updates are `slots` arrays shaped like the weights,
    zero before the first."""

    kind: str
    weight_decay: NonNegativeFloat = 0.0
    adaptive: ClassVar[bool] = False
    """Whether a step moves every weight by about the rate, whatever the size of the gradients: a search then tries lower rates."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many arrays the size of the weights it keeps: 0 to 2."""

    @property
    @abstractmethod
    def settings(self) -> tuple[float, ...]:
        """The numbers that `kernel` takes."""

    @abstractmethod
    def updated(self, weights: "Tensor", gradient: "Tensor", rates: "Tensor", memory: "Tensor", step: "Tensor") -> "Tensor":
        """Return new weights `[replicas, parameters]` and change `memory` `[slots, replicas, parameters]` in place; `rates` is
        `[replicas, 1]` and `step`, a scalar, counts from 1."""

    @staticmethod
    @abstractmethod
    def kernel(weights, gradient, memory, rate, step, settings, updated):  # type: ignore[no-untyped-def]
        """Write one replica's new weights to `updated` and change `memory` `[slots, parameters]`; the rest is `[parameters]`."""

    def stability_gain(self) -> float | None:
        """How many times the plain gradient step's 2/curvature the learning rate may reach; None where no such bound is known."""
        return None


class Sgd(Optimizer):
    """Gradient descent, with momentum and Nesterov's variant as torch.optim.SGD defines them."""

    kind: Literal["sgd"] = "sgd"
    momentum: Fraction = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Sgd":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, for example 0.9")
        return self

    @property
    def slots(self) -> int:
        return 1 if self.momentum else 0

    @property
    def settings(self) -> tuple[float, ...]:
        return self.weight_decay, self.momentum, float(self.nesterov)

    def updated(self, weights: "Tensor", gradient: "Tensor", rates: "Tensor", memory: "Tensor", step: "Tensor") -> "Tensor":
        gradient = gradient.add(weights, alpha=self.weight_decay) if self.weight_decay else gradient
        if self.momentum:
            velocity = memory[0].mul_(self.momentum).add_(gradient)
            gradient = gradient.add(velocity, alpha=self.momentum) if self.nesterov else velocity
        return weights - rates * gradient

    @staticmethod
    def kernel(weights, gradient, memory, rate, step, settings, updated):  # type: ignore[no-untyped-def]
        real = weights.dtype.type  # the loops stay in the precision of the weights
        decay, momentum, nesterov = real(settings[0]), real(settings[1]), settings[2] > 0
        if momentum == 0:
            for index in range(len(weights)):
                updated[index] = weights[index] - rate * (gradient[index] + decay * weights[index])
            return
        now, ahead = (real(1), momentum) if nesterov else (real(0), real(1))
        velocity = memory[0]
        for index in range(len(weights)):
            slope = gradient[index] + decay * weights[index]
            velocity[index] = momentum * velocity[index] + slope
            updated[index] = weights[index] - rate * (now * slope + ahead * velocity[index])

    def stability_gain(self) -> float:
        """Heavy ball on a quadratic is stable below 2(1+μ)/λ, Nesterov below 2(1+μ)/((1+2μ)λ)."""
        return (1 + self.momentum) / (1 + 2 * self.momentum if self.nesterov else 1)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1); weight decay is added to the gradient."""

    kind: Literal["adam"] = "adam"
    adaptive: ClassVar[bool] = True
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: PositiveFloat = 1e-8

    @property
    def slots(self) -> int:
        return 2

    @property
    def settings(self) -> tuple[float, ...]:
        return self.weight_decay, 0.0, self.beta1, self.beta2, self.epsilon

    def updated(self, weights: "Tensor", gradient: "Tensor", rates: "Tensor", memory: "Tensor", step: "Tensor") -> "Tensor":
        gradient = gradient.add(weights, alpha=self.weight_decay) if self.weight_decay else gradient
        return self._moved(weights, gradient, rates, memory, step)

    def _moved(self, weights: "Tensor", gradient: "Tensor", rates: "Tensor", memory: "Tensor", step: "Tensor") -> "Tensor":
        mean = memory[0].lerp_(gradient, 1 - self.beta1)
        square = memory[1].mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        scale = (square.sqrt() / (1 - self.beta2**step).sqrt()).add_(self.epsilon)
        moved: Tensor = weights - rates / (1 - self.beta1**step) * (mean / scale)
        return moved

    @staticmethod
    def kernel(weights, gradient, memory, rate, step, settings, updated):  # type: ignore[no-untyped-def]
        real = weights.dtype.type  # the loops stay in the precision of the weights
        shrink, beta1, beta2 = settings[1], settings[2], settings[3]
        mean, square = memory[0], memory[1]
        pace, widen = real(rate / (1 - beta1**step)), real(1 / math.sqrt(1 - beta2**step))
        decay, keep, epsilon = real(settings[0]), real(1 - rate * shrink), real(settings[4])
        fresh, kept, fresh_square = real(1 - beta1), real(beta2), real(1 - beta2)
        for index in range(len(weights)):
            slope = gradient[index] + decay * weights[index]
            mean[index] += fresh * (slope - mean[index])
            square[index] = kept * square[index] + fresh_square * slope * slope
            updated[index] = keep * weights[index] - pace * mean[index] / (math.sqrt(square[index]) * widen + epsilon)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"  # type: ignore[assignment]
    weight_decay: NonNegativeFloat = 0.01

    @property
    def settings(self) -> tuple[float, ...]:
        return 0.0, self.weight_decay, self.beta1, self.beta2, self.epsilon

    def updated(self, weights: "Tensor", gradient: "Tensor", rates: "Tensor", memory: "Tensor", step: "Tensor") -> "Tensor":
        return self._moved(weights * (1 - rates * self.weight_decay), gradient, rates, memory, step)


AnyOptimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="kind")]
OPTIMIZERS: dict[str, type[Optimizer]] = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(AnyOptimizer)[0])}
