"""Ingestion: the growth of a source is told once, at least once, never of rows that break the contract, and starts a deployment."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.events import Event, get_events_subscriber
from prefect.events.filters import EventFilter, EventResourceFilter
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from batchlab.config import load_profile
from batchlab.table.known import Known
from flows import local_server, local_worker
from flows.ingestion import ingestion
from flows.local_server import LocalServer
from tasks import arrivals, events
from tasks.arrivals import Arrival
from tasks.data import ingest
from tests.conftest import CHECKOUT

END = "batchlab.test.end"


@pytest.fixture
def folder(server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that files arrive in, of a name of its own; the flow runs on the session's server, with the test's own store."""
    monkeypatch.setenv("BATCHLAB_MLRUNS", str(tmp_path / "mlruns"))
    made = tmp_path / f"sales-{tmp_path.name}-{time.time_ns()}"
    made.mkdir()
    add(made, 0)
    with temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield made


def add(folder: Path, number: int, rows: int = 50, header: str = "day,visits,price") -> None:
    """Put another file into the folder."""
    draws = np.random.default_rng(number).uniform(10, 20, rows)
    lines = [f"{number * rows + day},{day % 7},{price:.3f}" for day, price in enumerate(draws)]
    (folder / f"part-{number}.csv").write_text("\n".join([header, *lines]) + "\n")


def ingested(folder: Path) -> Arrival:
    arrival = ingestion(profile="quick", data=str(folder), target="price")
    assert isinstance(arrival, Arrival)
    return arrival


def told_during(folder: Path, act: Callable[[], object]) -> list[Event]:
    """Return the events on the folder's data set that the server hands out while `act` runs, in their order."""

    async def watch() -> list[Event]:
        resource, found = EventResourceFilter(id_prefix=[f"batchlab.dataset.{folder.name}"]), []
        async with get_events_subscriber(filter=EventFilter(resource=resource)) as subscriber:
            await asyncio.to_thread(act)
            await asyncio.to_thread(events.emit, END, "dataset", folder.name, "the last one")
            async for event in subscriber:
                if event.event == END:
                    break
                found.append(event)
        return found

    return asyncio.run(watch())


def known(folder: Path) -> Known | None:
    settings = load_profile("quick", data=str(folder), target="price")
    return Known.read(arrivals.known_file(settings, None))


def test_growth_is_told_once_with_what_a_retraining_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Arrival] = []

    def act() -> None:
        monkeypatch.chdir(folder.parent)
        found.append(ingested(Path(folder.name)))
        found.append(ingested(folder))
        add(folder, 1)
        found.append(ingested(folder))
        (folder / "part-1.csv").unlink()
        found.append(ingested(folder))

    first, second = told_during(folder, act)
    assert [arrival.grew for arrival in found] == [arrival.told for arrival in found] == [True, False, True, False]
    assert "nothing new, 50 rows" in found[1].text
    assert found[3].text.endswith("changed but did not grow: 50 rows, 100 before.")
    assert first.event == second.event == "batchlab.dataset.grew"
    assert first.payload["rows_before"] == 0
    assert first.payload["data"] == str(folder)  # though it was named from the folder above: the worker runs elsewhere
    assert second.payload == {
        "text": f"{folder.name} grew by 50 to 100 rows.",
        "data": str(folder),
        "target": "price",
        "rows": 100,
        "rows_before": 50,
        "digest": second.payload["digest"],
        "profile": "quick",
        "overrides": [],
        "model": None,
    }
    after = known(folder)
    assert after is not None
    assert (after.rows, after.digest) == (50, first.payload["digest"])
    assert {"flow-run", "flow"} <= {resource.role for resource in second.related}


def test_rows_that_break_the_contract_fail_the_flow_before_anything_is_told(folder: Path) -> None:
    ingested(folder)
    before = known(folder)

    def act() -> None:
        for path in folder.iterdir():
            path.unlink()
        add(folder, 1, rows=80, header="day,weather,price")
        state = ingestion(profile="quick", data=str(folder), target="price", return_state=True)
        assert state.is_failed()
        assert "breaks its contract" in str(state.message)

    assert told_during(folder, act) == []
    assert known(folder) == before


def in_a_process(folder: Path, server: LocalServer, before: str = "") -> "subprocess.Popen[str]":
    """Start an ingestion in a process of its own, after the code `before`."""
    code = f"from flows.ingestion import ingestion\n{before}\nprint(ingestion(profile='quick', data={str(folder)!r}, target='price').told)"
    environment = {**os.environ, "PREFECT_API_URL": server.api_url}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_ingestions_at_once_tell_once(folder: Path, server: LocalServer) -> None:
    said: list[str] = []

    def act() -> None:
        both = [in_a_process(folder, server) for _ in range(2)]
        said.extend(process.communicate(timeout=120)[0].strip() for process in both)

    assert len(told_during(folder, act)) == 1
    assert sorted(said) == ["False", "True"]


