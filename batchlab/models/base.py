"""What every model is: a network for one replica, and its forward pass for all replicas at once."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from batchlab.networks.traits import Traits
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

    def for_windows(self, rows: int, columns: int) -> "Model":
        """Return the model for features that are so many rows of so many columns, side by side and oldest first, where it takes these
        otherwise than flat. Raises BadInput where it cannot."""
        return self

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        """The shape in which the model is given a row's numbers; None for flat."""
        return None

    @property
    def takes_integers(self) -> bool:
        """Whether features reach the network as they are in the table: whole numbers, which stand for something."""
        return False

    @property
    def code(self) -> object:
        """What else than the model's fields says what its network is: a function of the user's."""
        return None

    def traits(self, features: int, outputs: int) -> Traits:
        """Return what the network's forward pass is like."""
        return Traits()

    def stacked(self, network: "nn.Module", weights: "Mapping[str, Tensor]", rows: "Tensor") -> "Tensor":
        """Return the outputs `[replicas, rows, outputs]` of all replicas for `rows` `[replicas, rows, features]`.

        `weights` maps the name of each parameter, and of each buffer that is a replica's own, to `[replicas, *shape]`. This default serves
        any network, through torch.func; a model that knows its own arithmetic may override it with a faster way to the same numbers.
        """
        from batchlab.networks.stacking import stacked_forward

        return stacked_forward(network, weights, rows)
