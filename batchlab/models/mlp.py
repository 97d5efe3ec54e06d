from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from batchlab.models.base import Model
from batchlab.networks.activations import ACTIVATIONS, ActivationName

if TYPE_CHECKING:
    from torch import Tensor, nn


class Mlp(Model):
    """Fully connected layers of the given widths with one activation between them."""

    kind: Literal["mlp"] = "mlp"
    widths: tuple[PositiveInt, ...] = Field((64, 64), min_length=1)
    activation: ActivationName = "relu"

    def network(self, features: int, outputs: int) -> "nn.Module":
        from torch import nn

        layers: list[nn.Module] = []
        for width_in, width_out in zip((features, *self.widths), (*self.widths, outputs), strict=True):
            layers += [nn.Linear(width_in, width_out), getattr(nn, ACTIVATIONS[self.activation].layer)()]
        return nn.Sequential(*layers[:-1])

    def stacked(self, network: "nn.Module", weights: "Mapping[str, Tensor]", rows: "Tensor") -> "Tensor":
        from torch import nn

        assert isinstance(network, nn.Sequential)
        for position, layer in enumerate(network):
            if isinstance(layer, nn.Linear):
                bias = weights[f"{position}.bias"].unsqueeze(1)
                rows = bias.baddbmm(rows, weights[f"{position}.weight"].transpose(1, 2))
            else:
                rows = layer(rows)
        return rows
