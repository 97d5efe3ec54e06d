"""What `batchlab doctor` finds: versions, device, store, server, and how to get what is missing."""

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console

from batchlab.engine.device import described
from batchlab.errors import BadInput
from flows import local_server, local_worker, mlflow_server, postgres_server
from tasks import store

PACKAGES = ("torch", "prefect", "mlflow", "pandas", "pyarrow", "scikit-learn", "fastapi", "sqlalchemy")
Finding = tuple[str, bool | None, str]
"""What was looked at, whether it is well (None: optional and absent), and what was found or how to get it."""


def examine(shown_on: Console) -> bool:
    """Print every finding; return whether all that is needed is there."""
    well = True
    for name, fine, found in _findings():
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
    yield _store()
    yield _server()
    yield from _own_servers()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    yield "browser", True if browser else None, browser or "only the browser tests need one: `make test-browser` installs it"


def _device() -> Finding:
    try:
        return "device", True, described()
    except ImportError as error:
        return "device", False, f"torch cannot be imported: {error}"


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
    return "server", server.healthy(), f"{server.ui_url} (process {server.process.pid})"


def _own_servers() -> Iterator[Finding]:
    """Yield what else of `make server` and `make server-postgres` runs."""
    if tracking := mlflow_server.running():
        yield "MLflow server", tracking.healthy(), f"{tracking.url} (process {tracking.process.pid})"
    if database := postgres_server.running():
        yield "PostgreSQL", True, f"{database.place} (process {database.process.pid}), its files in {database.folder}"
    worker = local_worker.running()
    yield "worker", True if worker else None, f"process {worker.pid}" if worker else "none; `make server` starts one"
