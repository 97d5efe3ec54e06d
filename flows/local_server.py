"""The Prefect server on this machine: started in the background once, found again by later runs, never two."""

import json
import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock

HOST, USUAL_PORT = "127.0.0.1", 4200
START_SECONDS = 120
CLOCK_SECONDS = 10  # a process's time of birth follows the wall clock, which may be set
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


class ServerError(Exception):
    """The local Prefect server did not start or stop."""


@dataclass(frozen=True)
class Process:
    """A process in the background, told apart from a later one with the same number by when it began."""

    pid: int
    created: float

    def alive(self) -> bool:
        """Whether it still runs."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.created) < CLOCK_SECONDS and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class LocalServer:
    """A Prefect server on loopback that this machine's runs share."""

    process: Process
    port: int

    @property
    def api_url(self) -> str:
        """The address for PREFECT_API_URL."""
        return f"http://{HOST}:{self.port}/api"

    @property
    def ui_url(self) -> str:
        """The address for a browser."""
        return f"http://{HOST}:{self.port}"

    def healthy(self) -> bool:
        """Whether it answers."""
        return answers(self.api_url)

    def wait(self) -> None:
        """Return when the server answers; raise ServerError when it dies or takes longer than two minutes."""
        until = time.monotonic() + START_SECONDS
        while not self.healthy():
            if not self.process.alive() or time.monotonic() > until:
                raise ServerError(f"the local Prefect server did not start; its log is {log_file()}. `--no-server` does without it.")
            time.sleep(0.1)


def answers(api_url: str) -> bool:
    """Whether a Prefect server answers at `api_url`."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def home() -> Path:
    """Return Prefect's home folder."""
    return Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect")).expanduser()


def log_file() -> Path:
    """Return the server's log."""
    return home() / "batchlab-server.log"


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
    try:
        known = json.loads(_state_file().read_text())
        server = LocalServer(Process(**known["process"]), known["port"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return server if server.process.alive() else None


def started() -> LocalServer:
    """Return the local server, starting it in the background when there is none; does not wait until it answers."""
    with _lock():
        if found := running():
            return found
        port = _free_port()
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
        server = LocalServer(spawn(command, log_file(), {"PREFECT_API_URL": f"http://{HOST}:{port}/api"}), port)
        _state_file().write_text(json.dumps(asdict(server)))
        return server


def stopped() -> bool:
    """Stop the worker and the local server; return whether there was a server."""
    with _lock():
        server = running()
        if server is not None:
            end(server.process)
        _state_file().unlink(missing_ok=True)
        return server is not None


def spawn(command: list[str], log: Path, environment: dict[str, str]) -> Process:
    """Start a command that outlives this process, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **QUIET, **environment},
        )
    return Process(child.pid, psutil.Process(child.pid).create_time())


def end(process: Process) -> None:
    """End a process and its children, gently first."""
    if not process.alive():
        return
    parent = psutil.Process(process.pid)
    family = [*parent.children(recursive=True), parent]
    parent.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for survivor in alive:
        survivor.kill()
    psutil.wait_procs(alive, timeout=5)


def _state_file() -> Path:
    return home() / "batchlab-server.json"


def _lock() -> FileLock:
    home().mkdir(parents=True, exist_ok=True)
    return FileLock(home() / "batchlab-server.lock")


def _free_port() -> int:
    """Return Prefect's usual port, or any free one when something else is there."""
    if is_free(USUAL_PORT):
        return USUAL_PORT
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nothing listens on the port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
