"""The Prefect server on this machine: started in the background once, found again by later runs, never two."""

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows import background
from flows.background import HOST, QUIET, Process, ServerError, end, home, is_free, spawn
from flows.postgres_cluster import Cluster
from flows.postgres_server import PostgresServer

__all__ = ["QUIET", "LocalServer", "Process", "ServerError", "is_free"]

NAME, USUAL_PORT, USER = "server", 4200, "batchlab"
ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
LEASES, LEASES_IN_FILES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "prefect.server.concurrency.lease_storage.filesystem"
"""Who holds which slot; Prefect's default, memory, forgets it when the server is killed: dead runs keep theirs, live ones are ended."""

SELDOM = {
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "15",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "15",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "30",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "60",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT15S",
}
"""How often the server looks for what it does by itself, where the user has not said: most of Prefect's defaults are 5 seconds, which
takes the steps that are timed beside it a few percent of a core. Runs are scheduled ahead, and events are taken as they come."""


@dataclass(frozen=True)
class LocalServer:
    """A Prefect server on loopback that this machine's runs share; on SQLite, or on a database of the PostgreSQL cluster."""

    process: Process
    port: int
    database: str | None = None
    cluster: str | None = None

    @property
    def api_url(self) -> str:
        """The address for PREFECT_API_URL."""
        return f"http://{HOST}:{self.port}/api"

    @property
    def ui_url(self) -> str:
        """The address for a browser."""
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use the server: its address, and the password of one that asks for it."""
        password = {} if self.cluster is None else {"PREFECT_API_AUTH_STRING": password_of(Cluster(Path(self.cluster)))}
        return {"PREFECT_API_URL": self.api_url, **password}

    def healthy(self) -> bool:
        """Whether it answers."""
        return answers(self.api_url)

    def misplaced(self) -> ServerError:
        """Return the error that says that the server runs on another database than was asked for."""
        where = "SQLite" if self.database is None else f"PostgreSQL at {self.database}"
        return ServerError(f"a Prefect server on {where} runs already ({self.ui_url}); end it first with `batchlab server stop`.")

    def wait(self) -> None:
        """Return when the server answers; raise ServerError when it dies or takes longer than two minutes."""
        failure = f"the local Prefect server did not start; its log is {log_file()}. `--no-server` does without it."
        background.wait(self.healthy, self.process, failure)


def answers(api_url: str) -> bool:
    """Whether a Prefect server answers at `api_url`."""
    return background.answers(f"{api_url}/health")


def log_file() -> Path:
    """Return the server's log."""
    return background.log_file(NAME)


def configured_url() -> str | None:
    """Return the server that the user configured, in the environment or in the active Prefect profile; None to use the local one."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    profiles = home() / "profiles.toml"
    if not profiles.exists():
        return None
    tree = tomllib.loads(profiles.read_text())
    url = tree.get("profiles", {}).get(os.environ.get("PREFECT_PROFILE", tree.get("active")), {}).get("PREFECT_API_URL")
    return str(url) if url else None


def running() -> LocalServer | None:
    """Return the local server if its process is alive, answering or still starting."""
    server = _last()
    return server if server is not None and server.process.alive() else None


def started(database: PostgresServer | None = None) -> LocalServer:
    """Return the local server, starting it in the background when there is none; does not wait until it answers.

    With `database` the server keeps its runs there and asks for a password. A server that runs is taken as it is, but one that
    was asked to be on PostgreSQL and runs elsewhere raises ServerError.
    """
    with background.lock(NAME):
        if found := running():
            if database is not None and found.database != database.place:
                raise found.misplaced()
            return found
        last = _last()
        server = _spawned(last.port if last else None, database)
        background.remember(NAME, server)
        return server


def stopped() -> bool:
    """Stop the local server; return whether there was one."""
    with background.lock(NAME):
        server = running()
        if server is not None:
            end(server.process)
        background.forget(NAME)
        return server is not None


def _last() -> LocalServer | None:
    try:
        return LocalServer(**(background.remembered(NAME) or {}))
    except TypeError:
        return None


def _spawned(wanted: int | None, database: PostgresServer | None) -> LocalServer:
    """Start the server on a port that is its own already: two that start at once, of two homes, do not meet on one."""
    with background.listening(wanted, USUAL_PORT) as listener:
        port = int(listener.getsockname()[1])
        command = [sys.executable, "-P", "-m", "flows.guarded_prefect", str(listener.fileno())]
        process = spawn(command, log_file(), _environment(port, database), [listener.fileno()])
    return LocalServer(process, port, *((None, None) if database is None else (database.place, database.folder)))


def _environment(port: int, database: PostgresServer | None) -> dict[str, str]:
    origins = [f"http://{name}:{port}" for name in (HOST, "localhost")] + [item for item in os.environ.get(ORIGINS, "").split(",") if item]
    environment = {
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        ORIGINS: ",".join(origins),
        LEASES: os.environ.get(LEASES, LEASES_IN_FILES),
        **seldom(os.environ),
    }
    if database is not None:
        environment |= database.environment
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database.url("asyncpg", "prefect", "prefect")
        environment["PREFECT_SERVER_API_AUTH_STRING"] = password_of(database.cluster)
    return environment


def seldom(chosen: Mapping[str, str]) -> dict[str, str]:
    """Return how often the server looks for what it does by itself: as the user chose in the environment, else seldom."""
    return {key: chosen.get(key, value) for key, value in SELDOM.items()}


def password_of(cluster: Cluster) -> str:
    """Return the user and password that Prefect's server before the cluster asks for, as Prefect writes them."""
    return f"{USER}:{cluster.secret('prefect_api')}"
