"""Activations of the mlp. One entry here is all that a new one needs: torch's layer, and value and slope for the CPU kernels."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

ActivationName = Literal["relu", "tanh", "gelu", "silu"]


class Activation(NamedTuple):
    """`layer` names the class in torch.nn; `value_and_slope` maps a number to (f(z), f′(z)) and is compiled into the kernels."""

    layer: str
    value_and_slope: Callable[[float], tuple[float, float]]


def _relu(z: float) -> tuple[float, float]:
    return (0.0 if z <= 0 else z), (0.0 if z <= 0 else 1.0)


def _tanh(z: float) -> tuple[float, float]:
    value = math.tanh(z)
    return value, 1 - value * value


def _gelu(z: float) -> tuple[float, float]:
    below = 0.5 * (1 + math.erf(z * math.sqrt(0.5)))
    return z * below, below + z * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _silu(z: float) -> tuple[float, float]:
    gate = 1 / (1 + math.exp(-z))
    return z * gate, gate * (1 + z * (1 - gate))


ACTIVATIONS: dict[ActivationName, Activation] = {
    "relu": Activation("ReLU", _relu),
    "tanh": Activation("Tanh", _tanh),
    "gelu": Activation("GELU", _gelu),
    "silu": Activation("SiLU", _silu),
}
assert set(ACTIVATIONS) == set(get_args(ActivationName))
