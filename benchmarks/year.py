"""`python -m benchmarks.year`: a year of weekly retrains with the real flow, on made-up rows; writes docs/retraining_year.md and .png."""

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine, year_page
from benchmarks.year_data import MIXED, NOISE, SCHEMA, TARGET, TIME, TRUE_ROWS, WEEKS, arrive, drawn, lowest_loss, monday

if TYPE_CHECKING:
    from batchlab.retraining.outcome import Retraining

FOLDER = Path(__file__).resolve().parent
DATA, PROFILE = FOLDER / "year.json", FOLDER / "year.toml"
NAME, EXERCISE = "demand", 46
"""In that week somebody rolls back although nothing is wrong, unless wrong data have been reason enough before."""


@dataclass(frozen=True)
class Entry:
    """One decision of the year: what the flow or a person decided and why; both sides' mean losses on its holdout and, on fresh rows of the
    same week, in truth; the lowest loss possible on that holdout; how the challenger began and how many rows trained it; what it took."""

    when: datetime
    week: int
    decision: str
    reason: str
    version: int | None = None
    champion: int | None = None
    champion_loss: float | None = None
    challenger_loss: float | None = None
    improvement: float | None = None
    interval: tuple[float | None, float | None] = (None, None)
    true_champion_loss: float | None = None
    true_challenger_loss: float | None = None
    lowest_loss: float | None = None
    compared: str = ""
    start: str = ""
    train_rows: int | None = None
    drifted: bool = False
    seconds: float = 0.0


def main() -> None:
    """Live through the year and write what came of it; arguments are settings on top of year.toml, as key=value."""
    settings = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="batchlab-year-") as scratch:
        entries, wall = lived(Path(scratch), settings)
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.described(),
        "settings": settings,
        "seconds": wall,
        "entries": [asdict(entry) | {"when": entry.when.isoformat()} for entry in entries],
    }
    DATA.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    year_page.write(results)
    print(f"{wall:.0f} s; written: {DATA}, {year_page.PAGE}, {year_page.FIGURE}")


def lived(scratch: Path, settings: list[str]) -> tuple[list[Entry], float]:
    """Return every decision of the year and its seconds; server, store and data are in `scratch`."""
    os.environ.update(PREFECT_HOME=str(scratch / "prefect"), BATCHLAB_MLRUNS=str(scratch / "mlruns"))
    from flows import local_server, running

    folder = scratch / "shop"
    folder.mkdir()
    running.warm_up(running.prepare_server(temporary=False))
    began, entries = time.perf_counter(), list[Entry]()
    try:
        for week in range(1, WEEKS + 1):
            known = len(entries)
            entries.append(_week(folder, week, settings))
            if week == MIXED and entries[-1].decision == "promoted":
                entries.append(_rollback(week, "predictions are off: the targets of the week's file were mixed up"))
            elif week == EXERCISE and not any(item.decision == "rollback" for item in entries):
                entries.append(_rollback(week, "an exercise, although nothing is wrong with the champion"))
            for item in entries[known:]:
                print(f"{item.week:2} {item.seconds:5.1f} s {item.decision:12} {item.reason[:200]}", flush=True)
    finally:
        local_server.stopped()
    return entries, time.perf_counter() - began


def _week(folder: Path, week: int, settings: list[str]) -> Entry:
    """Let a week's file arrive, retrain as a schedule would, and return what came of it."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from batchlab.errors import BadInput
    from flows.retraining import retraining

    arrive(folder, week)
    began, when = time.perf_counter(), monday(week + 1)
    try:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            result = retraining(name=NAME, data=str(folder), target=TARGET, profile=str(PROFILE), overrides=settings)
    except BadInput as error:
        if week != SCHEMA:
            raise
        return Entry(
            when,
            week,
            "failed",
            str(error).replace(f"{folder.parent}{os.sep}", ""),
            champion=_champion(),
            seconds=time.perf_counter() - began,
        )
    return replace(_entry(folder, week, result), seconds=time.perf_counter() - began)


def _entry(folder: Path, week: int, result: "Retraining") -> Entry:
    entry = Entry(monday(week + 1), week, result.outcome, result.text, champion=result.champion)
    promotion = result.promotion
    if promotion is None:
        return entry
    return replace(
        entry,
        version=promotion.challenger,
        champion_loss=promotion.champion_loss,
        challenger_loss=promotion.challenger_loss,
        improvement=promotion.improvement,
        interval=promotion.interval,
        true_champion_loss=_true_loss(promotion.champion, week),
        true_challenger_loss=_true_loss(promotion.challenger, week),
        lowest_loss=lowest_loss(folder, promotion.holdout_rows),
        compared="; ".join(result.stale) if result.comparison_run_id else "",
        start=result.start or "",
        train_rows=result.train_rows,
        drifted=result.drift is not None and result.drift.drifted,
    )


def _rollback(week: int, why: str) -> Entry:
    """Go back to the previous champion, as a person may, and return that as an entry."""
    from tasks import history, registry

    before = registry.champion_of(NAME)
    reason = history.rolled_back(NAME, why)
    now = _champion()
    return Entry(
        monday(week + 1) + timedelta(days=2),
        week,
        "rollback",
        reason,
        version=now,
        champion=now,
        true_champion_loss=_true_loss(before.number if before else None, week),
        true_challenger_loss=_true_loss(now, week),
    )


def _champion() -> int | None:
    from tasks import registry

    champion = registry.champion_of(NAME)
    return None if champion is None else champion.number


def _true_loss(number: int | None, week: int) -> float | None:
    """Return a version's expected loss in a week's world: on many fresh rows, with the noise's part exact."""
    if number is None:
        return None
    import mlflow
    import numpy as np

    rows, truth = drawn(week, TRUE_ROWS, seed=1)
    predictions = mlflow.pyfunc.load_model(f"models:/{NAME}/{number}").predict(rows.drop(columns=[TARGET, TIME]))
    return float(np.mean((np.asarray(predictions, np.float64).ravel() - truth) ** 2)) + NOISE**2


if __name__ == "__main__":
    main()
