"""The command line as a user runs it: a process, a real Prefect server, a real store."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.search.known import Known
from batchlab.search.saving import load
from flows import cli, local_server, temporary_server
from flows.local_server import LocalServer
from tasks import opening
from tests.conftest import QUICKLY, Command, Commands, command_path, complaints
from tests.terminals import Watched


def opened(mlruns: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{mlruns / 'mlflow.db'}")


def statuses(mlruns: Path) -> dict[str, str]:
    client = opened(mlruns)
    runs = client.search_runs([item.experiment_id for item in client.search_experiments()])
    return {run.info.run_name: run.info.status for run in runs}


def table_file(folder: Path, rows: int, columns: int, suffix: str) -> Path:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(rows, columns)), columns=[f"x{number}" for number in range(columns)])
    frame["count"] = rng.integers(0, 50, rows)
    frame["y"] = frame.to_numpy() @ rng.normal(size=columns + 1) + rng.normal(size=rows)
    path = folder / f"rows{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    return path


def test_help_lists_the_commands() -> None:
    done = subprocess.run([command_path(), "--help"], capture_output=True, text=True, check=True)
    assert all(command in done.stdout for command in ("compare", "ui", "doctor", "server"))


@dataclass(frozen=True)
class Compared:
    """A comparison at the command line that has ended: the rows that it was given, what it printed and wrote, and its store."""

    folder: Path
    rows: Path
    mlruns: Path
    printed: str
    result: dict[str, Any]


@pytest.fixture(scope="module")
def compared(server: LocalServer, store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """All strategies of the lesson on rows of a file."""
    folder = tmp_path_factory.mktemp("compared")
    mlruns, rows = folder / "mlruns", table_file(folder, 200, 3, ".parquet")
    mlruns.mkdir()
    shutil.copy(store_template / "mlflow.db", mlruns)
    given = ["--profile", "lesson", "--data", rows, "--target", "y", "--set", "split.kind=random", "--set", "train.epochs=100", *QUICKLY]
    done = Commands(folder, mlruns)("compare", *given, "--json", "result.json")
    assert done.returncode == 0, done.stderr
    return Compared(folder, rows, mlruns, done.stdout, json.loads((folder / "result.json").read_text()))


def test_a_comparison_prints_its_verdict_writes_its_json_and_records_every_setting(compared: Compared) -> None:
    result, client = compared.result, opened(compared.mlruns)
    facts, verdict, strategies = result["comparison"], result["verdict"], result["strategies"]
    assert all(" ".join(line.split()) in " ".join(compared.printed.split()) for line in verdict["text"].splitlines())
    assert max(map(len, compared.printed.splitlines())) <= 80
    assert not (compared.folder / "mlflow.db").exists()  # MLflow's own choice of a place
    names = dict.fromkeys(item["name"] for item in strategies)
    assert list(names) == ["full_batch", "accumulated", "mini_batch", "stochastic", "data_loader", "growing"]
    assert {item["batch_rows"] for item in strategies if item["name"] == "mini_batch"} == {5, 10, 25, 50}
    assert (facts["rows"], facts["task"], facts["device"]) == ({"train": 140, "validation": 30, "test": 30}, "regression", "cpu")
    assert facts["prefect_flow_run_id"]
    _check_verdict(verdict, [*strategies, *result["typed"]])
    _check_parent(client, result)
    for item in [*strategies, *result["typed"]]:
        _check_child(client, item, facts)


def _check_verdict(verdict: dict[str, Any], items: list[dict[str, Any]]) -> None:
    (best,) = [item for item in items if item["recommended"]]
    named = {"strategy": "name", "batch_rows": "batch_rows", "optimizer": "optimizer", "learning_rate": "learning_rate"}
    assert {key: verdict[key] for key in named} == {key: best[name] for key, name in named.items()}
    assert (verdict["objective"], verdict["margin"], verdict["left_out"]) == ("best", 0.01, [])
    assert verdict["value"] == verdict["loss"] == pytest.approx(best["mean_validation_loss"])
    assert verdict["ci"] == verdict["loss_ci"]
    assert verdict["loss_ci"][0] <= verdict["loss"] <= verdict["loss_ci"][1]
    _check_losses(verdict, items)
    _check_costs(verdict, best)
    assert verdict["runner_up"] in {item["label"] for item in items} - {best["label"]}
    low, high = verdict["ratio_ci"]
    assert verdict["detectable"] is not (low <= 1 and (high is None or high >= 1))
    for item in items:
        assert (item["steps_to_target"] is not None) is (item["status"] == "reached"), item["label"]
        assert item["status"] in ("diverged", "behind") or item["peak_bytes"] > 400  # the rows alone


def _check_losses(verdict: dict[str, Any], items: list[dict[str, Any]]) -> None:
    """Hold that the best loss is the lowest of those trained to the end, and that nothing far above it is as good or recommended."""
    losses = {item["label"]: item["mean_validation_loss"] for item in items if item["status"] in ("reached", "not_reached")}
    most = verdict["best_loss"] * (1 + verdict["margin"])
    assert verdict["best_loss"] == pytest.approx(min(losses.values()))
    assert verdict["loss"] <= most
    assert all(losses[label] <= most for label in verdict["as_good"])
    assert verdict["target_loss"] == pytest.approx(most)


def _check_costs(verdict: dict[str, Any], best: dict[str, Any]) -> None:
    assert verdict["seconds_to_target"] == pytest.approx(best["seconds_to_target"])
    assert verdict["seconds_to_target"] == pytest.approx(best["steps_to_target"] * best["seconds_per_step"])
    assert verdict["rows"] == verdict["settings"]["train"]["max_rows"] > 0


def _check_parent(client: MlflowClient, result: dict[str, Any]) -> None:
    facts, verdict = result["comparison"], result["verdict"]
    run = client.get_run(facts["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.experiment_id == facts["mlflow_experiment_id"]
    resolved = {key: run.data.params[key] for key in ("train.epochs", "task", "target", "device", "train.loss")}
    assert resolved == {"train.epochs": "100", "task": "regression", "target": "y", "device": "cpu", "train.loss": "mse"}
    assert run.data.params["split_digest"] == facts["split_digest"]
    assert (run.data.params["verdict.strategy"], run.data.metrics["verdict_value"]) == (
        verdict["strategy"],
        pytest.approx(verdict["value"]),
    )
    assert (run.data.params["verdict.optimizer"], run.data.params["verdict.rows"]) == (verdict["optimizer"], str(verdict["rows"]))
    recorded = {key: run.data.metrics[f"verdict_{key}"] for key in ("loss", "best_loss", "test_loss")}
    assert recorded == pytest.approx({key: verdict[key] for key in recorded})
    assert run.data.metrics["search/trainings"] == verdict["trainings"]
    chosen = f"{verdict['strategy']} {verdict['batch_rows']}, {verdict['optimizer']} {verdict['learning_rate']:g}"
    assert run.info.run_name == f"rows: {chosen}, loss {verdict['loss']:.4g}"
    assert run.data.tags["prefect.flow_run_id"] == facts["prefect_flow_run_id"]
    assert verdict["text"].splitlines()[0] in run.data.tags["mlflow.note.content"]
    files = {"comparison.json", "data.html", "report.md", "plots", "trials.parquet", "verdict.html", "verdict.json"}
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == files
    assert {item.path for item in client.list_artifacts(run.info.run_id, "plots")} == {"plots/data.png", "plots/verdict.png"}
    trials = pd.read_parquet(client.download_artifacts(run.info.run_id, "trials.parquet"))
    setting = ["strategy", "batch_rows", "optimizer", "learning_rate", "typed"]
    assert (trials[trials.phase == "confirming"].groupby(setting, dropna=False).size() == 4).all()
    assert set(trials.phase) == {"race", "confirming"}
    assert len(trials) <= verdict["trainings"]
    assert run.inputs.dataset_inputs[0].dataset.name == "rows"


def _check_child(client: MlflowClient, item: dict[str, Any], facts: dict[str, Any]) -> None:
    run = client.get_run(item["mlflow_run_id"])
    assert (run.info.status, run.data.tags["mlflow.parentRunId"]) == ("FINISHED", facts["mlflow_run_id"])
    assert run.info.run_name == item["label"]
    assert (run.data.params["batch_rows"], run.data.params["optimizer"]) == (str(item["batch_rows"]), item["optimizer"])
    losses = ("train_loss", "validation_loss", "interval/validation_loss_low", "interval/validation_loss_high")
    curves = (*losses, "x_axis/epoch", "x_axis/rows_seen", "x_axis/wall_seconds")
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in curves}
    assert all([point.step for point in history] == [point.step for point in histories["train_loss"]] for history in histories.values())
    assert histories["x_axis/rows_seen"][-1].value == item["rows_seen"]
    ends = zip(*(histories[name] for name in (losses[2], losses[1], losses[3])), strict=True)
    assert all(low.value <= middle.value * 1.000001 and middle.value <= high.value * 1.000001 for low, middle, high in ends)
    assert run.data.metrics["test_rmse"] == pytest.approx(item["metrics"]["rmse"])
    named = {"noise/noise_scale": "noise_scale", "compare/peak_mib": "peak_bytes"}
    named |= {f"compare/{name}": name for name in ("mean_validation_loss", "mean_test_loss", "seconds_per_step")}
    expected = {name: item[key] for name, key in named.items()}
    expected["compare/peak_mib"] = None if item["peak_bytes"] is None else item["peak_bytes"] / 2**20
    assert {name: run.data.metrics.get(name) for name in named} == pytest.approx(expected)
    assert ("plots" in {entry.path for entry in client.list_artifacts(run.info.run_id)}) is item["recommended"]


def test_every_saved_model_predicts_from_raw_columns_in_a_process_that_knows_no_batchlab(compared: Compared, tmp_path: Path) -> None:
    result, mlruns, path = compared.result, compared.mlruns, compared.rows
    items = [item for item in (*result["strategies"], *result["typed"]) if item["train_loss"] is not None]
    assert len(items) > 2
    code = """
