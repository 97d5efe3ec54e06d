"""What every model is: a network for one replica, and its forward pass for all replicas at once."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from batchlab.records import Record

if TYPE_CHECKING:
    from torch import Tensor, nn


class Model(Record, ABC):
    """A family of networks from `features` inputs to `outputs` numbers (1 for regression, one logit a class otherwise)."""

    kind: str

    @property
    def is_linear(self) -> bool:
        """Whether the outputs are linear in the features, so that the largest stable learning rate is known exactly."""
        return False

    @abstractmethod
    def network(self, features: int, outputs: int) -> "nn.Module":
        """Return one freshly initialised network; its initial weights come from torch's global generator."""

    def stacked(self, network: "nn.Module", weights: "Mapping[str, Tensor]", rows: "Tensor") -> "Tensor":
        """Return the outputs `[replicas, rows, outputs]` of all replicas for `rows` `[replicas, rows, features]`.

        `weights` maps each parameter's name to `[replicas, *shape]`. This default serves any network, through torch.func;
        a model that knows its own arithmetic may override it with a faster way to the same numbers.
        """
        from torch.func import functional_call, vmap

        def of_one(own: "dict[str, Tensor]", inputs: "Tensor") -> "Tensor":
            outputs: Tensor = functional_call(network, own, (inputs,))
            return outputs

        outputs: Tensor = vmap(of_one)(dict(weights), rows)
        return outputs
