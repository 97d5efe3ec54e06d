"""The MLflow store under `mlruns/`: one sqlite database, artifacts, packed tables."""

import functools
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from batchlab.errors import BadInput

if TYPE_CHECKING:
    from mlflow import MlflowClient


def folder() -> Path:
    """Return the store's folder: `mlruns` where the command was started, or what BATCHLAB_MLRUNS names."""
    return Path(os.environ.get("BATCHLAB_MLRUNS", "mlruns")).resolve()


def tables() -> Path:
    """Return the folder of packed tables."""
    return folder() / "tables"


def database() -> Path:
    """Return the file of the store's database."""
    return folder() / "mlflow.db"


def artifacts() -> str:
    """Return the address of the folder of artifacts."""
    return (folder() / "artifacts").as_uri()


def tracking_uri() -> str:
    """Return MLflow's tracking address of the store."""
    return f"sqlite:///{database()}"


def check_writable() -> None:
    """Raise BadInput unless the store's folder exists, or can be made, and takes files."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder()):
            pass
    except OSError as error:
        raise BadInput(
            f"the store '{folder()}' cannot be written: {error.strerror}; free it, or name another folder with BATCHLAB_MLRUNS."
        ) from error


@functools.cache
def client() -> "MlflowClient":
    """Return the client of the store; the first call on a machine makes the database, one process at a time."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    check_writable()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    for name in ("mlflow.store.db.utils", "mlflow.pyfunc", "mlflow.system_metrics.system_metrics_monitor"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # of mlflow.pytorch's own loader
    mlflow.set_tracking_uri(tracking_uri())
    with FileLock(folder() / ".initialising.lock"):
        if not database().exists():
            _make_database()
    return mlflow.MlflowClient(tracking_uri())


def _make_database() -> None:
    """Make the database under another name, then rename it: a half-made one would be refused for good."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    draft = database().with_suffix(".part")
    for leftover in folder().glob(f"{draft.name}*"):
        leftover.unlink()
    SqlAlchemyStore(f"sqlite:///{draft}", artifacts()).engine.dispose()
    draft.replace(database())


def experiment_id(name: str) -> str:
    """Return the id of the experiment `name`, made with its artifacts under the store when it is new."""
    client()  # takes the same lock when it makes the database
    with FileLock(folder() / ".initialising.lock"):
        found = client().get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                client().restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        tags = {"mlflow.experimentKind": "custom_model_development"}  # so that the UI lists its training runs
        return str(client().create_experiment(name, artifact_location=artifacts(), tags=tags))
