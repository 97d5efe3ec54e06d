"""MLflow's and Prefect's servers, and disks, that fail while records are made: what was told is recorded later, once."""

import io
import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from batchlab.results import Comparison
from batchlab.search.search import Search
from flows import background
from flows.display import show_end
from flows.local_server import LocalServer
from tasks import outages, prefect_reports, progress, spool, store, tracking, unfinished
from tasks.delivering import deliver
from tasks.drawing import page_links, page_title
from tasks.recording import Ended, Recording, best_first, recorded_setting, result_of
from tasks.reporting import concluded
from tasks.searching import tell
from tasks.unfinished import ComparisonRun
from tests.conftest import CHECKOUT, QUICKLY, command_path
from tests.stacks import running_stack
from tests.test_unfinished import GONE, Heard


class Mlflow:
    """An MLflow server on loopback with a database of its own, to be killed, held and started again at its place."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.folder = folder
        shutil.copy(template / "mlflow.db", folder / "server.db")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += [
            "--backend-store-uri",
            f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = psutil.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while not background.answers(f"{self.url}/health"):
            assert time.monotonic() < until
            time.sleep(0.05)

    def send(self, number: int) -> None:
        for process in (self.process, *self.process.children(recursive=True)):
            process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()


@pytest.fixture(scope="module")
def mlflow_server(store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    server = Mlflow(store_template, tmp_path_factory.mktemp("mlflow"))
    yield server
    server.send(signal.SIGKILL)


@pytest.fixture
def heard(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    monkeypatch.setenv("BATCHLAB_MLRUNS", str(mlruns))
    store.client.cache_clear()
    listener = Heard()
    progress.listeners.append(listener)
    progress.renewed()
    yield listener
    progress.listeners.remove(listener)
    store.client.cache_clear()


@pytest.fixture
def away(mlflow_server: Mlflow, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    """The MLflow server, which the store of this test is on, with a command that waits for it for half a second only."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    monkeypatch.setenv(outages.VARIABLE, "0.5")
    if not background.answers(f"{mlflow_server.url}/health"):
        mlflow_server.start()
    store.client.cache_clear()
    return mlflow_server


def begun(searched: Search, **more: Any) -> ComparisonRun:
    """Open the run of a comparison that has searched what `searched` has."""
    experiment = searched.experiment
    experiment_id = store.experiment_id("comparison-test")
    run_id = tracking.created_run(experiment_id, "comparing", {})
    return ComparisonRun(
        profile=experiment.profile,
        table=experiment.table.path,
        split=experiment.split.save(experiment.table),
        experiment_id=experiment_id,
        run_id=run_id,
        links={"MLflow run": f"http://127.0.0.1/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"},
        store=store.tracking_uri(),
        **more,
    )


def recording_of(searched: Search, comparison: ComparisonRun) -> Recording:
    """Keep the verdict on the recommended setting and two others, and return what records it."""
    found, best = searched.findings, searched.findings.best
    assert best is not None
    assert found.choice is not None
    others = [item for item in (*found.settings, *found.typed) if item is not best and item.candidate.label not in found.choice.as_good]
    few = replace(found, settings=(best, *others[:2]), typed=(), against_typed=(), choice=found.choice.model_copy(update=ALONE))
    told = spool.told(comparison)
    spool.keep(told, few, searched.known)
    return Recording(Ended(searched.experiment, few, searched.known), told)


ALONE = {"as_good": (), "ties": (), "runner_up": None}


def everything_recorded(recording: Recording) -> Comparison:
    """Record the settings, the best first, and the verdict, as far as it can be done."""
    found = recording.search.findings
    results = {label: recorded_setting(label, recording) for label in best_first(found)}
    return concluded(recording, [results[label] for label in found.labels])


def left_by_a_killed_process(recording: Recording) -> None:
    """Have what is kept look as if its process were gone."""
    path = store.spool() / f"{recording.comparison.run_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"owner": GONE}))


def check_recorded_once(recording: Recording) -> None:
    """Hold a comparison to being whole in MLflow: every setting, model, metric and sample once, and nothing open or left on disk."""
    client, comparison, found = store.client(), recording.comparison, recording.search.findings
    runs: list[Run] = client.search_runs([comparison.experiment_id], f"tags.mlflow.parentRunId = '{comparison.run_id}'")
    assert Counter(run.info.run_name for run in runs) == Counter(found.labels)
    parent = client.get_run(comparison.run_id)
    assert {run.info.status for run in (*runs, parent)} == {"FINISHED"}
    for run in (*runs, parent):
        for key in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, key)]
            assert len(steps) == len(set(steps)), (run.info.run_name, key)
    models = Counter(model.source_run_id for model in client.search_logged_models([comparison.experiment_id]))
    with_model = [item.candidate.label for item in (*found.settings, *found.typed) if item.shown.weights and not item.outcome.diverged]
    assert [models[run.info.run_id] for run in runs] == [int(run.info.run_name in with_model) for run in runs]
    assert {"verdict.html", "comparison.json", "trials.parquet"} <= {item.path for item in client.list_artifacts(comparison.run_id)}
    assert not spool.holds(comparison.run_id)


