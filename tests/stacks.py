"""A whole stack for tests: Prefect server, MLflow store and worker in folders of their own, on SQLite or on PostgreSQL."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from batchlab.errors import BadInput
from flows.postgres_cluster import Cluster
from tests.conftest import CHECKOUT

KINDS = [pytest.param("sqlite"), pytest.param("postgres")]
"""For `pytest.mark.parametrize("stack", KINDS, indirect=True, scope="module")` and fixtures with `params=KINDS`."""


@dataclass(frozen=True)
class Stack:
    """Servers that run, and what a process needs to use them."""

    kind: str
    environment: dict[str, str]

    @property
    def api_url(self) -> str:
        """The address of the Prefect server's API."""
        return self.environment["PREFECT_API_URL"]

    @property
    def mlruns(self) -> Path:
        """The store's folder: tables; on SQLite also runs and artifacts."""
        return Path(self.environment["BATCHLAB_MLRUNS"])

    @property
    def tracking_uri(self) -> str:
        """The address of the MLflow store."""
        return self.environment.get("MLFLOW_TRACKING_URI", f"sqlite:///{self.mlruns / 'mlflow.db'}")

    def client(self) -> MlflowClient:
        """Return a client of the MLflow store; MLflow reads the user and the password from this process's environment, so they go there."""
        os.environ.update({key: value for key, value in self.environment.items() if key in CREDENTIALS})
        return MlflowClient(self.tracking_uri)

    def run(self, program: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a program of the tests' interpreter in the checkout, as a user of the stack; its exit code is for the caller to judge."""
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        env = {**self.environment, **environment}
        return subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True, timeout=280, check=False)

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Return what Prefect's API answers at `path`: to a POST where there is a body, else to a GET, unless the `method` is given."""
        headers = {"Content-Type": "application/json"}
        if password := self.environment.get("PREFECT_API_AUTH_STRING"):
            headers["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api_url}{path}", data, headers, method=method)
        for tries_left in reversed(range(10)):
            try:
                with urllib.request.urlopen(request, timeout=30) as reply:
                    return json.loads(reply.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != 503 or not tries_left:
                    raise
                time.sleep(1)  # SQLite is locked for a moment: Prefect's own client asks again, too
        raise AssertionError("the last try returns or raises")


CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@contextmanager
def running_stack(kind: str, *, worker: bool = True, template: Path | None = None, **settings: str) -> Iterator[Stack]:
    """Start a whole stack of the `kind` "sqlite" or "postgres", and stop and remove all of it at the end.

    `template` is a store whose migrated database is copied, which saves seconds on SQLite. `settings` are environment variables of the
    servers, the worker and its flow runs, e.g. PREFECT_WORKER_QUERY_SECONDS="1". Skips the test where PostgreSQL is not installed.
    """
    folder = Path(tempfile.mkdtemp(prefix="batchlab-stack-"))
    folder.chmod(0o755)  # PostgreSQL runs as nobody where root runs the tests
    own = {"PREFECT_HOME": str(folder / "prefect"), "BATCHLAB_MLRUNS": str(folder / "mlruns"), **settings}
    stack = Stack(kind, {**os.environ, **own})
    (folder / "mlruns").mkdir()
    try:
        if kind == "postgres":
            _skip_without_postgres(folder)
        elif template is not None:
            shutil.copy(template / "mlflow.db", folder / "mlruns")
        options = [*(["--worker"] if worker else []), *(["--postgres"] if kind == "postgres" else [])]
        done = stack.run("batchlab", "server", "start", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Stack(kind, stack.environment | exported(stack.run("batchlab", "server", "env").stdout))
    finally:
        for name in CREDENTIALS:
            os.environ.pop(name, None)
        stopped = stack.run("batchlab", "server", "stop")
        shutil.rmtree(folder, ignore_errors=True)
    assert stopped.returncode == 0, stopped.stderr


def exported(lines: str) -> dict[str, str]:
    """Return the variables that lines of `export NAME=VALUE` set; no value of ours needs a shell to be read."""
    return dict(line.removeprefix("export ").split("=", 1) for line in lines.splitlines())


def _skip_without_postgres(folder: Path) -> None:
    try:
        Cluster(folder).binary("initdb")
    except BadInput as missing:
        pytest.skip(str(missing))
