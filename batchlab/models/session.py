"""Networks that exist in this session only: a module, or what makes one, given in Python; others find them by a name of this process."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batchlab.errors import BadInput
from batchlab.imported import name_of

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[[Any, int], object]
"""Called with the number of features, or a row's shape, and the number of outputs; returns an nn.Module."""


def named(given: object) -> str:
    """Return the name by which a network is found: `package.module:function` where it can be imported, else one that only this process
    knows. `given` is such a name, a function or class that is called with (features, outputs), or an nn.Module; raises BadInput for others.
    """
    if isinstance(given, str):
        return given
    factory = _copies(given) if _is_module(given) else given
    if not callable(factory):
        raise BadInput(
            f"model is {type(given).__name__}; give an nn.Module, a function of (features, outputs), or 'package.module:function'."
        )
    return name_of(factory)


def _is_module(given: object) -> bool:
    """Whether this is a network; without torch nobody has one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(given, torch.nn.Module)


def _copies(network: Any) -> Factory:
    """Return what makes copies of a network. Layers that can draw their weights anew do; other parameters begin as they are."""

    def copy(features: object, outputs: int) -> "nn.Module":
        from copy import deepcopy

        made: nn.Module = deepcopy(network)
        for layer in made.modules():
            if callable(draw := getattr(layer, "reset_parameters", None)):
                draw()
        return made

    copy.__qualname__ = f"{type(network).__name__}()"
    return copy
