"""Who runs what, from which code, on which machine."""

import functools
import json
import os
import platform
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil

OWNER = "batchlab.process"
CLOCK_SECONDS = 10  # a process's time of birth follows the wall clock, which may be set


def owner() -> str:
    """Return what names this process among all of all machines."""
    return json.dumps([socket.gethostname(), os.getpid(), psutil.Process().create_time()])


def owner_is_gone(named: str | None) -> bool:
    """Whether the process that a run's tag names ran on this machine and is gone."""
    if named is None:
        return False
    try:
        host, pid, created = json.loads(named)
        if host != socket.gethostname():
            return False
        process = psutil.Process(int(pid))
        return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - created) > CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return True
    except (ValueError, TypeError, OverflowError):
        return False  # what somebody else wrote names no process


def provenance() -> dict[str, str]:
    """Return who started this run and from which code, in MLflow's own tag names where it has some."""
    tags = {OWNER: owner(), "mlflow.source.name": "batchlab compare", "mlflow.source.type": "LOCAL"}
    commit = git_commit()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the checkout that this code runs from; None outside a git checkout, or without git."""
    here = Path(__file__).resolve().parent
    if shutil.which("git") is None:
        return None
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def hardware() -> dict[str, Any]:
    """Return what a timing depends on most: processor, cores, GPU."""
    return {name: value for name, value in machine().items() if name in ("machine.processor", "machine.cores", "machine.gpu")}


def machine() -> dict[str, Any]:
    """Return the figures of this machine that a timing depends on."""
    import torch

    facts = {
        "machine.processor": platform.processor() or platform.machine(),
        "machine.cores": psutil.cpu_count(),
        "machine.memory_bytes": psutil.virtual_memory().total,
        "machine.python": platform.python_version(),
        "machine.torch": torch.__version__,
        "machine.torch_threads": torch.get_num_threads(),
    }
    return facts | ({"machine.gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})
