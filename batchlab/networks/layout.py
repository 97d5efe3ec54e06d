"""Where a network's numbers stand in flat weights: a replica is one row of numbers, whatever its network is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """The shapes of a network's numbers by name, in the order in which they stand in flat weights `[replicas, numbers]`: first `trained`
    parameters, which gradients change; then what is `carried` along and changes, if at all, in the forward pass: frozen parameters, and
    buffers that hold real numbers or count (batch norm's statistics). Other buffers (masks, indices) all replicas share."""

    trained: Shapes
    carried: Shapes

    @classmethod
    def of(cls, network: nn.Module) -> "Layout":
        """Return the layout of a network."""
        parameters = dict(network.named_parameters())
        buffers = {name: buffer for name, buffer in network.named_buffers() if is_carried(buffer)}
        trained = {name: tuple(parameter.shape) for name, parameter in parameters.items() if parameter.requires_grad}
        frozen = {name: tuple(value.shape) for name, value in (parameters | buffers).items() if name not in trained}
        return cls(trained, frozen)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all numbers by name."""
        return {**self.trained, **self.carried}

    @property
    def trained_size(self) -> int:
        """How many numbers are trained: the first so many of a replica's."""
        return sum(prod(shape) for shape in self.trained.values())

    def flat(self, network: nn.Module) -> Tensor:
        """Return a copy of the network's numbers `[numbers]`, in the precision of its parameters."""
        real = next(network.parameters()).dtype
        values = tensors(network)
        return torch.cat([values[name].detach().flatten().to(real) for name in self.shapes])


def trained_in(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that gradients change, in the order of flat weights."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def is_carried(buffer: Tensor) -> bool:
    """Whether a buffer is part of what a replica is: it holds real numbers, or it counts."""
    return buffer.is_floating_point() or (buffer.ndim == 0 and buffer.dtype != torch.bool)


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the network's parameters and buffers by name, as they are."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def views(flat: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """Return named views `[replicas, *shape]` of flat weights `[replicas, numbers]`."""
    parts = torch.split(flat, [prod(shape) for shape in shapes.values()], dim=1) if shapes else ()
    return {name: part.view(-1, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
