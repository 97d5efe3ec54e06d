"""Kills at random moments: whatever is killed, the champion stays valid, no run stays open, and the next retraining gets its slot."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.sieges import ENDED, Siege, awaited, killed, processes_of
from tests.stacks import running_stack
from tests.test_story import QUICK

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
MOMENTS = [("started", 10.0)] * 2 + [("running", 10.0)] * 3 + [("recorded", 3.0)] * 3 + [("registered", 2.0)] * 2
"""When to kill: so many seconds at most after the flow's process started, its first state, its MLflow run, its model's version."""


@pytest.fixture(scope="module", params=["sqlite"])
def siege(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Iterator[Siege]:
    with running_stack(request.param, template=store_template, **QUICK) as stack:
        made = Siege(stack, tmp_path_factory.mktemp("data") / "amounts")
        assert made.completed()["state"]["message"].startswith("The first champion.")
        yield made


def reached(siege: Siege, anchor: str, flow_run_id: str, versions: int) -> bool:
    """Whether the flow run has come so far, or has ended."""
    if anchor == "started":
        return bool(processes_of(flow_run_id))
    if anchor == "recorded" and siege.running():
        return True
    if anchor == "registered" and siege.versions() > versions:
        return True
    return siege.flow_run(flow_run_id)["state_type"] in (ENDED if anchor != "running" else {"RUNNING", *ENDED})


def victims(siege: Siege, target: str, flow_run_id: str, number: int) -> list[psutil.Process]:
    """Return what to kill: of the workers every other one with its flow runs, as a machine's crash would."""
    if target == "flow":
        return processes_of(flow_run_id)[:1]
    family = processes_of(flow_run_id) if target == "worker" and number % 2 == 0 else []
    return [siege.process(target), *family]


@pytest.mark.parametrize("target", ["flow", "worker", "server"])
def test_a_kill_at_any_moment_leaves_a_valid_champion_no_open_run_and_no_taken_slot(siege: Siege, target: str) -> None:
    drawn = random.Random(target)
    for number, (anchor, most_seconds) in enumerate(MOMENTS):
        one_kill(siege, target, number, anchor, most_seconds * drawn.random())
    siege.completed()  # within two minutes, so in its slot
    assert siege.running() == []


def one_kill(siege: Siege, target: str, number: int, anchor: str, offset: float) -> None:
    """Kill once while a retraining runs, start again what was killed, look at what became of it, and print that."""
    before, versions = siege.champion(), siege.versions()
    siege.grow()
    run = siege.submit()
    awaited(lambda: reached(siege, anchor, run, versions), f"{anchor} {run}", pause=0.02)
    time.sleep(offset)
    state, doomed = siege.flow_run(run)["state_name"], victims(siege, target, run, number)
    killed(*doomed)
    began = time.monotonic()
    starting = siege.start() if target != "flow" else 0.0
    end = siege.ended(run)
    until_ended = time.monotonic() - began
    awaited(lambda: siege.taken_slots() == 0, "the slot given back")
    until_free = time.monotonic() - began
    after, left = siege.champion(), siege.running()
    print(
        f"{target:6} {len(doomed)} {anchor:10} + {offset:4.1f} s, {state:10} → {end['state_name']:10} champion {before} → {after}; "
        f"start {starting:4.1f} s, ended {until_ended:4.1f} s, slot free {until_free:4.1f} s, open runs {len(left)}; "
        f"{end['state']['message']:.60}",
        flush=True,
    )
    assert after in (before, siege.versions())
    if target != "flow":  # nothing was started that could have ended it; the next retraining does
        assert left == []
