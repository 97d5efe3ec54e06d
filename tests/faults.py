"""A comparison under fire: the real command, killed at random moments until one comes to its end, and what is left compared with what an
undisturbed one leaves. Timings play no part in what it decides (no limit, by loss), so all its numbers must be the same bit for bit."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.conftest import command_path

UNTIMED = (
    *("--data", "diabetes", "--strategies", "full_batch,mini_batch,growing", "--max-minutes", "inf"),
    *("--set", "search.objective=loss", "--set", "search.batch_rows=[32]", "--set", "search.rates=3", "--set", "search.seeds=3"),
    *("--set", "search.timings=4", "--set", "train.epochs=60"),
)
PATIENCE_SECONDS = 240
ORPHANS_SECONDS = 5
"""Processes of a command that was killed are gone after so long."""
SECONDS = ("train_seconds", "evaluation_seconds", "wall_seconds")


@dataclass(frozen=True)
class Blow:
    """What befell a command: after how many seconds, which of its processes with which signal, and what was kept of its work: how old that
    was, and None before anything was."""

    seconds: float
    target: str
    signal: str
    lost_seconds: float | None
    orphans: int


@dataclass
class Siege:
    """A store of its own, and the blows that commands on it got."""

    folder: Path
    arguments: tuple[str, ...] = UNTIMED
    environment: Mapping[str, str] = field(default_factory=dict)
    blows: list[Blow] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.folder / "mlruns"

    def begun(self) -> "subprocess.Popen[str]":
        """Start the command in a process group of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [command_path(), "compare", "--no-server", *self.arguments, "--json", "result.json"]
        environment = {**os.environ, "BATCHLAB_MLRUNS": str(self.store), **self.environment}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def struck(self, target: str, number: signal.Signals, delay: float) -> bool:
        """Let the command run for so long and strike; whether it was still there. One that was not has ended well."""
        process, began = self.begun(), time.monotonic()
        try:
            output, _ = process.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            pass
        else:
            assert process.returncode == 0, output
            return False
        family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        victims = victims_of(target, process.pid, family)
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim, number)
        struck = time.monotonic() - began
        lost = self.lost(time.time() - struck)
        if target == "measuring":  # which a comparison outlives
            output, _ = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode == 0, output
        process.wait(timeout=PATIENCE_SECONDS)
        assert process.stdout is not None
        process.stdout.close()
        self.blows.append(Blow(struck, target, number.name, lost, orphans(family)))
        return target != "measuring"

    def lost(self, began: float) -> float | None:
        """Return how long ago the search of the command that began then last wrote what it knows: what is done again after a kill takes no
        longer; None before it wrote anything, and after its search."""
        written = [path.stat().st_mtime for path in (self.store / "unfinished").glob("*/*.npz")]
        told = any((self.store / "spool").glob("*.json"))
        return time.time() - max(written) if written and max(written) > began and not told else None

    def outcome(self) -> "Outcome":
        """Return what the command left when it came to its end."""
        return outcome_of(self.store, json.loads((self.folder / "result.json").read_text()))


def victims_of(target: str, command: int, family: list[int]) -> list[int]:
    """Return which processes to strike: the command alone, all of its family, or those that it measures in."""
    return {"command": [command], "family": [command, *family], "measuring": family}[target]


def orphans(family: list[int]) -> int:
    """Return how many of the processes are still there after a while."""
    until = time.monotonic() + ORPHANS_SECONDS
    while True:
        left = [pid for pid in family if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
        if not left or time.monotonic() > until:
            return len(left)
        time.sleep(0.1)


@dataclass(frozen=True)
class Outcome:
    """What a comparison leaves: the settings with their losses, all trials, the statuses of all runs, and each recorded setting's curve."""

    settings: list[dict[str, Any]]
    trials: pd.DataFrame
    statuses: list[str]
    children: dict[str, dict[str, list[tuple[int, float]]]]

    def differences(self, other: "Outcome") -> list[str]:
        """Say in which parts the two differ."""
        found = [] if self.settings == other.settings else ["settings"]
        found += [] if self.trials.equals(other.trials) else ["trials"]
        found += [] if self.children == other.children else ["recorded metrics"]
        return found + [f"{status} runs" for status in ("RUNNING", "SCHEDULED") if status in self.statuses]


def outcome_of(store: Path, result: Mapping[str, Any]) -> Outcome:
    """Read what a comparison left, without what is measured in seconds or bytes."""
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    runs = client.search_runs([item.experiment_id for item in client.search_experiments()])
    parent = result["comparison"]["mlflow_run_id"]
    trials = pd.read_parquet(client.download_artifacts(parent, "trials.parquet"))
    kept = ("label", "optimizer", "learning_rate", "mean_validation_loss", "test_loss", "status", "rows", "recommended")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    names = [str(run.info.run_name) for run in children]
    assert len(set(names)) == len(names), f"recorded twice: {sorted(names)}"
    return Outcome(
        settings=[{key: item.get(key) for key in kept} for item in (*result["strategies"], *result["typed"])],
        trials=trials.drop(columns=[name for name in trials if "seconds" in name]),
        statuses=[run.info.status for run in runs],
        children={str(run.info.run_name): curves_of(client, run) for run in children},
    )


def curves_of(client: MlflowClient, run: Run) -> dict[str, list[tuple[int, float]]]:
    """Return the histories of the run's metrics that are losses."""
    losses = [name for name in run.data.metrics if "loss" in name and "second" not in name and not name.startswith("system/")]
    return {name: [(item.step, item.value) for item in client.get_metric_history(run.info.run_id, name)] for name in sorted(losses)}


def besieged(siege: Siege, drawn: random.Random, seconds: float, most_blows: int, targets: Mapping[str, float]) -> None:
    """Strike commands at random moments of the so many seconds that one takes, until one ends or it was struck often enough; let the last
    one come to its end."""
    for _ in range(most_blows):
        (target,) = drawn.choices(list(targets), list(targets.values()))
        number = drawn.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        if not siege.struck(target, signal.SIGKILL if target == "measuring" else number, drawn.uniform(0, seconds)):
            return
    assert not siege.struck("command", signal.SIGKILL, PATIENCE_SECONDS)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that the work takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began
