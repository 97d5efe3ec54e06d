"""Kills by the hundred: a search in a process that is forked with everything imported, killed at random moments and taken up again, until
one comes to its end. It keeps its state as often as it can, so that many kills fall into the writing.

`python -m tests.forked FOLDER --kills 20` is such a process; it prints what came of it as JSON.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import time
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd

from batchlab.config import Profile, load_profile
from batchlab.experiment import Experiment
from batchlab.rows.split import split
from batchlab.search.keeping import Kept
from batchlab.search.records import trials_frame
from batchlab.search.search import Search
from batchlab.table import pack

UNTIMED = [
    *("search.max_minutes=inf", "search.objective=loss", "search.rates=3", "search.tuning_seeds=2", "search.seeds=3"),
    *("search.timings=4", "search.batch_rows=[8,32]", "search.optimizers=['sgd', 'adamw']", "search.yardsticks=false", "train.epochs=30"),
]
STRATEGIES = ["full_batch", "accumulated", "mini_batch", "growing"]
LEAST_SECONDS, SHARE = 0.02, 0.3
MOST_KILLS, LONGEST = 40, 0.2
"""So often at most is one search killed before it may come to its end, and after at most this share of the time that it takes."""
PATIENCE_SECONDS = 600
FORK = multiprocessing.get_context("fork")


@dataclass
class Tally:
    """What came of all kills: `taken_up` counts those that left a state to go on from, `complaints` are what was said of damaged ones."""

    kills: int = 0
    searches: int = 0
    taken_up: int = 0
    undisturbed_seconds: float = 0.0
    differing: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def main() -> None:
    """Kill searches until there were so many kills or minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(json.dumps(asdict(killed(given.folder, given.kills, time.monotonic() + 60 * given.minutes, random.Random(given.seed)))))


def killed(folder: Path, most: int, until: float, drawn: random.Random) -> Tally:
    """Kill searches until there were so many kills or it is so late; the last one comes to its end too."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tally = Tally()
    began = time.monotonic()
    _joined(_begun(folder, folder / "calm.parquet"), None)
    tally.undisturbed_seconds = time.monotonic() - began
    calm = pd.read_parquet(folder / "calm.parquet")
    while tally.kills < most and time.monotonic() < until:
        _besiege(folder, tally, calm, drawn, min(MOST_KILLS, most - tally.kills), until)
    heard = folder / "heard.txt"
    tally.complaints = sorted(set(heard.read_text().splitlines())) if heard.exists() else []
    return tally


def _besiege(folder: Path, tally: Tally, calm: pd.DataFrame, drawn: random.Random, most: int, until: float) -> None:
    """Kill one search again and again and compare what it ends with."""
    ends = folder / "end.parquet"
    ends.unlink(missing_ok=True)
    for _ in range(most):
        if not _joined(_begun(folder, ends), drawn.uniform(0, LONGEST * tally.undisturbed_seconds)):
            tally.kills += 1
            tally.taken_up += any((folder / "state").glob("*.npz"))
        if ends.exists() or time.monotonic() > until:
            break
    if not ends.exists():
        _joined(_begun(folder, ends), None)
    tally.searches += 1
    if not ends.exists():
        tally.failed.append(f"after {tally.kills} kills a search did not come to its end")
        shutil.rmtree(folder / "state", ignore_errors=True)
    elif not pd.read_parquet(ends).equals(calm):
        tally.differing.append(f"after {tally.kills} kills")


def _begun(folder: Path, ends: Path) -> BaseProcess:
    process = FORK.Process(target=_searched, args=(folder, ends))
    process.start()
    return process


def _joined(process: BaseProcess, seconds: float | None) -> bool:
    """Wait for the process; kill it after so many seconds. Whether it had come to its end."""
    process.join(PATIENCE_SECONDS if seconds is None else seconds)
    over = process.exitcode is not None
    if not over:
        process.kill()
        process.join()
    return over


def _searched(folder: Path, ends: Path) -> None:
    """Search, or go on where the last one was killed; write all trials and the verdict's losses at the end."""
    os.setsid()

    def say(text: str) -> None:
        with (folder / "heard.txt").open("a") as heard:
            heard.write(f"{text}\n")

    profile = load_profile("quick", data="diabetes", strategies=STRATEGIES, overrides=UNTIMED)
    kept = Kept(folder / "state", say, LEAST_SECONDS, SHARE)
    search = Search(_experiment(profile, folder), known=kept.known(), kept=kept)
    for part in search.parts():
        part.run()
        search.keep()
    frame = trials_frame(search.known, search.experiment.loss_unit)
    found = search.findings
    losses = {item.candidate.label: item.outcome.loss for item in (*found.settings, *found.typed)}
    frame["losses"], frame["recommended"] = json.dumps(losses), str(found.best and found.best.candidate.label)
    draft = ends.with_suffix(".part")
    frame.to_parquet(draft)
    kept.forget()
    draft.replace(ends)


def _experiment(profile: Profile, folder: Path) -> Experiment:
    table = pack(profile.source, profile.named_columns(), folder / "tables", profile.seed)
    return Experiment(profile, table, split(table, profile.split, profile.seed))


if __name__ == "__main__":
    main()
