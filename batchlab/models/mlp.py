import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from batchlab.engine.activations import ACTIVATIONS, ActivationName
from batchlab.models.base import Model

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST_EMBEDDING = 50


class Mlp(Model):
    """Fully connected layers of the given widths with one activation between them.

    `embedded` says how many values each embedded category has: so many of the last inputs are not numbers but the numbers of values, each
    of which has a trained vector. It is set from the data where `encoding.categories` is `embedding`.
    """

    kind: Literal["mlp"] = "mlp"
    widths: tuple[PositiveInt, ...] = Field((64, 64), min_length=1)
    activation: ActivationName = "relu"
    embedded: tuple[PositiveInt, ...] = ()

    def network(self, features: int, outputs: int) -> "nn.Module":
        from torch import nn

        vectors = [embedding_width(size) for size in self.embedded]
        layers: list[nn.Module] = []
        first = features - len(self.embedded) + sum(vectors)
        for width_in, width_out in zip((first, *self.widths), (*self.widths, outputs), strict=True):
            layers += [nn.Linear(width_in, width_out), getattr(nn, ACTIVATIONS[self.activation].layer)()]
        dense = nn.Sequential(*layers[:-1])
        if not self.embedded:
            return dense
        from batchlab.engine.embedding import Embedded

        return Embedded(self.embedded, vectors, dense)

    def stacked(self, network: "nn.Module", weights: "Mapping[str, Tensor]", rows: "Tensor") -> "Tensor":
        from torch import nn

        prefix = ""
        if self.embedded:
            from batchlab.engine.embedding import Embedded, looked_up

            assert isinstance(network, Embedded)
            rows, prefix, network = (
                looked_up([weights[f"tables.{place}.weight"] for place in range(len(self.embedded))], rows),
                "dense.",
                network.dense,
            )
        assert isinstance(network, nn.Sequential)
        for position, layer in enumerate(network):
            if isinstance(layer, nn.Linear):
                bias = weights[f"{prefix}{position}.bias"].unsqueeze(1)
                rows = bias.baddbmm(rows, weights[f"{prefix}{position}.weight"].transpose(1, 2))
            else:
                rows = layer(rows)
        return rows


def embedding_width(size: int) -> int:
    """Return the length of the vectors of a category with `size` values: fastai's rule of thumb."""
    return min(LARGEST_EMBEDDING, round(1.6 * math.pow(size, 0.56)))
