"""Models of the registry, loaded to predict."""

import sys
from typing import TYPE_CHECKING

from batchlab.errors import BadInput
from batchlab.scoring import SavedModel
from tasks import store
from tasks.registry import Version

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

CARRIED = "batchlab_serving"
"""The module that every saved model carries a file of."""


def loaded(uri: str) -> "PyFuncModel":
    """Load a saved model with the file that it carries, also after others were loaded: Python would take their file for this one's."""
    import mlflow

    store.client()
    before = list(sys.path)
    sys.modules.pop(CARRIED, None)
    try:
        return mlflow.pyfunc.load_model(uri)
    finally:
        sys.path[:] = before
        sys.modules.pop(CARRIED, None)


def saved_model(version: Version) -> SavedModel:
    """Load a registered version for scoring; raises BadInput for one whose file is from before it could score Arrow batches."""
    model = loaded(version.uri)
    served = model.get_raw_model()
    if not hasattr(served, "predict_batch"):
        raise BadInput(f"version {version.number} of '{version.name}' was saved before `predict` existed; train and register it anew.")
    classes = (model.metadata.metadata or {}).get("classes", ())
    return SavedModel(served, tuple(classes), version.name, version.number, version.run_id)
