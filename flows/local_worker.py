"""A Prefect worker beside the local server: pool made, flows deployed, process in the background."""

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows import background
from flows.background import Process, ServerError
from flows.local_server import LocalServer

NAME, POOL, RAY_POOL = "worker", "batchlab", "batchlab-ray"
CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Worker:
    """A worker's process, and the servers that it works with."""

    process: Process
    api_url: str
    tracking_uri: str | None


def started(server: LocalServer, environment: Mapping[str, str] | None = None) -> Process:
    """Make the work pools, deploy every flow of prefect.yaml and start a worker of the first pool, unless one runs for these servers.

    Its flow runs have `environment` on top of this process's own.
    """
    extra = {**server.environment, **(environment or {})}
    with background.lock(NAME):
        wanted, last = (server.api_url, extra.get("MLFLOW_TRACKING_URI")), _last()
        if last is not None and last.process.alive():
            if (last.api_url, last.tracking_uri) == wanted:
                return last.process
            background.end(last.process)
        with ThreadPoolExecutor() as beside:
            list(beside.map(partial(_make_pool, server), (POOL, RAY_POOL)))
        prefect(server, "--no-prompt", "deploy", "--all")
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", "batchlab-local"]
        worker = Worker(background.spawn(command, background.log_file(NAME), extra), *wanted)
        background.remember(NAME, worker)
        return worker.process


def _make_pool(server: LocalServer, name: str) -> None:
    prefect(server, "work-pool", "create", name, "--type", "process", "--overwrite")


def running() -> Process | None:
    """Return the worker's process if it is alive."""
    last = _last()
    return last.process if last is not None and last.process.alive() else None


def stopped() -> bool:
    """Stop the worker; return whether there was one."""
    with background.lock(NAME):
        worker = running()
        if worker is not None:
            background.end(worker)
        background.forget(NAME)
        return worker is not None


def prefect(server: LocalServer, *arguments: str) -> str:
    """Run one command of Prefect's command line in the checkout; raise ServerError with its output when it fails."""
    environment = {**os.environ, **server.environment, "PWD": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServerError(f"`prefect {' '.join(arguments)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _last() -> Worker | None:
    try:
        return Worker(**(background.remembered(NAME) or {}))
    except TypeError:
        return None
