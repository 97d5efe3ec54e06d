"""Models of the registry, loaded to predict."""

from batchlab.errors import BadInput
from batchlab.scoring import SavedModel
from tasks import store
from tasks.model_files import loaded
from tasks.registry import Version


def saved_model(version: Version) -> SavedModel:
    """Load a registered version for scoring; raises BadInput for one whose file is from before it could score Arrow batches."""
    store.client()
    model = loaded(version.uri)
    served = model.get_raw_model()
    if not hasattr(served, "predict_batch"):
        raise BadInput(f"version {version.number} of '{version.name}' was saved before `predict` existed; train and register it anew.")
    classes = (model.metadata.metadata or {}).get("classes", ())
    return SavedModel(served, tuple(classes), version.name, version.number, version.run_id)