import json, sys, mlflow, pandas as pd
sys.modules["batchlab"] = None  # importing it would fail
mlflow.set_tracking_uri(sys.argv[1])
rows, outputs = pd.read_parquet(sys.argv[2]), {}
for run in sys.argv[4:]:
    model = mlflow.pyfunc.load_model(f"runs:/{run}/model")
    shuffled = rows[["count", "x2", "y", "x0", "x1"]]
    outputs[run] = model.predict(shuffled)[:, 0]
    whole = model.predict(rows.astype({"count": float}))  # integers or floats, as new data happens to come
    assert (whole[:, 0] == outputs[run]).all()
pd.DataFrame(outputs).to_csv(sys.argv[3], index=False)
try:
    model.predict(rows.drop(columns="x1"))
except Exception as error:
    print(error)
"""
    runs = [item["mlflow_run_id"] for item in items]
    arguments = [f"sqlite:///{mlruns / 'mlflow.db'}", str(path), str(tmp_path / "predicted.csv"), *runs]
    fresh = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "x1" in fresh.stdout
    rows, outputs = pd.read_parquet(path), pd.read_csv(tmp_path / "predicted.csv")
    labels = np.load(next((mlruns / "tables").glob("*/split-*.npy")))
    for item in items:
        for label, part in enumerate(("train", "validation", "test")):
            residual = (outputs[item["mlflow_run_id"]] - rows["y"]).to_numpy()[labels == label]
            assert (residual**2).mean() == pytest.approx(item[f"{part}_loss"], rel=1e-6)
    assert len({round(item["train_loss"], 9) for item in items}) > 1  # not one model under several names


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_of_a_hundred_thousand_rows_goes_through(batchlab: Command, tmp_path: Path, suffix: str) -> None:
    path = table_file(tmp_path, 100_000, 19, suffix)
    limits = ["--set", "train.epochs=3", "--strategies", "full_batch,mini_batch", "--max-minutes", "0.5", *QUICKLY]
    done = batchlab("compare", "--data", path, "--target", "y", *limits, "--json", "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["comparison"]["rows"] == {"train": 60_000, "validation": 20_000, "test": 20_000}
    (best,) = [item for item in [*result["strategies"], *result["typed"]] if item["recommended"]]
    assert best["metrics"]["r2"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("defaults", [True, False])
def test_the_notebook_as_written_is_reported_diverged_and_that_is_no_failure(
    defaults: bool, batchlab: Command, mlruns: Path, tmp_path: Path
) -> None:
    beside = ["--set", f"search.defaults={str(defaults).lower()}"]
    done = batchlab("compare", "--profile", "lesson-raw", *QUICKLY, *beside, "--json", "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    verdict, strategies, typed = result["verdict"], result["strategies"], {item["label"]: item for item in result["typed"]}
    assert {item["status"] for item in strategies} == {"diverged"}
    assert all("times the largest stable one" in item["reason"] and item["train_loss"] is None for item in strategies)
    assert ("Every setting that was searched diverged" in done.stdout) is not defaults
    if defaults:  # unscaled features do not stop Adam, but they keep it from learning anything
        assert typed["typed batch 10 sgd 0.01"]["status"] == "diverged"
        assert typed["typed batch 32 adam 0.001"]["recommended"]
        assert (verdict["strategy"], verdict["optimizer"]) == ("mini_batch", "adam")
        assert any("always predicting the mean" in note for note in verdict["notes"])
    else:
        assert (verdict["strategy"], verdict["optimizer"], verdict["best_loss"], verdict["loss"]) == (None,) * 4
    assert set(statuses(mlruns).values()) == {"FINISHED"}


@pytest.mark.slow
def test_without_a_server_prefects_own_mode_is_used(batchlab: Command, tmp_path: Path) -> None:
    home = str(tmp_path / "prefect-home")
    dead = "http://127.0.0.1:9/api"
    few = ("--strategies", "full_batch", "--code", "torch", *QUICKLY)
    done = batchlab("compare", "--no-server", *few, PREFECT_HOME=home, PREFECT_API_URL=dead)
    assert done.returncode == 0, done.stderr
    assert "optimizer.step()\n" in done.stdout.split("batchlab ui\n")[1]
    assert not (tmp_path / "prefect-home" / "batchlab-server.json").exists()


def bad_inputs() -> Iterator[object]:
    yield (
        ["--data", "rows.csv", "--target", "y", "--max-minutes", "0"],
        "--max-minutes (search.max_minutes): input should be greater than 0",
    )
    yield (
        ["--data", "text.csv", "--target", "y"],
        "these columns hold text that no model here can use: 'city' (60 different values in 60 rows)",
    )
    yield ["--set", "strategies.mini_batch.batch_rows=512"], "batch_rows is 512 but the training split has 265 rows; use at most 265"
    for arguments, expected in (REFUSED_AT_ONCE | SAID_BY_THE_LIBRARY).items():
        yield pytest.param(arguments.split(), expected, marks=pytest.mark.slow)


REFUSED_AT_ONCE = {
    "--data gone.csv --target y": "'gone.csv' does not exist",
    "--data rows.csv --target yy": "target column 'yy' does not exist; did you mean 'y'?",
    "--data rows.csv": "the target column is not known; name it with --target: one of x0, x1, count, y.",
    "--profile leson": "profile 'leson' does not exist; did you mean 'lesson'?",
    "--json no/such/folder.json": "does not exist; make it first",
    "--json empty": "'empty' is a folder; name a file in it",
}
"""Refused before anything is started, so that the command can be asked in the tests' own process, too."""
SAID_BY_THE_LIBRARY = {
    "--data half.parquet --target y": "'half.parquet' cannot be read as Parquet",
    "--data constant.csv --target y": "target 'y' is constant: all 60 rows hold 1",
    "--data nothing.csv --target y": "target 'y' is missing in all 60 rows",
    "--data gaps.csv --target y --set checks.largest_quarantined=0.01": "1 of 58 rows (1.7%) cannot be used, more than 1% (checks.larg",
    "--data few.csv --target y": "4 rows split 2 / 1 / 1 into train / validation / test",
    "--data empty --target y": "'empty' holds no",
    "--strategies minibatch": "strategy 'minibatch' does not exist; did you mean 'mini_batch'?",
    "--set train.epoch=1": "key 'epoch' does not exist; did you mean 'epochs'?",
    "--set device=gpu": "device: input should be 'auto', 'cpu', 'cuda' or 'mps'",
    "--set train.loss=huber --data wine": "train.loss 'huber' does not fit task multiclass; use cross_entropy.",
}
"""Tests of sources, splits and settings have these words without a command."""


