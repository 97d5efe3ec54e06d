"""The champion behind `mlflow models serve`, for real on loopback: the numbers of this process, and errors that name the column."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.local_server import QUIET
from tests.test_messy import houses
from tests.test_predict import registered, store_of

pytestmark = pytest.mark.slow
STARTING_SECONDS = 180
TARGETS = ("price", "band")


@pytest.fixture(scope="module")
def served(store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, Any]]]:
    """The address of each model's server, and the model as this process has it."""
    from tasks import registry, serving, store

    folder = tmp_path_factory.mktemp("served")
    (folder / "mlruns").mkdir()
    (folder / "mlruns" / "mlflow.db").write_bytes((store_template / "mlflow.db").read_bytes())
    servers: list[subprocess.Popen[bytes]] = []
    found = {}
    try:
        with store_of(folder / "mlruns"):
            for target in TARGETS:
                (folder / target).mkdir()
                name = f"houses-{target}"
                registered(folder / target, name, target)
                port = free_port()
                servers.append(started(name, store.tracking_uri(), port, folder / f"{target}.log"))
                found[target] = (f"http://127.0.0.1:{port}", serving.saved_model(registry.version_of(name)).served)
        for number, target in enumerate(TARGETS):
            wait(found[target][0], servers[number], folder / f"{target}.log")
        yield found
    finally:
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def started(name: str, tracking_uri: str, port: int, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"models:/{name}@champion", "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts what it finds as uvicorn
    environment = {**os.environ, **QUIET, "PATH": path, "MLFLOW_TRACKING_URI": tracking_uri}
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + STARTING_SECONDS
    while server.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(f"{url}/ping", timeout=5)
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(log.read_text())


def asked(url: str, frame: pd.DataFrame) -> tuple[int, Any]:
    """Send rows as JSON; return the status and the answer."""
    values = [[None if pd.isna(value) else value for value in row] for row in frame.astype(object).to_numpy().tolist()]
    split = {"columns": list(frame.columns), "data": values}
    body = json.dumps({"dataframe_split": split}, default=lambda date: date.isoformat()).encode()
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def rows() -> pd.DataFrame:
    """Rows with gaps in every column that had some in training, and cities that training never saw."""
    frame = houses(200).drop(columns=["price", "band"])
    frame.loc[:3, "city"] = ["Paris", "Atlantis", "", "NA"]
    frame.loc[4:6, "size"] = [np.nan, 1e6, -5]
    return frame


@pytest.mark.parametrize("target", TARGETS)
def test_a_json_request_is_answered_with_the_numbers_of_this_process(served: dict[str, tuple[str, Any]], target: str) -> None:
    (url, model), frame = served[target], rows()
    assert frame.isna().any().sum() >= 3
    expected = model.predict(frame)
    assert expected.shape == (200, {"price": 1, "band": 3}[target])
    assert expected.std(axis=0).min() > 1e-3
    for given in (frame, frame[["sold", "city", "garden", "size", "rooms"]], frame.iloc[:1], frame.assign(unasked="for")):
        status, answer = asked(url, given)
        assert status == 200, answer
        np.testing.assert_allclose(answer["predictions"], expected[: len(given)], rtol=1e-9, atol=1e-9)


UNFIT = {
    "Model is missing inputs ['city']": lambda frame: frame.drop(columns="city"),
    "column 'size' holds 200 values that are not a number: 'large', 'large', 'large' (row 0 first)": lambda frame: frame.assign(
        size="large"
    ),
    "column 'sold' holds 200 values that are not a date": lambda frame: frame.assign(sold="soon"),
    "column 'garden' holds 200 values that are not true or false: 7, 7, 7": lambda frame: frame.assign(garden=7),
}


@pytest.mark.parametrize("reason", UNFIT)
def test_a_request_that_does_not_fit_is_a_400_that_names_the_column(served: dict[str, tuple[str, Any]], reason: str) -> None:
    status, answer = asked(served["price"][0], UNFIT[reason](rows()))
    assert status == 400
    assert reason in answer
