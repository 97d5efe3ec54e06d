"""Several replicas of any network at once, through torch.func; or one after the other."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from batchlab.networks.layout import Layout, views

LossOfOne = Callable[[Tensor, Tensor], Tensor]
"""From outputs `[rows, outputs]` and target `[rows]` to the rows' summed loss."""


def one_by_one(network: nn.Module, weights: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    """Return the outputs `[replicas, rows, outputs]` of replicas that pass forward one after the other."""
    found = [functional_call(network, {name: value[place] for name, value in weights.items()}, (own,)) for place, own in enumerate(rows)]
    return torch.stack(found)


def stacked_forward(network: nn.Module, weights: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    """Return the outputs `[replicas, rows, outputs]` of replicas that pass forward at once."""

    def of_one(own: dict[str, Tensor], inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(network, own, (inputs,))
        return outputs

    outputs: Tensor = vmap(of_one, randomness="different")(dict(weights), rows)
    return outputs


def stacked_slopes(
    network: nn.Module, layout: Layout, loss: LossOfOne, weights: Tensor, features: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the summed losses `[replicas]`, their gradients `[replicas, trained numbers]`, and what the forward pass made of what is
    carried along `[replicas, carried numbers]`, for weights `[replicas, numbers]` and rows `[replicas, rows, …]`."""

    def of_one(trained: dict[str, Tensor], carried: dict[str, Tensor], inputs: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        own = {name: value.clone() for name, value in carried.items()}
        return loss(functional_call(network, {**trained, **own}, (inputs,)), truth), own

    parts = views(weights[:, : layout.trained_size], layout.trained), views(weights[:, layout.trained_size :], layout.carried)
    slopes, (losses, carried) = vmap(grad_and_value(of_one, has_aux=True), randomness="different")(*parts, features, target)
    return losses, _joined(slopes, layout.trained, weights), _joined(carried, layout.carried, weights)


def _joined(parts: Mapping[str, Tensor], order: Mapping[str, object], weights: Tensor) -> Tensor:
    """Return `[replicas, numbers]` of parts `[replicas, *shape]`."""
    return torch.cat([parts[name].reshape(len(weights), -1) for name in order], 1) if order else weights[:, :0]
