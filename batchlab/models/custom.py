from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Literal, cast

from pydantic import PositiveInt

from batchlab.errors import BadInput
from batchlab.imported import imported
from batchlab.models.base import Model
from batchlab.models.session import Factory
from batchlab.networks.traits import Traits

if TYPE_CHECKING:
    from torch import nn


class Custom(Model):
    """Your own network: `factory = "package.module:function"`, called with (features, outputs), returns an nn.Module.

    The module maps `[rows, features]` to `[rows, outputs]`. Batch norm, dropout, shared and frozen parameters are what they are in a loop
    of one's own; where a module cannot serve several replicas at once, they train one after the other. Refused by name are modules whose
    prediction for a row depends on the rows beside it, and buffers of whole numbers that training changes.

    Windows of rows are given to it as `[rows, window, columns]`, and the factory is called with (window, columns) in place of features.
    With a `shape` a row's numbers are given to the module as `[rows, *shape]`, and the factory is called with that in place of features;
    `integers` says that they are whole numbers (tokens), given as such.
    """

    kind: Literal["custom"] = "custom"
    factory: str
    shape: tuple[PositiveInt, ...] | None = None
    integers: bool = False

    def for_windows(self, rows: int, columns: int) -> "Custom":
        return self if rows == 1 or self.shape is not None else self.model_copy(update={"shape": (rows, columns)})

    def network(self, features: int, outputs: int) -> "nn.Module":
        """Return the user's network; raises BadInput when the factory cannot be found or used."""
        network = self._made(features, outputs)
        self.traits(features, outputs)  # what cannot be trained is refused before it is
        return network

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        return self.shape

    @property
    def takes_integers(self) -> bool:
        return self.integers

    @property
    def code(self) -> object:
        return self._factory()

    def traits(self, features: int, outputs: int) -> Traits:
        """Return what the user's network is like; raises BadInput for one that cannot be trained."""
        return _examined(self, self._factory(), features, outputs)

    def _made(self, features: int, outputs: int) -> "nn.Module":
        from torch import nn

        from batchlab.networks.shaping import Shaped

        if self.shape is not None and prod(self.shape) != features:
            raise BadInput(
                f"a row of shape {self.shape} has {prod(self.shape):,} numbers, but this table's rows give {features:,}: every input must "
                "be a number of its own, without gaps (a gap adds one that says so). Fill missing values, or leave model.shape "
                "out (windows of rows need none)."
            )
        try:
            network = self._factory()(features if self.shape is None else self.shape, outputs)
        except BadInput:
            raise
        except Exception as error:
            given = (
                f"({features}, {outputs}); with model.shape it gets a shape in place of {features}"
                if self.shape is None
                else f"({self.shape}, {outputs})"
            )
            raise BadInput(f"model.factory '{self.factory}' raised {type(error).__name__}: {error}. It was called with {given}.") from error
        if not isinstance(network, nn.Module):
            raise BadInput(f"{self.factory} returned {type(network).__name__}; it must return a torch.nn.Module.")
        return Shaped(network, self.shape, self.integers) if self.shape or self.integers else network

    def _factory(self) -> Factory:
        return cast(Factory, imported(self.factory, "model.factory"))


@lru_cache(maxsize=64)
def _examined(model: Custom, factory: Factory, features: int, outputs: int) -> Traits:
    """Return what the factory's network is like; raises BadInput for one that cannot be trained."""
    from batchlab.networks.examining import examined

    return examined(model.factory, lambda: model._made(features, outputs), features, outputs, model.integers)
