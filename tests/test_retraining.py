"""`batchlab retrain`, `update` and `champion`, as a user runs them."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from batchlab.errors import BadInput
from flows import champion_commands
from flows.local_server import LocalServer
from tasks import store
from tests.conftest import TOLD_IMPORTS, Command, command_path, imported
from tests.growing import OVERRIDES, Growing, sample

PROBE = sample(50, seed=3, slope=1.0).assign(day=pd.Timestamp("2020-06-01"))


def test_a_champion_is_made_replaced_by_a_better_one_kept_and_rolled_back(
    batchlab: Command, server: LocalServer, champion: Callable[..., str], mlruns: Path, tmp_path: Path
) -> None:
    data = Growing(tmp_path / "amounts")
    common = ["--data", "amounts", "--target", "y", *(word for key in OVERRIDES for word in ("--set", key))]
    data.grow(2000, slope=2.0)

    none = batchlab("update", *common)
    assert (none.returncode, none.stderr) == (
        2,
        "error: model 'amounts-y' has no champion to update; run mode 'retrain' first, which makes one.\n",
    )

    first = batchlab("retrain", *common, "--json", "first.json")
    assert first.returncode == 0, first.stderr
    assert "The first champion." in first.stdout
    assert "champion of 'amounts-y': version 1" in first.stdout
    assert json.loads((tmp_path / "first.json").read_text())["outcome"] == "first"
    client = MlflowClient(f"sqlite:///{mlruns / 'mlflow.db'}")
    before, recommended = predictions(mlruns), setting_in(champion("show"))

    looks = len(flow_runs(server, "Completed", "Nothing new: amounts is what it was"))
    for words, more in (("champion show", []), ("retrain", common), ("retrain", [*common, "--no-server"])):
        lean = batchlab(*words.split(), *more, **TOLD_IMPORTS)
        assert lean.returncode == 0, lean.stderr
        assert imported(lean) & {"mlflow", "torch", "sklearn", "scipy.stats", "matplotlib"} == {"mlflow"}
        assert ("prefect" in imported(lean)) == (more == common)
        assert words != "retrain" or "Nothing new: amounts is what it was at the last decision, 2,000 rows." in lean.stdout
    assert len(flow_runs(server, "Completed", "Nothing new: amounts is what it was")) == looks + 1

    data.grow(2000, slope=4.0)
    better = batchlab("update", *common, "--set", "retraining.gate.largest_forgetting=9", "--json", "better.json")
    assert better.returncode == 0, better.stderr
    result = json.loads((tmp_path / "better.json").read_text())
    assert (result["outcome"], result["champion"], result["fresh_rows"], result["start"]) == ("promoted", 2, 2000, "warm")
    assert {guard["name"] for guard in result["promotion"]["guards"]} >= {"finite", "slices", "forgetting", "latency", "size", "drift"}
    assert not np.array_equal(predictions(mlruns), before)
    kept_with_it = {item.path for item in client.list_artifacts(result["mlflow_run_id"])}
    assert kept_with_it >= {"retraining.html", "promotion.json", "report.md"}

    shown = champion("show")
    assert "version 2" in shown
    assert setting_in(shown) == recommended
    back = champion("rollback", "--reason", "wrong amounts")
    assert back == "Version 1 of 'amounts-y' is champion now, before it was version 2: wrong amounts\n"
    np.testing.assert_array_equal(predictions(mlruns), before)
    history = champion("history")
    assert [word for word in ("first", "promoted", "rollback", "wrong amounts") if word not in history] == []
    with pytest.raises(BadInput, match="has no version '9'; its versions are 1, 2"):
        champion("promote", "9")
    experiments = [item.experiment_id for item in client.search_experiments()]
    assert {run.info.status for run in client.search_runs(experiments)} == {"FINISHED"}


@pytest.fixture
def champion(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`batchlab champion` on the test's store, in this process: starting one takes seconds."""
    monkeypatch.setenv("BATCHLAB_MLRUNS", str(mlruns))
    store.client.cache_clear()

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(champion_commands.app, arguments)
        if done.exception is not None:
            raise done.exception
        return done.stdout

    yield run
    store.client.cache_clear()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_retraining_that_is_killed_after_its_comparison_goes_on_with_it(batchlab: Command, mlruns: Path, tmp_path: Path) -> None:
    Growing(tmp_path / "amounts").grow(2000, slope=2.0)
    common = ["retrain", "--data", "amounts", "--target", "y", *(word for key in OVERRIDES for word in ("--set", key))]
    environment = {**os.environ, "BATCHLAB_MLRUNS": str(mlruns)}
    begun = subprocess.Popen([command_path(), *common], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((mlruns / "unfinished").glob("retraining-*/comparison.json")):
        assert begun.poll() is None, "it came to its end before it could be killed"
        time.sleep(0.02)
    begun.kill()
    begun.wait()
    again = batchlab(*common)
    assert again.returncode == 0, again.stderr
    assert "taking up a retraining of the same rows" in " ".join(again.stderr.split())
    assert "The first champion." in again.stdout
    client = MlflowClient(f"sqlite:///{mlruns / 'mlflow.db'}")
    runs = client.search_runs([item.experiment_id for item in client.search_experiments()])
    kinds = sorted((run.data.tags.get("batchlab.kind", ""), run.info.status) for run in runs if "batchlab.kind" in run.data.tags)
    assert [status for kind, status in kinds if kind == "comparison"] == ["FINISHED"]
    assert sorted(status for kind, status in kinds if kind == "retraining") == ["FINISHED", "KILLED"]
    assert not list((mlruns / "unfinished").iterdir())


def flow_runs(server: LocalServer, state: str, text: str) -> list[str]:
    """Return the latest flow runs on the server in this state that say so."""
    asked = {"flow_runs": {"state": {"name": {"any_": [state]}}}, "sort": "START_TIME_DESC"}
    runs = httpx.post(f"{server.api_url}/flow_runs/filter", json=asked, timeout=30).json()
    return [run["id"] for run in runs if text in (run["state"]["message"] or "")]


def setting_in(shown: str) -> str:
    """Return the setting that the champion was trained with, as it is shown."""
    (line,) = [line for line in shown.splitlines() if line.startswith("trained with")]
    return line.strip()


def predictions(mlruns: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Return what the champion predicts for the probe."""
    mlflow.set_tracking_uri(f"sqlite:///{mlruns / 'mlflow.db'}")
    found = mlflow.pyfunc.load_model("models:/amounts-y@champion").get_raw_model().predict(PROBE)
    return np.asarray(found)
