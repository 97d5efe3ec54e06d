"""Shared by all tests: a Prefect home and an MLflow store of their own, set before anything is imported."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("shared machine", deadline=None, derandomize=True)
settings.load_profile("shared machine")

SCRATCH = Path(tempfile.mkdtemp(prefix="batchlab-tests-"))
for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_", "BATCHLAB_"))]:
    del os.environ[name]
os.environ["PREFECT_HOME"] = str(SCRATCH / "prefect")
os.environ["BATCHLAB_MLRUNS"] = str(SCRATCH / "mlruns")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"

from batchlab.config import load_profile  # noqa: E402
from batchlab.experiment import Experiment  # noqa: E402
from batchlab.rows.split import split  # noqa: E402
from batchlab.search.findings import Findings  # noqa: E402
from batchlab.search.search import Search  # noqa: E402
from batchlab.table import pack  # noqa: E402
from flows import local_server, local_worker  # noqa: E402

CHECKOUT = Path(__file__).resolve().parent.parent


def pytest_sessionfinish() -> None:
    local_worker.stopped()
    local_server.stopped()
    shutil.rmtree(SCRATCH, ignore_errors=True)


@pytest.fixture(autouse=True)
def own_addresses() -> Iterator[None]:
    """Let no test choose the servers of the next one: MLflow and our commands leave their addresses in the environment."""
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL")}
    yield
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def server() -> local_server.LocalServer:
    """The local Prefect server of this test session: real, on loopback, stopped when the session ends."""
    started = local_server.started()
    started.wait()
    return started


@pytest.fixture(scope="session")
def store_template() -> Path:
    """A store with an empty database, to be copied: making one takes seconds."""
    from tasks import store

    folder = SCRATCH / "template"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BATCHLAB_MLRUNS", str(folder))
        store.client.cache_clear()
        store.client()
    store.client.cache_clear()
    return folder


@pytest.fixture
def mlruns(store_template: Path, tmp_path: Path) -> Path:
    """An empty store of the test's own."""
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(store_template / "mlflow.db", folder)
    return folder


SMALL = (
    "search.optimizers=sgd",
    "search.rates=3",
    "search.tuning_seeds=2",
    "search.seeds=2",
    "search.timings=4",
    "search.yardsticks=false",
)
"""Overrides that make a search small, where a test asks for something else than its verdict."""
QUICKLY = [word for override in SMALL for word in ("--set", override)]

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Commands:
    """The command line as a user runs it: a process in a folder, on a store; both are the caller's."""

    folder: Path
    mlruns: Path

    def __call__(self, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "BATCHLAB_MLRUNS": str(self.mlruns), **environment}
        command = [command_path(), *map(str, arguments)]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def batchlab(server: local_server.LocalServer, mlruns: Path, tmp_path: Path) -> Command:
    """The command line in a folder of its own, on the session's server and the test's store."""
    return Commands(tmp_path, mlruns)


TOLD_IMPORTS = {"PYTHONPROFILEIMPORTTIME": "1"}
"""With this in its environment a command, and every Python that it runs, says what it imports."""


def imported(done: "subprocess.CompletedProcess[str]") -> set[str]:
    """Return the modules that a command imported which was run with TOLD_IMPORTS."""
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def complaints(done: "subprocess.CompletedProcess[str]") -> int:
    """Return how many lines of complaint a command ended with; on a slow machine lines of progress come before."""
    lines = done.stderr.splitlines()
    return len(lines) - next((number for number, line in enumerate(lines) if line.startswith(("error:", "failed:"))), len(lines))


def command_path() -> str:
    """Return the installed `batchlab` of the interpreter that runs the tests."""
    return str(Path(sys.executable).with_name("batchlab"))


@pytest.fixture(scope="session")
def tables() -> Path:
    return SCRATCH / "tables"


@pytest.fixture
def experiment(tables: Path) -> Callable[..., Experiment]:
    """Make an experiment in the library alone, from a profile and overrides."""

    def make(profile: str = "quick", **choices: object) -> Experiment:
        settings = load_profile(profile, **choices)  # type: ignore[arg-type]
        table = pack(settings.source, settings.named_columns(), tables, settings.seed)
        made = Experiment(settings, table, split(table, settings.split, settings.seed))
        made.check()
        return made

    return make


@pytest.fixture(scope="session")
def searched(tables: Path) -> Search:
    """A search that has ended: a real one, small, whose knowledge tests may change (tests/verdicts.py)."""
    from tests import verdicts

    return verdicts.searched(tables)


@pytest.fixture(scope="session")
def found(searched: Search) -> Findings:
    """What that search found."""
    return searched.findings


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is also the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
