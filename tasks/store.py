"""The MLflow store: one sqlite database and its artifacts under `mlruns/`, or a server's; packed tables are always in the folder."""

import functools
import logging
import os
import tempfile
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from batchlab.errors import BadInput
from tasks import address

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
"""A call waits about a minute for a server that restarts; MLflow's own default is four."""
ONE_AT_A_TIME = threading.Lock()
"""Opening the store sets, and takes away again, what MLflow reads from the environment."""
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def folder() -> Path:
    """Return the store's folder: `mlruns` where the command was started, or what BATCHLAB_MLRUNS names."""
    return Path(os.environ.get("BATCHLAB_MLRUNS", "mlruns")).resolve()


def tables() -> Path:
    """Return the folder of packed tables."""
    return folder() / "tables"


def spool() -> Path:
    """Return the folder of verdicts that are told and not recorded yet."""
    return folder() / "spool"


def something_is_spooled() -> bool:
    """Whether some verdict is not recorded yet; a look into a folder, no more."""
    return any(spool().glob("*.json"))


def database() -> Path | None:
    """Return the file of the store's database; None when the store is on a server."""
    chosen = address.configured()
    if chosen is None:
        return folder() / "mlflow.db"
    return Path(chosen.removeprefix("sqlite:///")) if chosen.startswith("sqlite:///") else None


def artifacts() -> str:
    """Return the address of the folder of artifacts, which a database without a server before it leaves to its clients."""
    return (folder() / "artifacts").as_uri()


def tracking_uri() -> str:
    """Return MLflow's tracking address of the store, without any password: MLFLOW_TRACKING_URI's, else the folder's database."""
    return address.configured() or f"sqlite:///{database()}"


def ui_url() -> str:
    """Return the address of the MLflow UI: MLFLOW_UI_URL's, else the server's, else where `batchlab ui` serves it."""
    own = tracking_uri() if address.is_server(tracking_uri()) else "http://127.0.0.1:5000"
    return os.environ.get("MLFLOW_UI_URL", own)


def check_ready() -> None:
    """Raise BadInput unless the folder takes files and, where the store is on a server, the server answers."""
    check_writable()
    address.check_answers(tracking_uri())


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
    with ONE_AT_A_TIME:
        return _opened()


def _opened() -> "MlflowClient":
    check_ready()
    for key, value in (PATIENCE | QUIET).items():
        os.environ.setdefault(key, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    for name in ("mlflow.store.db.utils", "mlflow.pyfunc", "mlflow.system_metrics.system_metrics_monitor"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # of mlflow.pytorch's own loader
    _set_tracking_uri()
    if address.is_server(tracking_uri()):
        address.check_admits(tracking_uri())
    else:
        _define_tables()
        with FileLock(folder() / ".initialising.lock"):
            _make_database()
    return mlflow.MlflowClient(tracking_uri())


def _set_tracking_uri() -> None:
    """Tell MLflow where the store is, but no child process: MLflow would leave it in the environment, where the user may mean another."""
    import mlflow

    given = os.environ.get(address.VARIABLE)
    mlflow.set_tracking_uri(tracking_uri())
    os.environ.pop(address.VARIABLE, None)
    if given is not None:
        os.environ[address.VARIABLE] = given


def _define_tables() -> None:
    """Define all of MLflow's tables before any is used: a thread that imports some while another uses those that refer to them would break
    them for good ("mappers failed to initialize")."""
    import mlflow.store.model_registry.dbmodels.models
    import mlflow.store.tracking.dbmodels.models
    import mlflow.store.workspace.dbmodels.models  # noqa: F401
    from mlflow.store.db.base_sql_model import Base

    Base.registry.configure()


def _make_database() -> None:
    """Make the database unless it is there; a file under another name first: a half-made one would be refused for good."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file = database()
    if file is None:
        SqlAlchemyStore(tracking_uri(), artifacts()).engine.dispose()
    elif not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".part")
        for leftover in file.parent.glob(f"{draft.name}*"):
            leftover.unlink()
        SqlAlchemyStore(f"sqlite:///{draft}", artifacts()).engine.dispose()
        draft.replace(file)


def experiment_id(name: str) -> str:
    """Return the id of the experiment `name`; a new one has its artifacts where the server keeps them, else under the store."""
    client()  # takes the same lock when it makes the database
    with FileLock(folder() / ".initialising.lock"):
        found = client().get_experiment_by_name(name)
        if found is None:
            return _made_experiment(name)
        if found.lifecycle_stage == "deleted":
            client().restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def _made_experiment(name: str) -> str:
    from mlflow.exceptions import MlflowException

    tags = {"mlflow.experimentKind": "custom_model_development"}  # so that the UI lists its training runs
    place = None if address.is_server(tracking_uri()) else artifacts()
    try:
        return str(client().create_experiment(name, artifact_location=place, tags=tags))
    except MlflowException:  # another machine was faster
        found = client().get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)
