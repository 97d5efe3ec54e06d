"""The local Prefect server: one for all, found again, stopped; and a deployment run by a real worker."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from burner_redis import BurnerRedis  # type: ignore[import-untyped]
from mlflow import MlflowClient
from mlflow.entities import Run
from prefect.client.schemas.objects import State
from prefect.states import Failed
from sqlalchemy.exc import OperationalError

from batchlab.errors import BadInput
from flows import background, guarded_prefect, local_server, local_worker
from flows.local_server import LocalServer
from tasks.retrying import may_pass
from tests.conftest import SMALL, Command, command_path


@pytest.mark.slow
def test_many_that_ask_at_once_get_one_server(tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    code = "from flows import local_server; s = local_server.started(); s.wait(); print(s.process.pid, s.port)"

    def ask(_: int) -> str:
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout

    try:
        with ThreadPoolExecutor(4) as pool:
            answers = set(pool.map(ask, range(4)))
        assert len(answers) == 1
        status = subprocess.run([command_path(), "server", "status"], env=environment, capture_output=True, text=True, check=True).stdout
        assert "answers at http://127.0.0.1:" in status
    finally:
        stopped = subprocess.run([command_path(), "server", "stop"], env=environment, capture_output=True, text=True, check=True).stdout
    assert "server stopped" in stopped
    assert not psutil.pid_exists(int(answers.pop().split()[0]))


def test_servers_that_start_at_once_in_two_homes_each_have_a_port_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = []
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").write_text("raise SystemExit('a folder of that name where one works is not ours')")
    monkeypatch.chdir(tmp_path)
    try:
        for name in ("one", "other"):
            monkeypatch.setenv("PREFECT_HOME", str(tmp_path / name))
            servers.append(local_server.started())
        assert [[background.listens(of.process, at.port) for at in servers] for of in servers] == [[True, False], [False, True]]
    finally:
        for server in servers:
            background.end(server.process)


def test_the_server_looks_for_work_of_its_own_seldom_unless_the_user_says_how_often(server: LocalServer) -> None:
    with urllib.request.urlopen(f"{server.api_url}/admin/settings", timeout=30) as reply:
        found = json.load(reply)["server"]
    services = found["services"]
    assert found["events"]["proactive_granularity"] == "PT15S"
    assert (services["late_runs"]["loop_seconds"], services["foreman"]["loop_seconds"]) == (15, 60)
    assert {name: value["loop_seconds"] for name, value in services.items() if value.get("loop_seconds", 60) < 15} == {}
    given = local_server.seldom({"PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "7"})
    assert given == local_server.SELDOM | {"PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "7"}


def test_the_servers_queue_in_memory_hands_on_what_is_sent_though_it_looks_seldom() -> None:
    async def received() -> tuple[object, ...]:
        queue = BurnerRedis()
        subscriber = queue.pubsub()
        await subscriber.psubscribe("cancel:*")
        confirmed = await guarded_prefect.read_seldom(subscriber, timeout=0.1)
        nothing = await guarded_prefect.read_seldom(subscriber, timeout=0.1)
        waiting = asyncio.create_task(guarded_prefect.read_seldom(subscriber, timeout=None))
        await asyncio.sleep(0)
        await queue.publish("cancel:run", "run")
        try:
            return confirmed["type"], nothing, (await waiting)["data"]
        finally:
            await subscriber.aclose()

    assert asyncio.run(received()) == ("psubscribe", None, b"run")


def test_a_state_file_of_a_process_that_is_gone_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    own = psutil.Process()
    (tmp_path / "batchlab-server.json").write_text(json.dumps({"process": {"pid": own.pid, "created": 12345.0}, "port": 4200}))
    assert local_server.running() is None
    (tmp_path / "batchlab-server.json").write_text("half writ")
    assert local_server.running() is None


def test_a_server_in_the_prefect_profile_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert local_server.configured_url() is None
    (tmp_path / "profiles.toml").write_text('active = "team"\n[profiles.team]\nPREFECT_API_URL = "http://127.0.0.1:4999/api"\n')
    assert local_server.configured_url() == "http://127.0.0.1:4999/api"
    monkeypatch.setenv("PREFECT_PROFILE", "another")
    assert local_server.configured_url() is None


@pytest.fixture(scope="module")
def worker(server: LocalServer) -> Iterator[local_server.Process]:
    yield local_worker.started(server)
    local_worker.stopped()


def test_a_deployment_run_completes_on_a_real_worker_and_its_runs_are_in_mlflow(server: LocalServer, worker: local_server.Process) -> None:
    command = [
        "deployment",
        "run",
        "comparison/default",
        "--param",
        "profile=lesson",
        "--param",
        'strategies=["full_batch", "mini_batch"]',
        "--param",
        f"overrides={json.dumps(['train.epochs=20', 'search.batch_rows=[10]', *SMALL])}",
        "--watch",
    ]
    output = local_worker.prefect(server, *command)
    assert "Completed" in output
    client = MlflowClient(f"sqlite:///{Path(os.environ['BATCHLAB_MLRUNS']) / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("comparison-prices")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.tags["prefect.flow_run_url"].startswith(server.ui_url)
    assert len(runs) == 5
    artifacts = {item["key"]: item["data"] for item in _of_flow_run(server, parent.data.tags["prefect.flow_run_id"])}
    assert set(artifacts) == {"comparison-report", "comparison-table", "mlflow-run", "report-page"}
    assert parent.info.run_id in artifacts["mlflow-run"]
    assert artifacts["report-page"].count("verdict.html") == 1
    assert next(row["strategy"] for row in json.loads(artifacts["comparison-table"])) == "full_batch"


def _of_flow_run(server: LocalServer, flow_run_id: str) -> list[dict[str, str]]:
    """Return the artifacts that a flow run left in Prefect."""
    body = json.dumps({"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}}).encode()
    request = urllib.request.Request(f"{server.api_url}/artifacts/filter", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        found: list[dict[str, str]] = json.load(reply)
    return found


@pytest.mark.slow
def test_a_deployment_run_with_bad_input_or_a_wrong_parameter_fails(server: LocalServer, worker: local_server.Process) -> None:
    with pytest.raises(local_server.ServerError):
        local_worker.prefect(server, "deployment", "run", "comparison/default", "--param", "profile=leson", "--watch")
    with pytest.raises(local_server.ServerError, match="nonsense"):
        local_worker.prefect(server, "deployment", "run", "comparison/default", "--param", "nonsense=1", "--watch")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadInput("no such column"), False),
        (ValueError("a bug"), False),
        (FileNotFoundError("gone"), False),
        (OSError("disk went away"), True),
        (OperationalError("select 1", {}, Exception("database is locked")), True),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(error: Exception, expected: bool) -> None:
    state: State[object] = Failed(data=error)
    assert asyncio.run(may_pass(None, None, state)) is expected  # type: ignore[arg-type]


def test_status_and_stop_say_when_there_is_no_server(batchlab: Command, tmp_path: Path) -> None:
    assert "no local Prefect server runs" in batchlab("server", "status", PREFECT_HOME=str(tmp_path)).stdout
    assert "server was not running" in batchlab("server", "stop", PREFECT_HOME=str(tmp_path)).stdout


def test_a_cancelled_deployment_run_leaves_its_runs_killed(server: LocalServer, worker: local_server.Process) -> None:
    settings = ["--param", 'strategies=["stochastic"]', "--param", 'overrides=["train.epochs=20000", "train.max_rows=20000000"]']
    local_worker.prefect(server, "deployment", "run", "comparison/default", "--param", "data=wine", *settings)
    client = MlflowClient(f"sqlite:///{Path(os.environ['BATCHLAB_MLRUNS']) / 'mlflow.db'}")
    runs = _wait_for(client, {"RUNNING"})
    flow_run = next(run.data.tags["prefect.flow_run_id"] for run in runs if "prefect.flow_run_id" in run.data.tags)
    local_worker.prefect(server, "flow-run", "cancel", flow_run)
    _wait_for(client, {"KILLED"})


def _wait_for(client: MlflowClient, expected: set[str]) -> list[Run]:
    """Return the run on wine once their statuses are as expected."""
    until = time.monotonic() + 90
    while True:
        experiment = client.get_experiment_by_name("comparison-wine")
        runs = list(client.search_runs([experiment.experiment_id])) if experiment else []
        if len(runs) == 1 and {run.info.status for run in runs} == expected:
            return runs
        assert time.monotonic() < until, {run.info.run_name: run.info.status for run in runs}
        time.sleep(0.3)
