"""The files of registered models: fetched from the store once a process, however often they are opened."""

import functools
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from batchlab.errors import BadInput

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

CARRIED = "batchlab_serving"
"""The module that every saved model carries a file of."""
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@functools.lru_cache(maxsize=8)
def downloaded(uri: str, run_id: str, store: str) -> Path:
    """Return a folder with the files of the model at `uri`, which the process's end removes; raises BadInput where they are gone.

    `run_id` and `store` tell apart models that bear the same name and number one after the other.
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


def loaded(uri: str) -> "PyFuncModel":
    """Load a saved model with the file that it carries, also after others were loaded: Python would take their file for this one's."""
    import mlflow

    before = list(sys.path)
    sys.modules.pop(CARRIED, None)
    try:
        return mlflow.pyfunc.load_model(uri)
    finally:
        sys.path[:] = before
        sys.modules.pop(CARRIED, None)


@functools.cache
def _scratch() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="batchlab-models-")
