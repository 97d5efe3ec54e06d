"""Everything that runs in the background on this machine, started and stopped in the order that each needs the other."""

import os
import time
from pathlib import Path

from flows import local_server, local_worker, mlflow_server, postgres_server, recovering
from flows.local_server import LocalServer
from tasks import store


def started(postgres: bool = False, worker: bool = False) -> LocalServer:
    """Return the Prefect server, answering; on PostgreSQL with its database and the MLflow server, and with a worker where asked.

    What runs already is taken as it is; what was killed is started again at its old place, and what it left open is ended first.
    """
    known = local_server.running()
    if postgres:
        store.check_writable()
        if (found := local_server.running()) is not None and found.database is None:
            raise found.misplaced()
        database = postgres_server.started(store.folder() / "postgres")
        server = local_server.started(database)  # both servers start at once
        tracking = mlflow_server.started(database, store.artifacts())
        tracking.wait()
    else:
        server = local_server.started()
    server.wait()
    works = local_worker.running() is not None
    if known is None or (worker and not works):
        recovering.recover(environment(), server.process.created if works else time.time())
    if worker:
        local_worker.started(server, environment())
    return server


def stopped() -> list[str]:
    """Stop the worker, the servers and the database, in this order; return which there were."""
    parts = {"worker": local_worker, "MLflow server": mlflow_server, "Prefect server": local_server, "database": postgres_server}
    return [name for name, part in parts.items() if part.stopped()]


def environment() -> dict[str, str]:
    """Return what a process needs to use this machine's servers: addresses, users, passwords, and the folder of the store."""
    server, tracking = local_server.running(), mlflow_server.running()
    folder = store.folder() if tracking is None else Path(tracking.cluster).parent
    given = {"BATCHLAB_MLRUNS": str(folder)} | (server.environment if server else {})
    return given | (tracking.environment if tracking else {})


def adopt() -> None:
    """Let this process use the MLflow server of its own store's folder where one runs, unless the user chose another store."""
    tracking = mlflow_server.running()
    if tracking is not None and not os.environ.get("MLFLOW_TRACKING_URI") and tracking.cluster == str(store.folder() / "postgres"):
        os.environ.update(tracking.environment)
