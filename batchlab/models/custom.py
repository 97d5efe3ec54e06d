import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast

from batchlab.errors import BadInput, UnknownName
from batchlab.models.base import Model

if TYPE_CHECKING:
    from torch import nn


class Custom(Model):
    """Your own network: `factory = "package.module:function"`, called with (features, outputs), returns an nn.Module.

    The module maps `[rows, features]` to `[rows, outputs]`. Modules whose forward pass changes state or draws random
    numbers (batch norm's running statistics, dropout) are refused by name: replicas share one program.
    """

    kind: Literal["custom"] = "custom"
    factory: str

    def network(self, features: int, outputs: int) -> "nn.Module":
        """Return the user's network; raises BadInput when the factory cannot be found or used."""
        from torch import nn

        try:
            network = self._factory()(features, outputs)
        except BadInput:
            raise
        except Exception as error:
            raise BadInput(f"model.factory '{self.factory}' raised {type(error).__name__}: {error}") from error
        if not isinstance(network, nn.Module):
            raise BadInput(f"{self.factory} returned {type(network).__name__}; it must return a torch.nn.Module.")
        _refuse_state_and_chance(self.factory, network)
        self._check_on_rows(network, features, outputs)
        return network

    def _check_on_rows(self, network: "nn.Module", features: int, outputs: int) -> None:
        """Raise BadInput unless three rows give three outputs, stacked as alone, and each row the same as by itself."""
        import torch

        rows = torch.linspace(-1, 1, 3 * features).reshape(3, features)
        weights = {name: parameter.detach()[None] for name, parameter in network.named_parameters()}
        try:
            with torch.no_grad():
                together = network(rows)
                shape = tuple(together.shape)
                stacked = self.stacked(network, weights, rows[None])[0]
                apart = torch.cat([network(row[None]) for row in rows])
        except Exception as error:
            raise BadInput(f"{self.factory}'s network fails on 3 rows of {features} features: {error}") from error
        if shape != (3, outputs):
            raise BadInput(
                f"{self.factory} maps (3, {features}) to {shape}; it must map it to (3, {outputs}): "
                "one number a row for regression, one logit a class otherwise."
            )
        if not (torch.allclose(together, apart, atol=1e-4) and torch.allclose(together, stacked, atol=1e-4)):
            raise BadInput(f"{self.factory}'s network gives a row another output when it stands beside others; rows must not mix.")

    def _factory(self) -> "Callable[[int, int], object]":
        module_name, _, name = self.factory.partition(":")
        if not name:
            raise BadInput(f"model.factory is '{self.factory}'; write it as 'package.module:function'.")
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # a file beside the user's data is found, as it would be by `python -m`
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise BadInput(
                f"model.factory '{self.factory}' cannot be imported: {type(error).__name__}: {error}; "
                "it is looked for in the current folder and on PYTHONPATH."
            ) from error
        factory = getattr(module, name, None)
        if not callable(factory):
            functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
            raise UnknownName(f"function in {module_name}", name, functions)
        return cast("Callable[[int, int], object]", factory)


def _refuse_state_and_chance(factory: str, network: "nn.Module") -> None:
    from torch import nn

    chance = (nn.modules.dropout._DropoutNd, nn.RReLU)
    refused = [f"'{name}' ({type(layer).__name__})" for name, layer in network.named_modules() if isinstance(layer, chance)]
    refused += [f"buffer '{name}'" for name, _ in network.named_buffers()]
    refused += [f"frozen parameter '{name}'" for name, parameter in network.named_parameters() if not parameter.requires_grad]
    if refused:
        raise BadInput(
            f"{factory} uses {', '.join(refused)}; stacked training takes no dropout, no buffers (batch norm) and no frozen parameters: "
            "use layer norm, weight decay or early stopping instead."
        )
    if not any(True for _ in network.parameters()):
        raise BadInput(f"{factory} returned a network without parameters; there is nothing to train.")
