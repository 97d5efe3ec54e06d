"""`make verdicts`: whether verdicts hold, at every size and limit. Each stage adds to verdicts.json; the page is written from it.

Stages: `limits` (twelve data sets within several limits, every setting of each table trained afresh), `seeds` (the 200,000 rows made anew
five times, and two million), `peer` (Optuna on a plain PyTorch loop, the same space and wall time, three times), `truth` (intervals,
differences and planted ones), `new_rows` (small tables, split in time and at random, against rows that nobody has seen), `short` (limits
kept, from 0.1 minutes on, with networks that are dear to train, too).
"""

import argparse
import datetime
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.datasets import TWELVE, profile_of
from benchmarks.tuner_peer import tuned
from benchmarks.verdict_checks import coverage, errors, experiment_of, held, searched, told
from benchmarks.verdict_new_rows import on_new_rows
from benchmarks.verdicts_page import page

FOLDER = Path(__file__).resolve().parent
DATA, PAGE = FOLDER / "verdicts.json", FOLDER.parent / "docs" / "verdicts.md"
REPETITIONS, TABLES = 200, 40
PEER_SEEDS, PEER_MINUTES = 3, 1
"""A test loss of some hundred rows is luck: up to so many minutes a set is searched and tuned so many times."""
OWN = ("strategy", "batch_rows", "optimizer", "learning_rate", "rows", "loss", "test_loss", "search_seconds")
"""What is kept of a verdict beside its peer's."""
HELD_MINUTES = 3
"""Settings of a longer search are not trained afresh: its loss is what a shorter one's is compared with."""
Record = dict[str, Any]


def main() -> None:
    """Measure the stages that are named and write what came of all that were ever measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where data sets and packed tables go")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--sets", nargs="*", default=list(TWELVE))
    parser.add_argument("--minutes", nargs="*", type=float, default=[0.25, 1, 3, 10])
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for stage in given.stages:
        for key, record in STAGES[stage](given.folder, given.sets, given.minutes):
            kept(stage, key, record)
            print(stage, key, json.dumps({name: value for name, value in record.items() if not isinstance(value, list)})[:400], flush=True)
    PAGE.write_text(page(json.loads(DATA.read_text())) + "\n")


def kept(stage: str, key: str, record: Record) -> None:
    """Add one record to the file, beside those of other runs."""
    known = json.loads(DATA.read_text()) if DATA.exists() else {}
    known["machine"] = machine.described()
    known["date"] = datetime.date.today().isoformat()
    known.setdefault(stage, {})[key] = record
    DATA.write_text(json.dumps(known, indent=1) + "\n")


def limits(folder: Path, sets: Sequence[str], minutes: Sequence[float]) -> Any:
    """Search every data set within every limit, and train what its table shows afresh."""
    for name in sets:
        for limit in minutes:
            search = searched(experiment_of(profile_of(name, folder, limit), folder))
            record = told(search)
            if search.findings.best is not None and limit <= HELD_MINUTES:
                record["held"] = held(search)
            yield f"{name} {limit:g}", record


def seeds(folder: Path, sets: Sequence[str], minutes: Sequence[float]) -> Any:
    """Search the 200,000 rows, made with five different seeds, within 1 and 0.25 minutes; and two million rows within 3."""
    for name, limit, count in (("sines", 1.0, 5), ("sines", 0.25, 5), ("sines_2m", 3.0, 1)):
        for seed in range(count if limit in minutes else 0):
            search = searched(experiment_of(profile_of(name, folder, limit, seed=seed, data_seed=seed), folder))
            yield f"{name} {limit:g} seed {seed}", told(search)


def peer(folder: Path, sets: Sequence[str], minutes: Sequence[float]) -> Any:
    """Give Optuna the same wall time on the same rows, one after the other; for a short time with several seeds."""
    for name in sets:
        for limit in minutes:
            for seed in range(PEER_SEEDS if limit <= PEER_MINUTES else 1):
                experiment = experiment_of(profile_of(name, folder, limit, seed=seed, data_seed=seed), folder)
                search = searched(experiment)
                train = experiment.profile.train
                count = experiment.split.sizes()["train"]
                its = tuned(experiment, 60 * limit, min(train.max_rows or 10**12, train.epochs * count))
                yield f"{name} {limit:g} seed {seed}", its | {"own": {key: value for key, value in told(search).items() if key in OWN}}


def truth(folder: Path, sets: Sequence[str], minutes: Sequence[float]) -> Any:
    """Say how often intervals cover what many fresh trainings come to, and how often differences are seen, planted ones too."""
    for name in ("diabetes", "breast_cancer", "wide"):
        search = searched(experiment_of(profile_of(name, folder, 0.5), folder))
        yield f"coverage {name}", coverage(search, REPETITIONS)
    search = searched(experiment_of(profile_of("sines", folder, 1.0, extra=("train.max_rows=500000",)), folder))
    yield "errors sines", errors(search, REPETITIONS, draws=5, factor=1.05)


def new_rows(folder: Path, sets: Sequence[str], minutes: Sequence[float]) -> Any:
    """Say how verdicts on small tables, split in time and at random, hold on new rows."""
    for kind in ("chronological", "random"):
        yield f"{kind} split", on_new_rows(folder, kind, TABLES)


def short(folder: Path, sets: Sequence[str], minutes: Sequence[float]) -> Any:
    """Search four data sets within two limits each, from 0.1 to 3 minutes, and rows that are dear to train on; say what they took."""
    pairs = (
        ("diabetes", 0.1),
        ("diabetes", 0.5),
        ("digits", 0.2),
        ("digits", 1),
        ("sines", 0.1),
        ("sines", 0.5),
        ("friedman", 0.3),
        ("friedman", 3),
        ("dear", 0.1),
        ("dear", 0.3),
        ("dearer", 0.5),
        ("dearer", 1),
        ("dearer", 3),
    )
    for name, limit in pairs:
        experiment = experiment_of(profile_of(name, folder, limit), folder)
        began = time.perf_counter()
        search = searched(experiment)
        took = time.perf_counter() - began
        allowed = 1.1 * 60 * limit + 2
        yield f"{name} {limit:g}", {"limit_seconds": 60 * limit, "took_seconds": took, "kept": took <= allowed, **told(search)}


STAGES: dict[str, Callable[[Path, Sequence[str], Sequence[float]], Any]] = {
    "limits": limits,
    "seeds": seeds,
    "peer": peer,
    "truth": truth,
    "new_rows": new_rows,
    "short": short,
}

if __name__ == "__main__":
    main()
