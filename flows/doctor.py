"""What `batchlab doctor` finds: versions, device, store, server and what that costs, and how to get what is missing."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

import psutil
from rich.console import Console

from batchlab.allowance import Allowance, free_bytes, memory_limit
from batchlab.cluster.nodes import LOUD_SKEW_SECONDS, facts, looked_at
from batchlab.errors import BadInput
from flows import local_server, local_worker, mlflow_server, postgres_server
from flows.background import Process
from tasks import store

PACKAGES = ("torch", "prefect", "mlflow", "pandas", "pyarrow", "scikit-learn", "fastapi", "sqlalchemy")
BUILDS = {"cuda": "CUDA", "hip": "ROCm"}
Finding = tuple[str, bool | None, str]
"""What was looked at, whether it is well (None: optional and absent), and what was found or how to get it."""


def examine(shown_on: Console, cluster: str | None = None) -> bool:
    """Print every finding, those on a Ray cluster at an address too; return whether all that is needed is there."""
    well = True
    for name, fine, found in chain(_findings(), () if cluster is None else _nodes(cluster)):
        mark = {True: "[green]ok[/]", False: "[red]missing[/]", None: "[yellow]optional[/]"}[fine]
        shown_on.print(f"{mark:>18}  {name:<14} {found}")
        well = well and fine is not False
    return well


def _findings() -> Iterator[Finding]:
    for package in PACKAGES:
        try:
            yield package, True, version(package)
        except PackageNotFoundError:
            yield package, False, "run `make setup`"
    yield _device()
    yield _memory()
    yield _store()
    yield _server()
    yield from _own_servers()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    yield "browser", True if browser else None, browser or "only the browser tests need one: `make test-browser` installs it"


def _nodes(address: str) -> Iterator[Finding]:
    """Tell what each node of a Ray cluster has, what differs from this machine's, and how its clock goes."""
    here = facts()
    for node in looked_at(address):
        differing, has = node.differences(here), f"{node.address}: {node.cores} cores, {node.gpus} GPUs"
        kind = "" if node.facts is None else f", {node.facts.processor}"
        clock = f"; its clock is {node.ahead:+.0f} s off" if abs(node.ahead) > LOUD_SKEW_SECONDS else ""
        yield "node", not differing, f"{has}{kind}{clock}{': ' if differing else ''}{'; '.join(differing)}"


def _device() -> Finding:
    """Tell the device without torch, whose import alone takes longer than all else that is looked at."""
    cores, spec = f"{os.cpu_count()} cores", importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "device", False, "torch is not there: run `make setup`"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "device", True, f"{cores}, mps"
    built_for, cards = _built_for(Path(spec.origin).with_name("version.py")), _cards()
    if built_for is None:
        unused = f"; {', '.join(cards)} cannot be used: install torch for CUDA" if cards else ""
        return "device", None if cards else True, f"{cores}, no accelerator (this torch is for CPUs){unused}"
    found = ", ".join(cards) or "no accelerator that nvidia-smi knows"
    return "device", True, f"{cores}, {found} (torch for {built_for}; whether the driver fits, the first training tells)"


def _memory() -> Finding:
    """Tell what a comparison may take by default, of what is free now and within which limit."""
    free, limit, allowed = free_bytes(), memory_limit(), Allowance.of(None)
    by = "this machine's" if limit >= psutil.virtual_memory().total else "its control group's"
    rows = f"rows that would take more than {allowed.rows_bytes / 2**30:.2g} GiB stay in files"
    return (
        "memory",
        True,
        f"{free / 2**30:.3g} of {by} {limit / 2**30:.3g} GiB free: a comparison takes {allowed.text}; {rows} (memory_gib)",
    )


def _built_for(version_file: Path) -> str | None:
    """Return what accelerators torch was built for, as its own file of versions says."""
    with suppress(OSError):
        built = dict(re.findall(r"^(cuda|hip)\b[^=]*=\s*'([^']+)'", version_file.read_text(), re.MULTILINE))
        return " and ".join(f"{BUILDS[key]} {value}" for key, value in built.items()) or None
    return None


def _cards() -> list[str]:
    """Return the names of the NVIDIA cards that the driver lists."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        asked = [command, "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _store() -> Finding:
    try:
        store.check_ready()
    except BadInput as error:
        return "store", False, str(error)
    database, free = store.database(), shutil.disk_usage(store.folder()).free
    if database is None:
        return "store", True, f"{store.tracking_uri()} answers; packed tables in {store.folder()} ({free / 1e9:.0f} GB free)"
    size = f"{_size(database)} database" if database.exists() else "empty; the first comparison makes its database"
    return "store", True, f"{store.folder()} ({size}, {free / 1e9:.0f} GB free)"


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def _server() -> Finding:
    url = local_server.configured_url()
    if url is not None:
        fine = local_server.answers(url)
        return "server", fine, f"configured: {url} {'answers' if fine else 'does not answer; start it, or unset PREFECT_API_URL'}"
    server = local_server.running()
    if server is None:
        return "server", None, "none runs; the next comparison starts one in the background"
    cost = f"; {_cost(server.process)}; `batchlab server stop` ends it"
    return "server", server.healthy(), f"{server.ui_url} (process {server.process.pid}){cost}"


def _cost(process: Process) -> str:
    """Say what a process in the background has taken, those that it started included."""
    taken = 0.0
    with suppress(psutil.Error):
        family = psutil.Process(process.pid)
        for member in (family, *family.children(recursive=True)):
            with suppress(psutil.Error):
                times = member.cpu_times()
                taken += times.user + times.system
    lived = max(time.time() - process.created, 1.0)
    return f"{taken:.0f} s of a core in {timedelta(seconds=round(lived))}, {taken / lived:.1%}, its start included"


def _own_servers() -> Iterator[Finding]:
    """Yield what else of `make server` and `make server-postgres` runs."""
    if tracking := mlflow_server.running():
        yield "MLflow server", tracking.healthy(), f"{tracking.url} (process {tracking.process.pid})"
    if database := postgres_server.running():
        yield "PostgreSQL", True, f"{database.place} (process {database.process.pid}), its files in {database.folder}"
    worker = local_worker.running()
    yield "worker", True if worker else None, f"process {worker.pid}; {_cost(worker)}" if worker else "none; `make server` starts one"
