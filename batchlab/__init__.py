"""Batchlab says which batching strategy, batch size and learning rate to train with, with evidence. This package is the library: WHAT
is done.

It knows neither Prefect nor MLflow and can be used from a notebook, as `batchlab.compare(frame, target=...)`; `tasks/` and `flows/`
build the application on it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchlab.notebook import Comparison, compare

__all__ = ["Comparison", "compare"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is asked for at first use, so that `import batchlab` takes no time."""
    if name not in __all__:
        raise AttributeError(f"module 'batchlab' has no attribute '{name}'")
    from batchlab import notebook

    return getattr(notebook, name)
