"""The whole story of a champion on real servers: made, replaced by schedule and by event, kept, rolled back; on SQLite and PostgreSQL."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tests.growing import OVERRIDES, Growing, sample
from tests.stacks import KINDS, Stack, running_stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
MODEL, PROBE = "amounts", sample(200, seed=99, slope=1.0).assign(day=pd.Timestamp("2020-06-01"))
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
QUICK = {
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_RUNS": "1",
}


class Story:
    """A stack, a folder that grows, and what every version predicted when it was made."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack, self.data = stack, Growing(folder)
        self.client = stack.client()
        self.made: dict[int, NDArray[np.float64]] = {}
        self.parameters = {"name": MODEL, "data": str(folder), "target": "y", "overrides": OVERRIDES}

    def run(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        """Run a deployment to its end and return its flow run."""
        given = [f"{key}={json.dumps(value)}" for key, value in {**self.parameters, **parameters}.items()]
        words = [word for text in given for word in ("--param", text)]
        done = self.stack.run("prefect", "deployment", "run", deployment, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        (created,) = [line.split()[-1] for line in done.stdout.splitlines() if "UUID:" in line]
        return self.ended(created)

    def ended(self, flow_run_id: str) -> dict[str, Any]:
        """Wait for a flow run's end and return it."""
        until = time.monotonic() + 240
        while (found := self.stack.ask(f"/flow_runs/{flow_run_id}"))["state_type"] not in ENDED:
            assert time.monotonic() < until, found
            time.sleep(0.5)
        return dict(found)

    def next_run_of(self, deployment: str, known: set[str]) -> dict[str, Any]:
        """Wait for a run of the deployment that was not known, to its end."""
        flow, name = deployment.split("/")
        until = time.monotonic() + 150
        query = {"flows": {"name": {"any_": [flow]}}, "deployments": {"name": {"any_": [name]}}, "sort": "START_TIME_ASC"}
        while True:
            started = [run for run in self.stack.ask("/flow_runs/filter", query) if run["start_time"] and run["id"] not in known]
            if started:
                return self.ended(started[0]["id"])
            assert time.monotonic() < until, f"no run of {deployment}"
            time.sleep(0.5)

    def known_runs(self) -> set[str]:
        return {run["id"] for run in self.stack.ask("/flow_runs/filter", {}) if run["start_time"]}

    def schedule(self, deployment: str, cron: str) -> str:
        """Schedule a deployment of the story's data, and return the schedule's id."""
        found = self.stack.ask(f"/deployments/name/{deployment}")
        body = [{"active": True, "schedule": {"cron": cron, "timezone": "Europe/Berlin"}, "parameters": self.parameters}]
        (made,) = self.stack.ask(f"/deployments/{found['id']}/schedules", body)
        return f"/deployments/{found['id']}/schedules/{made['id']}"

    def champion(self) -> int:
        """Return who is champion, after a look at whether it predicts what it did when it was made, bit by bit."""
        number = int(self.client.get_model_version_by_alias(MODEL, "champion").version)
        mlflow.set_tracking_uri(self.stack.tracking_uri)
        for version in self.client.search_model_versions(f"name='{MODEL}'"):
            loaded = mlflow.pyfunc.load_model(f"models:/{MODEL}/{version.version}").get_raw_model().predict(PROBE)
            first = self.made.setdefault(int(version.version), loaded)
            np.testing.assert_array_equal(loaded, first)
        by_alias = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion").get_raw_model().predict(PROBE)
        np.testing.assert_array_equal(by_alias, self.made[number])
        return number

    def decision(self) -> dict[str, Any]:
        """Return the latest decision as it was recorded."""
        experiment = self.client.get_experiment_by_name(f"retraining-{MODEL}")
        assert experiment is not None
        (run,) = self.client.search_runs([experiment.experiment_id], "tags.decision != ''", max_results=1)
        mlflow.set_tracking_uri(self.stack.tracking_uri)
        return dict(json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/retraining.json")))

    def running(self) -> list[str]:
        """Return the MLflow runs that say RUNNING."""
        experiments = [item.experiment_id for item in self.client.search_experiments()]
        return [run.info.run_id for run in self.client.search_runs(experiments, "attributes.status = 'RUNNING'")]


@pytest.fixture(params=KINDS)
def story(request: pytest.FixtureRequest, tmp_path: Path, store_template: Path) -> Iterator[Story]:
    with running_stack(request.param, template=store_template, **QUICK) as stack:
        yield Story(stack, tmp_path / "amounts")


def test_the_story_of_a_champion(story: Story) -> None:
    story.data.grow(2000, slope=2.0)
    first = story.run("retraining/nightly")
    assert (first["state_type"], story.champion()) == ("COMPLETED", 1), first["state"]["message"]
    assert first["state"]["message"].startswith("The first champion.")
    assert story.decision()["stale"] == ["there is no champion yet, so a comparison finds what to train with"]

    # New data after which a challenger is better, found by the clock.
    known = story.known_runs()
    story.data.grow(3000, slope=3.0)
    schedule = story.schedule("retraining/nightly", "* * * * *")
    promoted = story.next_run_of("retraining/nightly", known)
    story.stack.ask(schedule, method="DELETE")
    assert promoted["auto_scheduled"]
    assert promoted["parameters"]["name"] == MODEL, promoted
    assert (promoted["state_type"], story.champion()) == ("COMPLETED", 2), promoted["state"]["message"]
    assert promoted["state"]["message"].startswith("The challenger is promoted.")

    # Data whose first half is spoiled make a worse challenger: the latest half, which judges, is not.
    story.data.grow(4000, slope=3.0, spoiled=0.5)
    kept = story.run("retraining/nightly")
    assert (kept["state_type"], story.champion()) == ("COMPLETED", 2), kept["state"]["message"]
    assert "higher" in kept["state"]["message"]
    refused = story.decision()
    assert (refused["outcome"], refused["promotion"]["challenger"], refused["champion"]) == ("kept", 3, 2)
    assert refused["promotion"]["improvement"] < 0

    # Nothing new trains nothing.
    nothing = story.run("retraining/nightly")
    assert (nothing["state_type"], story.champion()) == ("COMPLETED", 2)
    assert nothing["state"]["message"].startswith("Nothing new")
    assert len(story.made) == 3

    # A column that holds something else fails before anything is trained; mended, all goes on.
    broken = story.data.add(sample(500, seed=5, slope=3.0).assign(day=pd.Timestamp("2021-06-01"), x="a word"))
    failed = story.run("retraining/nightly")
    assert (failed["state_type"], story.champion(), len(story.made)) == ("FAILED", 2, 3)
    broken.unlink()

    # Drift starts a comparison before the challenger is trained.
    story.data.grow(2000, slope=3.0, shift=4.0)
    drifted = story.run("retraining/nightly")
    assert drifted["state_type"] == "COMPLETED", drifted["state"]["message"]
    found = story.decision()
    assert found["drift"]["drifted"]
    assert found["comparison_run_id"] is not None
    assert any("the data have drifted" in reason and "'x'" in reason for reason in found["stale"])
    after_drift = story.champion()

    # Files arrive, ingestion sends its event, and the event starts a retraining.
    known = story.known_runs()
    story.data.grow(4000, slope=4.0, shift=4.0)
    ingested = story.run("ingestion/default")
    assert ingested["state_type"] == "COMPLETED", ingested["state"]["message"]
    started = story.next_run_of("retraining/on-new-data", known)
    assert started["state_type"] == "COMPLETED", started["state"]["message"]
    assert started["parameters"]["data"] == str(story.data.folder)
    promoted_again = story.champion()
    assert promoted_again > after_drift

    # An update continues the champion on the new rows.
    story.data.grow(2000, slope=3.0, shift=4.0)
    updated = story.run("retraining/update")
    assert updated["state_type"] == "COMPLETED", updated["state"]["message"]
    update = story.decision()
    assert (update["mode"], update["start"]) == ("update", "warm")
    assert any(guard["name"] == "forgetting" for guard in update["promotion"]["guards"]), updated["state"]["message"]
    story.champion()

    # Back to the champion before, bit by bit; and forward again by hand.
    now, previous = story.champion(), int(story.client.get_model_version_by_alias(MODEL, "previous").version)
    back = story.stack.run("batchlab", "champion", "rollback", "--reason", "the amounts were wrong")
    assert back.returncode == 0, back.stderr
    assert story.champion() == previous
    again = story.stack.run("batchlab", "champion", "promote", str(now))
    assert again.returncode == 0, again.stderr
    assert story.champion() == now
    history = story.stack.run("batchlab", "champion", "history").stdout
    assert [word for word in ("first", "promoted", "kept", "rollback", "by_hand") if word not in history] == []
    assert "the amounts were wrong" in history
    assert story.running() == []
