"""Models, one file each; a new file is found on arrival."""

from batchlab.models.base import Model
from batchlab.records import discover

MODELS = discover(__name__, Model)

__all__ = ["MODELS", "Model"]