@pytest.mark.parametrize(("arguments", "expected"), list(bad_inputs()), ids=lambda value: value if isinstance(value, str) else "")
def test_bad_input_ends_in_one_clear_line_with_code_2_and_no_run(
    arguments: list[str], expected: str, batchlab: Command, mlruns: Path, tmp_path: Path
) -> None:
    rows = pd.read_csv(table_file(tmp_path, 60, 2, ".csv"))
    half = table_file(tmp_path, 60, 2, ".parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(half[: len(half) // 2])
    (tmp_path / "empty").mkdir()
    rows.assign(y=1.0).to_csv(tmp_path / "constant.csv", index=False)
    rows.assign(y=np.nan).to_csv(tmp_path / "nothing.csv", index=False)
    gaps = rows.astype(float)
    gaps.loc[[3, 4], "y"], gaps.loc[7, "y"] = np.nan, np.inf
    gaps.to_csv(tmp_path / "gaps.csv", index=False)
    rows.assign(city=[f"street {number}" for number in range(60)]).to_csv(tmp_path / "text.csv", index=False)
    rows.head(4).to_csv(tmp_path / "few.csv", index=False)
    done = batchlab("compare", *arguments)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert (done.stdout, complaints(done)) == ("", 1)
    assert statuses(mlruns) == {}
    assert not list((mlruns / "tables").glob(".packing-*"))


@pytest.fixture
def refusal(mlruns: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """What `batchlab compare` refuses, asked in this process: starting one takes seconds."""
    monkeypatch.setenv("BATCHLAB_MLRUNS", str(mlruns))
    monkeypatch.setenv("PREFECT_HOME", str(scratch / "prefect"))

    def refused(*arguments: str) -> str:
        done = CliRunner().invoke(cli.app, ["compare", *arguments])
        assert isinstance(done.exception, BadInput), done.exception
        assert done.stdout == ""
        return str(done.exception)

    yield refused
    opening.end()


@pytest.mark.parametrize("arguments", REFUSED_AT_ONCE)
def test_what_is_refused_at_once_has_started_no_server_and_packed_nothing(
    arguments: str, refusal: Callable[..., str], mlruns: Path, scratch: Path
) -> None:
    table_file(scratch, 60, 2, ".csv")
    (scratch / "empty").mkdir()
    assert REFUSED_AT_ONCE[arguments] in refusal(*arguments.split())
    assert local_server.running() is None
    assert not (mlruns / "tables").exists()


def test_a_store_that_cannot_be_written_is_refused(refusal: Callable[..., str], scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (scratch / "taken").write_text("a file where the folder should be")
    monkeypatch.setenv("BATCHLAB_MLRUNS", str(scratch / "taken"))
    assert "cannot be written" in refusal()


def test_a_loss_that_does_not_fit_the_task_is_refused(experiment: Callable[..., Experiment]) -> None:
    with pytest.raises(BadInput, match=r"train\.loss 'huber' does not fit task multiclass; use cross_entropy\."):
        experiment("quick", data="wine", overrides=["train.loss=huber"])


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a CUDA device, so asking for one is no error")
def test_a_cuda_device_that_is_not_there_is_refused(experiment: Callable[..., Experiment]) -> None:
    with pytest.raises(BadInput, match="device 'cuda' was asked for, but torch"):
        experiment("quick", overrides=["device=cuda"])


def test_a_configured_server_that_does_not_answer_is_a_failure_that_says_so(batchlab: Command, mlruns: Path) -> None:
    done = batchlab("compare", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 1
    assert "nothing answers there" in done.stderr
    assert statuses(mlruns) == {}


def test_a_training_that_fails_marks_its_runs_failed_and_exits_with_1(batchlab: Command, mlruns: Path) -> None:
    here = str(Path(__file__).resolve().parent.parent)
    settings = ["--set", "model.kind=custom", "--set", "model.factory=tests.networks:failing", "--strategies", "full_batch"]
    done = batchlab("compare", *settings, PYTHONPATH=here)
    assert done.returncode == 1
    assert "this network does not train" in done.stderr
    assert set(statuses(mlruns).values()) == {"FAILED"}


def _racing(mlruns: Path, folder: Path, *settings: str, until: str = "so far ") -> Watched:
    """Start a comparison that takes half an hour, and return it once it shows these words: who leads, as soon as something is known."""
    long = ["--strategies", "full_batch,stochastic", "--max-minutes", "30", "--set", "train.epochs=1000000", *QUICKLY]
    here = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "BATCHLAB_MLRUNS": str(mlruns), "PYTHONPATH": here}
    process = Watched([command_path(), "compare", "--profile", "lesson", *long, *settings, "--json", "result.json"], folder, environment)
    process.shows(until)
    return process


def test_ctrl_c_once_more_gives_up_and_leaves_its_runs_killed(server: LocalServer, mlruns: Path, tmp_path: Path) -> None:
    process = _racing(mlruns, tmp_path)
    process.send(signal.SIGINT)
    process.shows("Ctrl-C once more gives it up")
    process.send(signal.SIGINT)
    code, _, shown = process.ended()
    assert code == 130, shown
    assert "interrupted" in shown
    assert _by_kind(mlruns)["comparison"] == "KILLED"
    assert "RUNNING" not in statuses(mlruns).values()


def test_ctrl_c_while_settings_are_recorded_keeps_the_verdict_and_leaves_the_rest_unrecorded(
    server: LocalServer, mlruns: Path, tmp_path: Path
) -> None:
    command = [command_path(), "compare", "--profile", "lesson", "--set", "train.epochs=20", "--max-minutes", "0.1", *QUICKLY]
    process = Watched([*command, "--json", "result.json"], tmp_path, {**os.environ, "BATCHLAB_MLRUNS": str(mlruns)})
    process.shows("recording ")
    process.send(signal.SIGINT)
    code, output, shown = process.ended()
    assert code == 0, shown
    assert "beside the recommended setting, those that are not recorded yet are left out" in shown
    assert output.count("Train with ") == 1
    result = json.loads((tmp_path / "result.json").read_text())
    items = [*result["strategies"], *result["typed"]]
    kept = [item for item in items if item["mlflow_run_id"] is not None]
    assert len(kept) < len(items)
    assert f"{len(items) - len(kept)} settings were not recorded" in output
    assert [item["test_loss"] is None for item in items] == [item["mlflow_run_id"] is None for item in items]
    assert any(item["recommended"] for item in kept)
    assert set(statuses(mlruns).values()) == {"FINISHED"}
    assert len(statuses(mlruns)) == 1 + len(kept)


@pytest.mark.slow
def test_ctrl_c_before_anything_is_known_leaves_its_runs_killed(server: LocalServer, mlruns: Path, tmp_path: Path) -> None:
    custom = ["--set", "model.kind=custom", "--set", "model.factory=tests.networks:slow"]
    process = _racing(mlruns, tmp_path, *custom, until="first look")
    process.send(signal.SIGINT)
    code, _, shown = process.ended()
    assert code == 130, shown
    assert "interrupted" in shown
    assert "ending with the verdict" not in shown
    assert _by_kind(mlruns) == {"comparison": "KILLED"}


def test_a_terminated_comparison_leaves_its_run_killed_and_keeps_its_trials(server: LocalServer, mlruns: Path, tmp_path: Path) -> None:
    process = _racing(mlruns, tmp_path)
    process.send(signal.SIGTERM)
    code, _, shown = process.ended()
    assert code == 130, shown
    assert "interrupted" in shown
    assert _by_kind(mlruns) == {"comparison": "KILLED"}
    client = opened(mlruns)
    (run,) = client.search_runs(["1"])
    trials = pd.read_parquet(client.download_artifacts(run.info.run_id, "trials.parquet"))
    assert set(trials.phase) == {"race"}
    assert {"full_batch", "mini_batch"} <= set(trials.strategy)


@pytest.mark.slow
def test_the_next_comparison_ends_the_runs_of_a_killed_one(batchlab: Command, server: LocalServer, mlruns: Path, tmp_path: Path) -> None:
    process = _racing(mlruns, tmp_path)
    process.send(signal.SIGKILL)
    process.ended()
    assert _by_kind(mlruns)["comparison"] == "RUNNING"
    assert batchlab("compare", "--data", "wine", "--strategies", "full_batch", *QUICKLY).returncode == 0
    assert _by_kind(mlruns) == {"comparison": "KILLED"}
    (parent,) = [run for run in opened(mlruns).search_runs(["1"]) if "prefect.flow_run_id" in run.data.tags]
    with urllib.request.urlopen(f"{server.api_url}/flow_runs/{parent.data.tags['prefect.flow_run_id']}", timeout=10) as reply:
        assert json.load(reply)["state_type"] == "CRASHED"


def test_a_killed_comparison_is_taken_up_in_the_same_run_and_ctrl_c_ends_that_with_the_verdict_of_what_is_known(
    server: LocalServer, mlruns: Path, tmp_path: Path
) -> None:
    killed = _racing(mlruns, tmp_path)
    killed.send(signal.SIGKILL)
    killed.ended()
    (run,) = opened(mlruns).search_runs(["1"])
    known = load(mlruns / "unfinished" / run.info.run_id / "known.npz", Known)
    again = _racing(mlruns, tmp_path, until="taking up a comparison")
    again.shows("so far ")
    again.send(signal.SIGINT)
    code, output, shown = again.ended()
    assert code == 0, shown
    assert f"{known.all_trainings:,} trainings" in " ".join(shown.split())
    assert "ending with the verdict of what is known; Ctrl-C once more gives it up" in shown
    result = json.loads((tmp_path / "result.json").read_text())
    verdict = result["verdict"]
    assert result["comparison"]["mlflow_run_id"] == run.info.run_id
    assert verdict["trainings"] >= known.all_trainings
    assert verdict["search_seconds"] > known.seconds
    assert verdict["strategy"] in ("full_batch", "stochastic", "mini_batch")
    assert output.count("Train with ") == 1
    assert all(" ".join(line.split()) in " ".join(output.split()) for line in verdict["text"].splitlines())
    assert any("ended before anything was confirmed" in note for note in verdict["notes"])
    assert set(statuses(mlruns).values()) == {"FINISHED"}
    assert not list((mlruns / "unfinished").iterdir())


@pytest.mark.slow
def test_other_settings_and_fresh_ones_do_not_take_up_a_killed_comparison(server: LocalServer, mlruns: Path, tmp_path: Path) -> None:
    killed = _racing(mlruns, tmp_path)
    killed.send(signal.SIGKILL)
    killed.ended()
    for other in (["--seed", "5"], ["--fresh"]):
        process = _racing(mlruns, tmp_path, *other)
        process.send(signal.SIGINT)
        code, _, shown = process.ended()
        assert code == 0, shown
        assert "taking up" not in shown
    assert len(list((mlruns / "unfinished").glob("*/known.npz"))) >= 1


@pytest.mark.slow
def test_odd_names_and_labels_go_through_with_every_class_counted(batchlab: Command, mlruns: Path, tmp_path: Path) -> None:
    labels = np.array(["a:b", "a;b", "$_a_$", "x" * 300, "\u732b/.."])[np.arange(200) % 5]
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 3)), columns=["a b", "\u5024|段", "kind"]).assign(status=labels)
    frame.to_csv(tmp_path / "odd $ name.csv", index=False)
    arguments = ["--data", "odd $ name.csv", "--target", "status", "--strategies", "full_batch", "--set", "train.epochs=5", *QUICKLY]
    done = batchlab("compare", *arguments, "--json", "result.json")
    assert done.returncode == 0, done.stderr
    item = json.loads((tmp_path / "result.json").read_text())["strategies"][0]
    rows = {key: value for key, value in item["metrics"].items() if key.startswith("rows_of_class/")}
    assert set(rows) == {f"rows_of_class/{label}" for label in labels}
    assert sum(rows.values()) == 40
    recorded = opened(mlruns).get_run(item["mlflow_run_id"]).data.metrics
    assert sum(value for key, value in recorded.items() if key.startswith("test_rows_of_class/")) == 40