def test_a_kill_right_after_the_event_tells_it_again_and_one_right_before_loses_nothing(folder: Path, server: LocalServer) -> None:
    settings = load_profile("quick", data=str(folder), target="price")
    ingest.fn(settings)  # as after a kill between packing and telling
    dying = "import os; from batchlab.table.known import Known; Known.write = lambda known, path: os.kill(os.getpid(), 9)"

    def act() -> None:
        process = in_a_process(folder, server, dying)
        process.communicate(timeout=120)
        assert process.returncode == -9
        assert known(folder) is None
        assert ingested(folder).told

    assert [event.payload["rows"] for event in told_during(folder, act)] == [50, 50]


def test_growth_that_nobody_could_be_told_of_is_not_taken_as_known(folder: Path) -> None:
    settings = load_profile("quick", data=str(folder), target="price")
    table, request = ingest.fn(settings), arrivals.Request(profile="quick", data=str(folder))
    with temporary_settings({PREFECT_API_URL: ""}):
        arrival = arrivals.notice.fn(settings, table, request)
    assert (arrival.grew, arrival.told) == (True, False)
    assert "nobody was told" in arrival.text
    assert known(folder) is None


def test_a_window_that_moves_on_has_grown_though_it_holds_no_more_rows(folder: Path) -> None:
    settings = load_profile("quick", data=str(folder), target="price", overrides=["columns.time=day"])
    seen = []
    for number in range(2):
        for path in folder.iterdir():
            path.unlink()
        add(folder, number)
        seen.append(Known.of(arrivals.PackedTable.open(ingest.fn(settings))))
    earlier, later = seen
    assert later.rows == earlier.rows
    assert later.grew_since(earlier)
    assert "later rows" in later.compared_with(earlier)
    assert not earlier.grew_since(later)


def test_a_broken_note_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "known.json").write_text('{"source": "sal')
    assert Known.read(tmp_path / "known.json") is None


def test_a_number_that_is_none_arrives_in_words(folder: Path) -> None:
    (event,) = told_during(folder, lambda: events.emit(events.DRIFT_FOUND, "dataset", folder.name, "told", loss=float("nan"), psi=0.5))
    assert event.payload == {"text": "told", "loss": "nan", "psi": 0.5}


@pytest.fixture
def waiting(server: LocalServer, tmp_path: Path) -> Iterator[Path]:
    """A deployment on a pool and worker of its own with the trigger of retraining/on-new-data; its runs write what they were given."""
    pool = f"pool-{tmp_path.name}".replace("_", "-")
    tree = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())
    (deployment,) = [item for item in tree["deployments"] if item["name"] == "on-new-data"]
    tree["deployments"] = [deployment | {"entrypoint": "flow.py:waiting", "work_pool": {"name": pool}}]
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "flow.py").write_text(
        textwrap.dedent("""
            import json
            from prefect import flow

            @flow
            def waiting(profile: str, data: str, target: str, overrides: list[str], name: str | None) -> None:
                with open("draft.json", "w") as file:
                    json.dump(locals() | {"file": None}, file)
                __import__("os").replace("draft.json", "started.json")
        """)
    )
    environment = {**os.environ, "PREFECT_API_URL": server.api_url, "PWD": str(tmp_path), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    local_worker.prefect(server, "work-pool", "create", pool, "--type", "process")
    deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    subprocess.run(deploy, cwd=tmp_path, env=environment, capture_output=True, check=True)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
    worker = local_server.spawn(command, tmp_path / "worker.log", environment)
    yield tmp_path / "started.json"
    local_server.end(worker)
    with temporary_settings({PREFECT_API_URL: server.api_url}), get_client(sync_client=True) as api:
        made = api.read_deployment_by_name("waiting/on-new-data").id
        api.delete_resource_owned_automations(f"prefect.deployment.{made}")  # they outlive a deployment
        api.delete_deployment(made)


@pytest.mark.slow
def test_a_file_that_arrives_starts_the_deployment_that_waits_for_it(folder: Path, waiting: Path) -> None:
    arrival: Any = ingestion(profile="quick", data=str(folder), target="price", overrides=["train.epochs=3"])
    assert arrival.told
    until = time.monotonic() + 90
    while not waiting.exists():
        assert time.monotonic() < until, (waiting.parent / "worker.log").read_text()
        time.sleep(0.1)
    given = json.loads(waiting.read_text())
    assert given["data"] == str(folder)
    assert (given["target"], given["profile"], given["overrides"], given["name"]) == ("price", "quick", ["train.epochs=3"], None)


@pytest.mark.slow
def test_an_event_that_no_server_takes_is_an_error() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), pytest.raises(OSError, match="Connect"):
        events.emit(events.DATASET_GREW, "dataset", "sales", "Nobody hears this.")