def test_what_a_killed_server_lacks_is_recorded_once_each_when_it_is_back(searched: Search, away: Mlflow, heard: Heard) -> None:
    recording = recording_of(searched, begun(searched))
    comparison, found = recording.comparison, recording.search.findings
    first, second, *_ = best_first(found)
    for cpu in (10.0, 20.0):
        spool.begin_samples(comparison.run_id)
        spool.note_sample(comparison.run_id, {"cpu_utilization_percentage": cpu})
    done = recorded_setting(first, recording)
    assert done.mlflow_run_id is not None
    half = tracking.created_run(comparison.experiment_id, second, {"mlflow.parentRunId": comparison.run_id})
    recording.models.logged(half, found.of(second).shown)
    away.send(signal.SIGKILL)
    told = everything_recorded(recording)
    assert [item.label for item in told.strategies if item.mlflow_run_id is not None] == [first]
    assert told.verdict.loss == pytest.approx(found.choice.loss.value if found.choice else None)
    assert "MLflow fails" in heard.said[-1]
    assert "`batchlab record`" in heard.said[-1]
    left_by_a_killed_process(recording)
    assert deliver() == 0  # it is still away
    away.start()
    assert deliver() == 1
    check_recorded_once(recording)
    history = store.client().get_metric_history(comparison.run_id, "system/cpu_utilization_percentage")
    assert [(point.step, point.value) for point in history] == [(0, 10.0), (1, 20.0)]
    (kept,) = [run for run in store.client().search_runs([comparison.experiment_id]) if run.info.run_id == done.mlflow_run_id]
    assert kept.info.run_name == first
    assert deliver() == 0