def test_a_store_whose_making_was_killed_is_made_afresh(tmp_path: Path) -> None:
    code = "from tasks import store; store.client(); print(len(store.client().search_experiments()))"
    environment = {**os.environ, "BATCHLAB_MLRUNS": str(tmp_path / "mlruns")}
    for delay in (0.05, 0.3, 0.8):
        process = subprocess.Popen([sys.executable, "-c", code], env=environment)
        until = time.monotonic() + 60
        while not list((tmp_path / "mlruns").glob("mlflow.*")):
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
        process.wait()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


def test_a_taken_port_is_refused_by_the_ui(batchlab: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = batchlab("ui", "--port", str(taken.getsockname()[1]))
    assert (done.returncode, complaints(done)) == (2, 1)
    assert "is taken; give another with --port" in done.stderr


@pytest.mark.slow
def test_without_git_a_comparison_has_no_commit_and_still_runs(batchlab: Command, mlruns: Path, tmp_path: Path) -> None:
    done = batchlab("compare", "--data", "wine", "--strategies", "full_batch", "--set", "train.epochs=2", *QUICKLY, PATH="/nowhere")
    assert done.returncode == 0, done.stderr
    assert set(statuses(mlruns).values()) == {"FINISHED"}


def _by_kind(mlruns: Path) -> dict[str, str]:
    """Return the statuses of the runs on the lesson's prices by strategy, the parent's as `comparison`."""
    client = opened(mlruns)
    experiment = client.get_experiment_by_name("comparison-prices")
    assert experiment is not None
    return {run.data.tags.get("strategy", "comparison"): run.info.status for run in client.search_runs([experiment.experiment_id])}


def test_doctor_says_what_is_there_and_what_is_missing(batchlab: Command) -> None:
    done = batchlab("doctor")
    assert re.search(r"memory\s+[\d.]+ of .* GiB free: a comparison\s+takes\s+at most [\d.]+ GiB", done.stdout)
    assert done.returncode == 0, done.stdout
    for words in ("torch", "device", "store", "server", "worker"):
        assert words in done.stdout
    broken = batchlab("doctor", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert broken.returncode == 1
    assert "does not answer" in broken.stdout


@pytest.mark.slow
def test_a_temporary_server_whose_command_was_killed_is_ended_by_the_next_command(mlruns: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "BATCHLAB_MLRUNS": str(mlruns)}
    killed = Watched([command_path(), "compare", "--no-server", "--max-minutes", "30"], tmp_path, environment)
    killed.shows("so far ")
    server = served_by(killed.process.pid)
    assert server is not None
    killed.send(signal.SIGKILL)
    killed.process.wait(timeout=20)
    assert server.is_running()
    done = subprocess.run([command_path(), "compare", "--no-server", "--data", "wine", "--target", "no"], env=environment, check=False)
    assert done.returncode == 2
    server.wait(timeout=20)


def served_by(command: int) -> psutil.Process | None:
    """Return the Prefect server that a command has started for itself."""
    for child in psutil.Process(command).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # others of its children may just have ended
            if temporary_server.SERVER in child.cmdline():
                return child
    return None


@pytest.mark.slow
def test_ctrl_c_leaves_the_temporary_server_to_the_command(mlruns: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "BATCHLAB_MLRUNS": str(mlruns)}
    process = Watched([command_path(), "compare", "--no-server", "--max-minutes", "30", "--json", "result.json"], tmp_path, environment)
    process.shows("so far ")
    process.send(signal.SIGINT)
    code, output, shown = process.ended()
    assert code == 0, shown
    assert "Train with " in output
    assert "Prefect fails" not in output + shown
    assert set(statuses(mlruns).values()) == {"FINISHED"}
    assert not list((mlruns / "spool").glob("*.json"))
