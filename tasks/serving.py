"""Models of the registry, loaded to predict."""

from pathlib import Path
from typing import Any

from batchlab.errors import BadInput
from batchlab.files.received import refusing
from batchlab.retraining.saved import columns_in, sequence_in
from batchlab.scoring.predictions import SavedModel
from tasks import model_files, registry, store
from tasks.registry import Version


def saved_model(version: Version) -> SavedModel:
    """Load a registered version for scoring: with the file that is at work here where it carries the same, else with its own, if that was
    registered here. Raises BadInput for a version whose file is from before it could score Arrow batches, or whose file is not known."""
    store.client()
    folder = registry.downloaded(version)
    served = _ours(folder) if model_files.carries_ours(folder) else _its_own(version, folder)
    if not hasattr(served, "predict_batch"):
        raise BadInput(f"version {version.number} of '{version.name}' was saved before `predict` existed; train and register it anew.")
    return SavedModel(served, _classes(folder), version.name, version.number, version.run_id)


def _ours(folder: Path) -> Any:
    from batchlab.scoring.shipping import GRAPH
    from batchlab.serving import graphs
    from batchlab.serving.batchlab_serving import Served

    exported = folder / model_files.EXPORTED
    return Served(columns_in(exported), graphs.opened(exported / GRAPH), sequence_in(exported))


def _its_own(version: Version, folder: Path) -> Any:
    if not registry.runnable(version):
        raise BadInput(
            f"version {version.number} of '{version.name}' carries code that was not registered by Batchlab, or has been changed since: "
            "it is not run. Train it anew (`batchlab retrain`); if you trust it, MLflow runs it (`mlflow models predict`)."
        )
    return model_files.loaded(str(folder)).get_raw_model()


def _classes(folder: Path) -> tuple[str, ...]:
    from mlflow.models import Model

    with refusing(folder / "MLmodel", "description of a saved model"):
        return tuple(str(name) for name in (Model.load(folder).metadata or {}).get("classes", ()))
