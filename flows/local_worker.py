"""A Prefect worker beside the local server: pool made, flows deployed, process in the background."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from flows.local_server import LocalServer, Process, ServerError, end, home, spawn

POOL = "batchlab"
CHECKOUT = Path(__file__).resolve().parent.parent


def started(server: LocalServer) -> Process:
    """Make the work pool, deploy every flow of prefect.yaml and start a worker, unless one runs."""
    if found := running():
        return found
    prefect(server, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    prefect(server, "--no-prompt", "deploy", "--all")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", "batchlab-local"]
    worker = spawn(command, home() / "batchlab-worker.log", {"PREFECT_API_URL": server.api_url})
    _state_file().write_text(json.dumps(asdict(worker)))
    return worker


def running() -> Process | None:
    """Return the worker's process if it is alive."""
    try:
        worker = Process(**json.loads(_state_file().read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return worker if worker.alive() else None


def stopped() -> bool:
    """Stop the worker; return whether there was one."""
    worker = running()
    if worker is not None:
        end(worker)
    _state_file().unlink(missing_ok=True)
    return worker is not None


def prefect(server: LocalServer, *arguments: str) -> str:
    """Run one command of Prefect's command line in the checkout; raise ServerError with its output when it fails."""
    environment = {**os.environ, "PREFECT_API_URL": server.api_url, "PWD": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServerError(f"`prefect {' '.join(arguments)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _state_file() -> Path:
    return home() / "batchlab-worker.json"
