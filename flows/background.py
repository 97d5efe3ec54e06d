"""Processes in the background that outlive a command: started once, remembered in Prefect's home, found again, ended."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

HOST = "127.0.0.1"
START_SECONDS = 120
CLOCK_SECONDS = 10  # a process's time of birth follows the wall clock, which may be set
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


class ServerError(Exception):
    """A local server, its database or its worker did not start or stop."""


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


def process_of(pid: int) -> Process:
    """Return the record of a process that runs now."""
    return Process(pid, psutil.Process(pid).create_time())


def spawn(command: list[str], log: Path, environment: dict[str, str], inherited: Sequence[int] = ()) -> Process:
    """Start a command that outlives this process, its output appended to `log`, which only its owner may read.

    It inherits the open files whose numbers are in `inherited`, and no others.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch(mode=0o600)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=inherited,
            env={**os.environ, **QUIET, **environment},
        )
    return process_of(child.pid)


def end(process: Process) -> None:
    """End a process and its children, gently first; of one that was killed, what it left behind."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)] if process.alive() else _left_by(process)
    for member in family[-1:] if process.alive() else family:
        member.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for survivor in alive:
        survivor.kill()
    psutil.wait_procs(alive, timeout=5)


def _left_by(process: Process) -> list[psutil.Process]:
    """Return the members of the session of a process that is gone: the system gives its number to no other while there are any."""
    with suppress(psutil.NoSuchProcess):
        if psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            return []
    if process.created < psutil.boot_time():
        return []
    found = []
    for candidate in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(candidate.pid) == process.pid:
                found.append(candidate)
    return found


def answers(url: str) -> bool:
    """Whether a server answers at `url` with status 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def wait(ready: Callable[[], bool], process: Process, failure: str) -> None:
    """Return when `ready`; raise ServerError with `failure` when the process dies or two minutes pass."""
    until = time.monotonic() + START_SECONDS
    while not ready():
        if not process.alive() or time.monotonic() > until:
            raise ServerError(failure)
        time.sleep(0.1)


def is_free(port: int) -> bool:
    """Whether nothing listens on the port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def listening(*wanted: int | None) -> socket.socket:
    """Return a socket that listens on the first wanted port of loopback that is free, or on any; nobody can take it from then on."""
    for port in (*wanted, 0):
        if port is not None:
            found = socket.socket()
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                found.bind((HOST, port))
                found.listen()
                return found
            found.close()
    raise ServerError(f"no port of {HOST} is free.")


def listens(process: Process, port: int) -> bool:
    """Whether it is this process or a child of it, and no other, that listens on the port of loopback."""
    with suppress(psutil.Error):
        family = psutil.Process(process.pid)
        for member in (family, *family.children(recursive=True)):
            found = member.net_connections("tcp")
            if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in found):
                return True
    return False


def free_port(*wanted: int | None) -> int:
    """Return the first wanted port that is free on loopback, or any free one."""
    for port in wanted:
        if port is not None and is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def home() -> Path:
    """Return Prefect's home folder, where this machine's servers are remembered."""
    return Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect")).expanduser()


def log_file(name: str) -> Path:
    """Return the log of the process that is remembered as `name`."""
    return home() / f"batchlab-{name}.log"


def lock(name: str) -> FileLock:
    """Return the lock to hold while `name` is started or stopped."""
    home().mkdir(parents=True, exist_ok=True)
    return FileLock(home() / f"batchlab-{name}.lock")


def remember(name: str, record: Any) -> None:
    """Keep a dataclass for later commands; a reader never sees half of it."""
    draft = _state_file(name).with_suffix(".part")
    draft.write_text(json.dumps(asdict(record)))
    draft.replace(_state_file(name))


def remembered(name: str) -> dict[str, Any] | None:
    """Return what was kept, its processes made again; None when there is nothing, or nothing that can be read."""
    try:
        known = json.loads(_state_file(name).read_text(), object_hook=lambda tree: Process(**tree) if "created" in tree else tree)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return known if isinstance(known, dict) else None


def forget(name: str) -> None:
    """Drop what was kept."""
    _state_file(name).unlink(missing_ok=True)


def _state_file(name: str) -> Path:
    return home() / f"batchlab-{name}.json"
