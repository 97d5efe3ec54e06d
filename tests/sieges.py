"""A stack under siege, for tests of kills: a champion, data that grow, and processes that are killed while a retraining runs."""

import json
import time
import urllib.error
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import numpy as np
import pandas as pd
import psutil
from mlflow.entities import Run
from numpy.typing import NDArray

from tests.growing import OVERRIDES, Growing, sample
from tests.stacks import Stack

MODEL, DEPLOYMENT = "amounts", "retraining/nightly"
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
PATIENCE_SECONDS = 240
PROBE = sample(200, seed=99, slope=1.0).assign(day=pd.Timestamp("2020-06-01"))
SWIFT = [
    *OVERRIDES,
    "retraining.stale.growth=1000",
    "retraining.stale.drift=false",
    "retraining.stale.hardware=false",
    "retraining.seeds=2",
    "retraining.start=scratch",
]
"""Settings under which no retraining but the first one compares."""
Value = TypeVar("Value")


def awaited(look: Callable[[], Value | None], what: str, pause: float = 0.2) -> Value:
    """Return what `look` finds, as soon as it is something true; a server that is away or busy meanwhile is waited for."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if found := look():
                return found
        assert time.monotonic() < until, f"not in {PATIENCE_SECONDS} s: {what}"
        time.sleep(pause)


@dataclass
class Siege:
    """A stack whose champion is retrained on data that grow by a file a time, and what every version predicted when it was made."""

    stack: Stack
    folder: Path

    def __post_init__(self) -> None:
        self.data, self.client = Growing(self.folder), self.stack.client()
        self.made: dict[int, NDArray[np.float64]] = {}
        self.parameters = {"name": MODEL, "data": str(self.folder), "target": "y", "overrides": SWIFT}

    def grow(self) -> None:
        """Add 1,000 rows that follow a lower slope than all before, so that a challenger always wins; only the latest two files stay."""
        self.data.grow(1000, slope=90.0 - 1.5 * self.data.files)
        for old in sorted(self.folder.glob("*.parquet"))[:-2]:
            old.unlink()

    def submit(self, deployment: str = DEPLOYMENT, **parameters: Any) -> str:
        """Ask for a run of the deployment and return its id."""
        place = f"/deployments/{self.deployment(deployment)['id']}/create_flow_run"
        body = {"parameters": {**self.parameters, **parameters}, "state": {"type": "SCHEDULED"}}
        return str(awaited(lambda: self.stack.ask(place, body), "a flow run created")["id"])

    def deployment(self, name: str = DEPLOYMENT) -> dict[str, Any]:
        return dict(awaited(lambda: self.stack.ask(f"/deployments/name/{name}"), f"deployment {name}"))

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        return dict(awaited(lambda: self.stack.ask(f"/flow_runs/{flow_run_id}"), "an answer of the Prefect server"))

    def ended(self, flow_run_id: str) -> dict[str, Any]:
        """Wait for a flow run's end and return it."""
        return awaited(lambda: found if (found := self.flow_run(flow_run_id))["state_type"] in ENDED else None, f"end of {flow_run_id}")

    def completed(self) -> dict[str, Any]:
        """Let a retraining on new rows run to its end, which has to be a good one, and return its flow run."""
        self.grow()
        run = self.ended(self.submit())
        assert run["state_type"] == "COMPLETED", run["state"]
        return run

    def taken_slots(self) -> int:
        """Return how many slots of the deployment are taken."""
        return int(self.deployment()["global_concurrency_limit"]["active_slots"])

    def champion(self) -> int:
        """Return who is champion, after a look at whether it and the one before predict what they did when they were made, bit by bit."""
        aliases = self.client.get_registered_model(MODEL).aliases
        mlflow.set_tracking_uri(self.stack.tracking_uri)
        for number in {int(aliases["champion"]), int(aliases.get("previous", aliases["champion"]))}:
            predicted = mlflow.pyfunc.load_model(f"models:/{MODEL}/{number}").get_raw_model().predict(PROBE)
            assert np.isfinite(predicted).all()
            np.testing.assert_array_equal(predicted, self.made.setdefault(number, predicted))
        by_alias = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion").get_raw_model().predict(PROBE)
        np.testing.assert_array_equal(by_alias, self.made[int(aliases["champion"])])
        return int(aliases["champion"])

    def versions(self) -> int:
        """Return how many versions there are."""
        return max((int(item.version) for item in self.client.search_model_versions(f"name='{MODEL}'")), default=0)

    def runs(self, where: str) -> list[Run]:
        """Return the MLflow runs that fulfil the condition."""
        return list(self.client.search_runs([item.experiment_id for item in self.client.search_experiments()], where))

    def running(self) -> list[str]:
        """Return the MLflow runs that say RUNNING."""
        return [run.info.run_id for run in self.runs("attributes.status = 'RUNNING'")]

    def recorded(self, flow_run_id: str) -> list[Run]:
        """Return the MLflow run of a flow run, where it has got so far."""
        return self.runs(f"tags.`prefect.flow_run_id` = '{flow_run_id}'")

    def holds_its_lease(self, flow_run: dict[str, Any]) -> bool:
        """Whether the server still knows the slot that a flow run holds, so that the flow can go on renewing it."""
        lease = flow_run["state"]["state_details"]["deployment_concurrency_lease_id"]
        try:
            self.stack.ask(f"/v2/concurrency_limits/leases/{lease}/renew", {"lease_duration": 300})
        except urllib.error.HTTPError as error:
            if error.code != 410:
                raise
            return False
        return True

    def process(self, name: str) -> psutil.Process:
        """Return a process in the background: server, worker, mlflow."""
        state = json.loads((Path(self.stack.environment["PREFECT_HOME"]) / f"batchlab-{name}.json").read_text())
        return psutil.Process(state["process"]["pid"])

    def start(self) -> float:
        """Start what is not running and return the seconds that it took."""
        began = time.monotonic()
        options = ["--worker", *(["--postgres"] if self.stack.kind == "postgres" else [])]
        done = self.stack.run("batchlab", "server", "start", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return time.monotonic() - began


def processes_of(flow_run_id: str) -> list[psutil.Process]:
    """Return the processes that run a flow run, whoever is their parent."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("PREFECT__FLOW_RUN_ID") == flow_run_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def killed(*processes: psutil.Process) -> None:
    """Kill with signal 9, in the order given."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
