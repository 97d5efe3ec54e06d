"""Kills at random moments: whatever is killed, the champion stays valid, no run stays open, and the next retraining gets its slot."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from tests.conftest import CHECKOUT
from tests.sieges import DEPLOYMENT, ENDED, MODEL, SWIFT, Siege, awaited, killed, processes_of
from tests.stacks import running_stack
from tests.test_story import QUICK

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
MOMENTS = [("started", 10.0)] * 2 + [("running", 6.0)] * 3 + [("recorded", 2.0)] * 3 + [("registered", 1.5)] * 2
"""When to kill: so many seconds at most after the flow's process started, its first state, its MLflow run, its model's version."""
KILLS = [
    pytest.param("sqlite", "flow", MOMENTS, id="flow"),
    pytest.param("sqlite", "worker", MOMENTS, id="worker"),
    pytest.param("sqlite", "server", MOMENTS, id="server"),
    pytest.param("sqlite", "machine", MOMENTS[::3], id="all at once"),
    pytest.param("postgres", "worker", MOMENTS[::4], id="worker on PostgreSQL"),
    pytest.param("postgres", "server", MOMENTS[1::4], id="server on PostgreSQL"),
    pytest.param("postgres", "mlflow", MOMENTS[2::3], id="MLflow server"),
]
SQLITE = pytest.mark.parametrize("siege", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def siege(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Iterator[Siege]:
    with running_stack(request.param, template=store_template, **QUICK) as stack:
        made = Siege(stack, tmp_path_factory.mktemp("data") / "amounts")
        assert made.completed()["state"]["message"].startswith("The first champion.")
        yield made


def reached(siege: Siege, anchor: str, flow_run_id: str, versions: int) -> bool:
    """Whether the flow run has come so far, or has ended."""
    if anchor == "started":
        return bool(processes_of(flow_run_id))
    if anchor == "recorded" and siege.recorded(flow_run_id):
        return True
    if anchor == "registered" and siege.versions() > versions:
        return True
    return siege.flow_run(flow_run_id)["state_type"] in (ENDED if anchor != "running" else {"RUNNING", *ENDED})


def victims(siege: Siege, target: str, flow_run_id: str, number: int) -> list[psutil.Process]:
    """Return what to kill: of the workers every other one with its flow run, of the machine all that runs."""
    if target == "flow":
        return processes_of(flow_run_id)[:1]
    if target == "machine":
        return [*processes_of(flow_run_id), siege.process("worker"), siege.process("server")]
    family = processes_of(flow_run_id) if target == "worker" and number % 2 == 0 else []
    return [siege.process(target), *family]


@pytest.mark.parametrize(("siege", "target", "moments"), KILLS, indirect=["siege"])
def test_a_kill_at_any_moment_leaves_a_valid_champion_no_open_run_and_no_taken_slot(
    siege: Siege, target: str, moments: list[tuple[str, float]]
) -> None:
    drawn = random.Random(target)
    for number, (anchor, most_seconds) in enumerate(moments):
        one_kill(siege, target, number, anchor, most_seconds * drawn.random())
    siege.completed()  # so it gets its slot
    assert siege.running() == []


def one_kill(siege: Siege, target: str, number: int, anchor: str, offset: float) -> None:
    """Kill once while a retraining runs, start again what was killed, look at what became of it, and print that."""
    before, versions = siege.champion(), siege.versions()
    siege.grow()
    run = siege.submit()
    awaited(lambda: reached(siege, anchor, run, versions), f"{anchor} {run}", pause=0.02)
    time.sleep(offset)
    state, doomed = siege.flow_run(run), victims(siege, target, run, number)
    killed(*doomed)
    began = time.monotonic()
    starting = siege.start() if target != "flow" else 0.0
    goes_on = siege.flow_run(run)
    assert goes_on["state_type"] in ENDED or target == "flow" or siege.holds_its_lease(goes_on)
    end = siege.ended(run)
    until_ended = time.monotonic() - began
    awaited(lambda: siege.taken_slots() == 0, "the slot given back")
    until_free = time.monotonic() - began
    awaited(lambda: not processes_of(run), "the end of every process of the flow run")
    after, left = siege.champion(), siege.running()
    print(
        f"\n{siege.stack.kind:8} {target:7} {anchor:10} + {offset:4.1f} s  {state['state_name']:10} → {end['state_name']:10} "
        f"champion {before:2} → {after:2}  start {starting:4.1f} s, ended {until_ended:4.1f} s, slot free {until_free:4.1f} s  "
        f"runs open {len(left)}  {end['state']['message']:.70}",
        end="",
        flush=True,
    )
    assert after in (before, siege.versions())
    if target != "flow":  # nothing was started that could have ended it; the next retraining does
        assert left == []


@SQLITE
def test_a_cancelled_run_leaves_the_champion_as_it_was_and_its_mlflow_run_killed(siege: Siege) -> None:
    before = siege.champion()
    siege.grow()
    run = siege.submit(overrides=[*SWIFT, "train.epochs=200000", "train.max_rows=1000000000"])
    awaited(lambda: siege.recorded(run), "the run in MLflow")
    done = siege.stack.run("prefect", "flow-run", "cancel", run)
    assert done.returncode == 0, done.stderr
    assert siege.ended(run)["state_type"] == "CANCELLED"
    awaited(lambda: not processes_of(run), "the end of the flow's process")
    assert {item.info.status for item in siege.recorded(run)} == {"KILLED"}  # the retraining's, and that of a comparison it may have begun
    assert (siege.champion(), siege.taken_slots(), siege.running()) == (before, 0, [])


@SQLITE
def test_of_two_runs_at_once_of_a_deployment_one_gives_way(siege: Siege) -> None:
    before = siege.champion()
    siege.grow()
    ends = [siege.ended(run) for run in [siege.submit(), siege.submit()]]
    assert sorted(end["state_type"] for end in ends) == ["CANCELLED", "COMPLETED"]
    assert (siege.champion(), siege.taken_slots(), siege.running()) == (before + 1, 0, [])


@SQLITE
def test_of_two_retrainings_at_once_at_the_command_line_one_promotes(siege: Siege, tmp_path: Path) -> None:
    versions = siege.versions()
    siege.grow()
    common = ["--model", MODEL, "--data", str(siege.folder), "--target", "y", *(word for key in SWIFT for word in ("--set", key))]
    program = str(Path(sys.executable).with_name("batchlab"))
    commands = [[program, "retrain", *common, "--json", str(tmp_path / f"{number}.json")] for number in range(2)]
    twins = [subprocess.Popen(command, cwd=CHECKOUT, env=siege.stack.environment, stderr=subprocess.PIPE) for command in commands]
    errors = [twin.communicate(timeout=240)[1].decode() for twin in twins]
    assert [twin.returncode for twin in twins] == [0, 0], errors
    outcomes = [json.loads((tmp_path / f"{number}.json").read_text())["outcome"] for number in range(2)]
    assert outcomes.count("promoted") == 1, outcomes
    assert versions < siege.champion() <= siege.versions()
    assert siege.running() == []


@SQLITE
def test_a_killed_retraining_at_the_command_line_is_crashed_by_the_next(siege: Siege) -> None:
    before = siege.champion()
    siege.grow()
    common = ["--model", MODEL, "--data", str(siege.folder), "--target", "y", *(word for key in SWIFT for word in ("--set", key))]
    program = str(Path(sys.executable).with_name("batchlab"))
    child = subprocess.Popen([program, "retrain", *common], cwd=CHECKOUT, env=siege.stack.environment)
    query = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    (run,) = awaited(lambda: siege.stack.ask("/flow_runs/filter", query), "a flow run")
    awaited(lambda: siege.flow_run(run["id"])["labels"].get("batchlab.process"), "its claim", pause=0.02)
    child.kill()
    child.wait()
    assert siege.champion() == before
    siege.completed()
    assert siege.flow_run(run["id"])["state_type"] == "CRASHED"
    assert (siege.champion(), siege.running()) == (siege.versions(), [])


@SQLITE
def test_runs_that_were_late_retrain_once(siege: Siege) -> None:
    worker, versions, before = siege.process("worker"), siege.versions(), siege.champion()
    worker.terminate()
    psutil.wait_procs([worker], timeout=30)
    siege.grow()
    place = f"/deployments/{siege.deployment()['id']}/schedules"
    body = [{"active": True, "schedule": {"interval": 15}, "parameters": siege.parameters}]
    (schedule,) = siege.stack.ask(place, body)
    late = {"flow_runs": {"state": {"name": {"any_": ["Late"]}}}}
    awaited(lambda: len(siege.stack.ask("/flow_runs/filter", late)) >= 2, "two runs that are late")
    siege.stack.ask(f"{place}/{schedule['id']}", {"active": False}, "PATCH")
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    due = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": soon}}
    missed = [run["id"] for run in siege.stack.ask("/flow_runs/filter", {"flow_runs": due})]  # some are not called late yet
    assert len(missed) >= 2
    siege.start()
    ends = [siege.ended(run) for run in missed]
    print(DEPLOYMENT, *(end["state"]["message"] for end in ends), sep="\n")
    assert siege.versions() == versions + 1
    assert siege.champion() in (before, versions + 1)  # the gate may want more rows than there are
    assert {"COMPLETED"} <= {end["state_type"] for end in ends} <= {"COMPLETED", "CANCELLED"}
    assert (siege.taken_slots(), siege.running()) == (0, [])


def test_a_search_that_is_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.forked", str(tmp_path / "searches"), "--kills", "20"]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=True)
    tally = json.loads(done.stdout)
    assert tally["kills"] == 20
    assert tally["taken_up"] > 0
    assert (tally["differing"], tally["failed"], tally["complaints"]) == ([], [], [])
