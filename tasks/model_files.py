"""The files of registered models: fetched from the store once a process, however often they are opened."""

import functools
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from batchlab.errors import BadInput
from batchlab.files.received import check_plain, text_of
from batchlab.retraining.saved import FOLDER
from tasks import store

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

CARRIED = "batchlab_serving"
"""The module that every saved model carries a file of."""
EXPORTED = f"data/{FOLDER}"
"""Where MLflow puts what Batchlab exports, in the folder of a saved model."""
NOTED = "registered_model_meta"
"""What MLflow adds to the files of a registered model when it fetches them."""
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@functools.lru_cache(maxsize=8)
def downloaded(uri: str, run_id: str, tracking_uri: str) -> Path:
    """Return a folder with the files of the model at `uri`, which the process's end removes; raises BadInput where they are gone.

    `run_id` and `tracking_uri` tell apart models that bear the same name and number one after the other.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    folder, whole = Path(tempfile.mkdtemp(dir=_scratch().name)), False
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
        whole = (folder / "MLmodel").exists()
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
    except FileNotFoundError:
        pass
    if not whole:
        raise BadInput(
            f"the files of {uri} are not in the store any more; promote another version (`batchlab champion promote`), or train under "
            "another name (--model)."
        )
    return folder


def carries_ours(folder: Path) -> bool:
    """Whether the file that the saved model carries is the one that is at work here."""
    from batchlab.serving import batchlab_serving

    return text_of(folder / "code" / f"{CARRIED}.py") == Path(str(batchlab_serving.__file__)).read_text()


def digest_of(folder: Path) -> str:
    """Return a digest of all files of a saved model; raises BadInput for one that links to others."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.name != NOTED and (path.is_symlink() or not path.is_dir())):
        check_plain(path)
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def loaded(uri: str) -> "PyFuncModel":
    """Load a saved model with the file that it carries, also after others were loaded: Python would take their file for this one's."""
    import mlflow

    before = list(sys.path)
    sys.modules.pop(CARRIED, None)
    try:
        model: PyFuncModel = mlflow.pyfunc.load_model(uri)
        return model
    finally:
        sys.path[:] = before
        sys.modules.pop(CARRIED, None)


def stored_graph(uri: str, folder: Path) -> Path:
    """Return the file of the graph of the logged model at `uri` (models:/m-…), as the store has it, fetched to the folder."""
    import mlflow

    from batchlab.scoring.shipping import GRAPH

    location = store.client().get_logged_model(uri.removeprefix("models:/")).artifact_location
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{location}/{EXPORTED}/{GRAPH}", dst_path=str(folder)))


@functools.cache
def _scratch() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="batchlab-models-")