def test_a_server_that_hangs_and_comes_back_gets_the_rest_in_the_same_command(
    searched: Search, away: Mlflow, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(outages.VARIABLE, "60")
    monkeypatch.setattr("tasks.address.ANSWER_SECONDS", 0.5)
    recording = recording_of(searched, begun(searched))
    away.send(signal.SIGSTOP)
    threading.Timer(2.0, away.send, [signal.SIGCONT]).start()
    everything_recorded(recording)
    assert [said for said in heard.said if "MLflow fails (no answer); waiting up to 60 s" in said]
    assert "MLflow answers again; recording goes on" in heard.said
    check_recorded_once(recording)


def test_verdicts_are_recorded_in_the_order_they_were_told_and_only_in_their_own_store(
    searched: Search, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [recording_of(searched, begun(searched)) for _ in range(2)]
    for recording in kept:
        left_by_a_killed_process(recording)
    assert [item.comparison.run_id for item in spool.waiting()] == [recording.comparison.run_id for recording in kept]
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store.folder() / 'other.db'}")
        assert spool.waiting() == []
    store.client().delete_run(kept[0].comparison.run_id)
    assert deliver() == 2
    assert "its MLflow run was deleted: it is not recorded" in heard.said
    check_recorded_once(kept[1])


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stops_records_but_neither_the_verdict_nor_their_arrival_once_there_is_room(searched: Search, heard: Heard) -> None:
    recording = recording_of(searched, begun(searched))
    first = best_first(recording.search.findings)[0]
    recorded_setting(first, recording)
    with full_disk(1000):
        told = everything_recorded(recording)
    assert [item.label for item in told.strategies if item.mlflow_run_id is not None] == [first]
    assert "MLflow fails" in heard.said[-1]
    left_by_a_killed_process(recording)
    assert deliver() == 1
    check_recorded_once(recording)


def test_a_disk_that_takes_no_verdict_either_is_told_and_the_verdict_too(searched: Search, heard: Heard) -> None:
    comparison = begun(searched)
    with full_disk(1000):
        told = tell.fn(searched, comparison)
        assert "does not take the verdict" in heard.said[-1]
        recording = Recording(Ended(searched.experiment, searched.findings, searched.known), told)
        result = everything_recorded(recording)
    assert "what it lacks could not be kept" in heard.said[-1]
    progress.renewed()
    for asked, why in ((False, "; see above"), (True, ", because you asked to end")):
        shown = Console(width=200, file=io.StringIO())
        if asked:
            progress.hurried.set()
        show_end(shown, result, "")
        assert f"settings were not recorded{why}." in shown.file.getvalue()  # type: ignore[attr-defined]
    progress.renewed()


def test_what_is_kept_is_read_back_with_its_infinite_numbers(searched: Search, heard: Heard) -> None:
    comparison = begun(searched)
    endless = comparison.profile.model_copy(update={"search": comparison.profile.search.model_copy(update={"max_minutes": math.inf})})
    told = spool.told(comparison.model_copy(update={"profile": endless}))
    spool.note(told.model_copy(update={"owner": GONE}))
    (item,) = spool.waiting()
    assert item == told.model_copy(update={"owner": GONE})
    ended = Ended(searched.experiment, searched.findings, searched.known)
    results = [result_of(setting, ended) for setting in searched.findings.settings]
    for result in results:
        spool.note_setting(comparison.run_id, result.model_copy(update={"seconds_per_step": math.inf}))
    assert {label: item.seconds_per_step for label, item in spool.settings_of(comparison.run_id).items()} == {
        result.label: math.inf for result in results
    }


def test_a_torn_line_of_the_journal_is_left_out(heard: Heard) -> None:
    spool.begin_samples("run")
    spool.note_sample("run", {"a": 1.0})
    with (store.spool() / "run.system.jsonl").open("a") as file:
        file.write('{"moment": 1, "a": 2')
    assert [sample["a"] for sample in spool.samples_of("run")] == [1.0]
    spool.forget("run")
    with pytest.raises(FileNotFoundError):
        spool.note_sample("run", {"a": 3.0})


def test_prefect_has_each_artifact_once_and_its_flow_run_completes(searched: Search, heard: Heard, server: LocalServer) -> None:
    from flows.comparison import comparison as flow

    with temporary_settings({PREFECT_API_URL: server.api_url}), get_client(sync_client=True) as client:
        made = client.create_flow_run(flow)
        comparison = begun(searched, prefect=server.api_url, flow_run_id=str(made.id), of_its_own=True)
        recording = recording_of(searched, comparison)
        result = everything_recorded(recording)
        check_recorded_once(recording)
        told = recording.told.model_copy(update={"result": result, "owner": GONE})
        prefect_reports.tell(told, page_title(searched.experiment), page_links(comparison))
        assert client.read_flow_run(made.id).state_type == "COMPLETED"
        found = [item.key for item in client.read_artifacts() if item.flow_run_id == made.id]
    assert sorted(str(key) for key in found) == ["comparison-report", "comparison-table", "mlflow-run", "report-page"]


def test_a_comparison_whose_run_is_gone_is_not_taken_up_in_it(searched: Search, heard: Heard) -> None:
    comparison = begun(searched)
    assert not tracking.is_gone(comparison.run_id)
    store.client().delete_run(comparison.run_id)
    assert tracking.is_gone(comparison.run_id)
    assert tracking.is_gone("0" * 32)


def test_a_comparison_left_in_another_store_is_not_taken_up(searched: Search, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished.begin("same", "a")
    unfinished.kept("a").keep_known(searched.known)
    assert unfinished.left_by("same") == "a"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store.folder() / 'other.db'}")
    assert unfinished.left_by("same") is None


@pytest.mark.slow
def test_with_both_servers_killed_the_search_goes_on_and_all_arrives_later(
    mlflow_server: Mlflow, store_template: Path, tmp_path: Path
) -> None:
    if not background.answers(f"{mlflow_server.url}/health"):
        mlflow_server.start()
    with running_stack(
        "sqlite", worker=False, template=store_template, MLFLOW_TRACKING_URI=mlflow_server.url, BATCHLAB_WAIT_SECONDS="1"
    ) as stack:
        result, folder = tmp_path / "result.json", stack.mlruns / "unfinished"
        command = [command_path(), "compare", "--data", "wine", "--max-minutes", "0.1", *QUICKLY, "--json", str(result)]
        child = subprocess.Popen(command, cwd=CHECKOUT, env=stack.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while not list(folder.glob("*.npz")):
            assert child.poll() is None
            time.sleep(0.02)
        mlflow_server.send(signal.SIGKILL)
        psutil.Process(json.loads((Path(stack.environment["PREFECT_HOME"]) / "batchlab-server.json").read_text())["process"]["pid"]).kill()
        shown, _ = child.communicate(timeout=200)
        assert child.returncode == 0, shown
        assert "Train with " in shown
        told = json.loads(result.read_text())["comparison"]
        mlflow_server.start()
        assert stack.run("batchlab", "server", "start").returncode == 0
        done = stack.run("batchlab", "record")
        assert "everything is recorded." in done.stdout, done.stdout + done.stderr
        client = MlflowClient(mlflow_server.url)
        runs = client.search_runs([told["mlflow_experiment_id"]])
        assert {run.info.status for run in runs} == {"FINISHED"}
        names = Counter(run.info.run_name for run in runs)
        assert set(names.values()) == {1}
        assert stack.ask(f"/flow_runs/{told['prefect_flow_run_id']}")["state_type"] == "COMPLETED"
        made = stack.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [told["prefect_flow_run_id"]]}}})
        assert len(made) == 4
