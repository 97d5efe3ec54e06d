"""Optimizers over flat weights `[replicas, parameters]`, each replica with its own learning rate; the arithmetic of torch.optim."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from batchlab.records import Record

if TYPE_CHECKING:
    from torch import Tensor

Fraction = Annotated[float, Field(ge=0, lt=1)]
State = dict[str, "Tensor"]


class Optimizer(Record, ABC):
    """A rule that turns gradients into new weights."""

    kind: str
    weight_decay: NonNegativeFloat = 0.0

    @abstractmethod
    def updated(self, weights: "Tensor", gradient: "Tensor", rates: "Tensor", state: State, step: int) -> "Tensor":
        """Return new weights `[replicas, parameters]`; `rates` is `[replicas, 1]`, `step` counts from 1, `state` is kept between calls."""

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

    def updated(self, weights: "Tensor", gradient: "Tensor", rates: "Tensor", state: State, step: int) -> "Tensor":
        gradient = gradient.add(weights, alpha=self.weight_decay) if self.weight_decay else gradient
        if self.momentum:
            velocity = state["velocity"].mul_(self.momentum).add_(gradient) if step > 1 else gradient.clone()
            state["velocity"] = velocity
            gradient = gradient.add(velocity, alpha=self.momentum) if self.nesterov else velocity
        return weights - rates * gradient

    def stability_gain(self) -> float:
        """Heavy ball on a quadratic is stable below 2(1+μ)/λ, Nesterov below 2(1+μ)/((1+2μ)λ)."""
        return (1 + self.momentum) / (1 + 2 * self.momentum if self.nesterov else 1)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1); weight decay is added to the gradient."""

    kind: Literal["adam"] = "adam"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: PositiveFloat = 1e-8

    def updated(self, weights: "Tensor", gradient: "Tensor", rates: "Tensor", state: State, step: int) -> "Tensor":
        gradient = gradient.add(weights, alpha=self.weight_decay) if self.weight_decay else gradient
        return self._moved(weights, gradient, rates, state, step)

    def _moved(self, weights: "Tensor", gradient: "Tensor", rates: "Tensor", state: State, step: int) -> "Tensor":
        if step == 1:
            state["mean"], state["square"] = gradient.new_zeros(gradient.shape), gradient.new_zeros(gradient.shape)
        mean = state["mean"].lerp_(gradient, 1 - self.beta1)
        square = state["square"].mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        scale = (square.sqrt() / (1 - self.beta2**step) ** 0.5).add_(self.epsilon)
        moved: Tensor = weights - rates / (1 - self.beta1**step) * (mean / scale)
        return moved


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"  # type: ignore[assignment]
    weight_decay: NonNegativeFloat = 0.01

    def updated(self, weights: "Tensor", gradient: "Tensor", rates: "Tensor", state: State, step: int) -> "Tensor":
        return self._moved(weights * (1 - rates * self.weight_decay), gradient, rates, state, step)


AnyOptimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="kind")]
OPTIMIZERS = {"sgd": Sgd, "adam": Adam, "adamw": AdamW}
