from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from batchlab.models.base import Model

if TYPE_CHECKING:
    from torch import Tensor, nn


class Linear(Model):
    """One linear layer: linear regression, or logistic regression for classes."""

    kind: Literal["linear"] = "linear"

    @property
    def is_linear(self) -> bool:
        return True

    def network(self, features: int, outputs: int) -> "nn.Module":
        from torch import nn

        return nn.Linear(features, outputs)

    def stacked(self, network: "nn.Module", weights: "Mapping[str, Tensor]", rows: "Tensor") -> "Tensor":
        return weights["bias"].unsqueeze(1).baddbmm(rows, weights["weight"].transpose(1, 2))
