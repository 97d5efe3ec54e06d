"""The MLflow server before the PostgreSQL cluster: on loopback, with a password, for its own hosts and pages only."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from flows import background
from flows.background import HOST, Process
from flows.postgres_cluster import Cluster
from flows.postgres_server import PostgresServer

NAME, USUAL_PORT, USER = "mlflow", 5000, "batchlab"
USERS = """[mlflow]
default_permission = READ
database_uri = {address}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
# Checking a password takes tens of milliseconds by design; without this every call would.
auth_cache_ttl_seconds = 60
"""


@dataclass(frozen=True)
class MlflowServer:
    """An MLflow server on loopback, and the folder of the cluster that it keeps its runs in."""

    process: Process
    port: int
    database: str
    cluster: str

    @property
    def url(self) -> str:
        """The address for MLFLOW_TRACKING_URI and for a browser."""
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use the server: its address, a user and the password."""
        password = Cluster(Path(self.cluster)).secret("mlflow_api")
        return {"MLFLOW_TRACKING_URI": self.url, "MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": password}

    def healthy(self) -> bool:
        """Whether it answers."""
        return background.answers(f"{self.url}/health")

    def wait(self) -> None:
        """Return when the server answers; raise ServerError when it dies or takes longer than two minutes."""
        failure = f"the MLflow server did not start; its log is {background.log_file(NAME)}."
        background.wait(lambda: background.listens(self.process, self.port) and self.healthy(), self.process, failure)


def guards(port: int) -> list[str]:
    """Return MLflow's options that refuse requests to other hosts (DNS rebinding) and from other sites' pages."""
    own = [f"{name}:{port}" for name in (HOST, "localhost")]
    hosts = [*own, *_listed("MLFLOW_SERVER_ALLOWED_HOSTS")]
    origins = [*(f"http://{name}" for name in own), *_listed("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS")]
    return ["--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", ",".join(origins)]


def running() -> MlflowServer | None:
    """Return the server if its process is alive, answering or still starting."""
    server = _last()
    return server if server is not None and server.process.alive() else None


def started(database: PostgresServer, artifacts: str) -> MlflowServer:
    """Return the server before `database`, starting it when there is none; does not wait until it answers.

    It hands artifacts through to the folder or bucket at the address `artifacts`, so that its clients need no way there.
    """
    with background.lock(NAME):
        found, last = running(), _last()
        if found is not None and found.database == database.place:
            return found
        if last is not None:
            background.end(last.process)  # before another database, or what a killed one left behind
        port = background.free_port(last.port if last else None, USUAL_PORT)
        users = database.cluster.folder / "mlflow-users.ini"
        users.write_text(USERS.format(address=database.url("psycopg", "mlflow", "mlflow_users")))
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", HOST, "--port", str(port), *guards(port)]
        command += ["--backend-store-uri", database.url("psycopg", "mlflow", "mlflow"), "--artifacts-destination", artifacts]
        command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
        process = background.spawn(command, background.log_file(NAME), _environment(database, users))
        server = MlflowServer(process, port, database.place, database.folder)
        background.remember(NAME, server)
        return server


def stopped() -> bool:
    """Stop the server; return whether there was one."""
    with background.lock(NAME):
        server = running()
        if last := _last():
            background.end(last.process)
        background.forget(NAME)
        return server is not None


def _environment(database: PostgresServer, users: Path) -> dict[str, str]:
    return database.environment | {
        "MLFLOW_AUTH_CONFIG_PATH": str(users),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": database.cluster.secret("mlflow_api"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": database.cluster.secret("mlflow_forms"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _last() -> MlflowServer | None:
    try:
        return MlflowServer(**(background.remembered(NAME) or {}))
    except TypeError:
        return None


def _listed(variable: str) -> list[str]:
    return [item.strip() for item in os.environ.get(variable, "").split(",") if item.strip()]
