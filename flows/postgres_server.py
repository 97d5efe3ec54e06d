"""Batchlab's own PostgreSQL on loopback: started in the background, found again, stopped."""

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from flows import background
from flows.background import HOST, Process, ServerError
from flows.postgres_cluster import DATABASES, OWNER, Cluster, hand_over

NAME, USUAL_PORT = "postgres", 54320  # not 5432, where a database of the machine's own would be
STOP_SECONDS = 30


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL server on loopback, and the folder of its cluster."""

    process: Process
    port: int
    folder: str

    @property
    def cluster(self) -> Cluster:
        """The cluster that it serves."""
        return Cluster(Path(self.folder))

    @property
    def place(self) -> str:
        """Host and port, by which a server before it knows it."""
        return f"{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a server before it needs to be let in."""
        return {"PGPASSFILE": str(self.cluster.passfile)}

    def url(self, driver: str, role: str, database: str) -> str:
        """Return the address of a database for SQLAlchemy; it has no password."""
        return f"postgresql+{driver}://{role}@{self.place}/{database}"


def running() -> PostgresServer | None:
    """Return the server if its process is alive."""
    try:
        server = PostgresServer(**(background.remembered(NAME) or {}))
    except TypeError:
        return None
    return server if server.process.alive() else None


def started(folder: Path) -> PostgresServer:
    """Return the server of the cluster in `folder`, making and starting what is missing, with every role and database in it."""
    with background.lock(NAME):
        cluster = Cluster(folder.resolve())
        found = running()
        if found is not None and found.cluster != cluster:
            raise ServerError(f"the database in {found.folder} runs, not the one in {cluster.folder}; end it with `batchlab server stop`.")
        if found is None:
            cluster.make()
            found = _serving(cluster) or _start(cluster)
            background.remember(NAME, found)
        _make_databases(found)
        return found


def stopped() -> bool:
    """Stop the server, which ends its clients' connections; return whether there was one."""
    with background.lock(NAME):
        server = running()
        if server is not None:
            process = psutil.Process(server.process.pid)
            process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown: everything is on disk at its end
            try:
                process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                background.end(server.process)
        background.forget(NAME)
        return server is not None


def _start(cluster: Cluster) -> PostgresServer:
    _drop_stale_lock(cluster)
    last = background.remembered(NAME) or {}
    port = background.free_port(last.get("port"), USUAL_PORT)
    log = cluster.folder / "server.log"
    log.touch(mode=0o600)
    hand_over(log)
    options = f"-p {port} -c listen_addresses={HOST} -c unix_socket_directories=''"
    cluster.run("pg_ctl", "-D", str(cluster.data), "start", "-w", "-l", str(log), "-o", options)
    server = _serving(cluster)
    if server is None:
        raise ServerError(f"PostgreSQL did not stay; its log is {log}.")
    return server


def _serving(cluster: Cluster) -> PostgresServer | None:
    """Return the server that PostgreSQL's own lock file in the cluster names, if it is alive."""
    try:
        lines = (cluster.data / "postmaster.pid").read_text().splitlines()
        process = background.process_of(int(lines[0]))
        port = int(lines[3])
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    return PostgresServer(process, port, str(cluster.folder)) if _works_in(psutil.Process(process.pid), cluster.data) else None


def _drop_stale_lock(cluster: Cluster) -> None:
    """Wait for what a killed server left, then drop its lock file: to PostgreSQL a dead process is alive until it is reaped."""
    lock, until = cluster.data / "postmaster.pid", time.monotonic() + STOP_SECONDS
    while lock.exists() and any(_works_in(process, cluster.data) for process in psutil.process_iter()):
        if time.monotonic() > until:
            raise ServerError(f"another PostgreSQL works in {cluster.data}; end it first.")
        time.sleep(0.1)
    lock.unlink(missing_ok=True)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd() == str(folder)
    except psutil.Error:
        return False


def _make_databases(server: PostgresServer) -> None:
    import psycopg
    from psycopg.sql import SQL, Identifier, Literal

    place: dict[str, Any] = {"host": HOST, "port": server.port, "user": OWNER, "dbname": "postgres"}
    with psycopg.connect(**place, passfile=str(server.cluster.passfile), connect_timeout=10, autocommit=True) as connection:
        roles = {name for (name,) in connection.execute("select rolname from pg_roles")}
        databases = {name for (name,) in connection.execute("select datname from pg_database")}
        for role, owned in DATABASES.items():
            if role not in roles:
                password = Literal(server.cluster.secret(role))
                connection.execute(SQL("create role {} login password {}").format(Identifier(role), password))
            for name in set(owned) - databases:
                connection.execute(SQL("create database {} owner {}").format(Identifier(name), Identifier(role)))
                connection.execute(SQL("revoke connect on database {} from public").format(Identifier(name)))
