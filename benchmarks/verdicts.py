"""`make verdicts`: the verdict on five data sets, and whether it holds: the recommended setting trained afresh with five new seeds."""

import datetime
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import make_friedman1

from batchlab.analysis.estimates import Estimate, log_mean
from batchlab.config import Profile, load_profile
from batchlab.engine.loop import train
from batchlab.engine.records import Trial
from batchlab.experiment import Experiment
from batchlab.report.page import page
from batchlab.report.wording import number, seconds, verdict_text
from batchlab.search.findings import Finding
from batchlab.search.search import Search
from batchlab.search.timing import Stopwatch
from batchlab.search.trials import steps_to
from batchlab.split import split
from batchlab.table import pack
from benchmarks import machine

NEW_SEEDS, FIRST_NEW_SEED = 5, 7_000_001
FOLDER = Path(__file__).resolve().parent
DATA, PAGE = FOLDER / "verdicts.json", FOLDER.parent / "docs" / "verdicts.md"


def friedman(folder: Path) -> Path:
    """Write a million rows of Friedman's first problem (1991): ten features of which five count, not linearly."""
    features, target = make_friedman1(1_000_000, noise=1.0, random_state=0)
    path = folder / "friedman.parquet"
    pd.DataFrame(features.astype(np.float32), columns=[f"x{place}" for place in range(10)]).assign(y=target).to_parquet(path)
    return path


def problems(folder: Path) -> dict[str, Callable[[], Profile]]:
    """Return what is compared, by name."""
    return {
        "the lesson's prices": lambda: load_profile("lesson"),
        "diabetes, linear": lambda: load_profile("quick", data="diabetes"),
        "breast_cancer, linear": lambda: load_profile("quick", data="breast_cancer"),
        "digits, mlp 64-64": lambda: load_profile("quick", data="digits", overrides=["model.kind=mlp"]),
        "1M rows of prices, linear": lambda: load_profile("quick", data="synthetic", overrides=["source.rows=1000000"]),
        "1M rows of Friedman 1, mlp 64-64, 3 minutes": lambda: load_profile(
            "quick", data=str(friedman(folder)), target="y", overrides=["model.kind=mlp", "search.max_minutes=3"]
        ),
    }


def main() -> None:
    """Make all verdicts, check each afresh, and write what came of it; pages go to the folder that is named."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "verdicts")
    folder.mkdir(parents=True, exist_ok=True)
    results = {"date": datetime.date.today().isoformat(), "machine": machine.described(), "verdicts": []}
    for name, profile in problems(folder).items():
        results["verdicts"].append(measured(name, profile(), folder))
        print(results["verdicts"][-1]["text"], end="\n\n", flush=True)
    DATA.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text("\n".join(lines(results)) + "\n")


def measured(name: str, profile: Profile, folder: Path) -> dict[str, Any]:
    """Return the verdict of one problem and what fresh trainings came to."""
    began = time.perf_counter()
    table = pack(profile.source, profile.named_columns(), folder / "tables", profile.seed)
    experiment = Experiment(profile, table, split(table, profile.split, profile.seed))
    search = Search(experiment)
    for part in search.parts():
        part.run()
    found, best = search.findings, search.findings.best
    assert best is not None
    assert found.choice is not None
    html = page(found, title=name, unit=experiment.loss_unit_name, facts={}, tracking_seconds={}, links={})
    (folder / f"{name.split(',')[0].replace(' ', '-')}.html").write_text(html)
    fresh = afresh(search, best)
    return {
        "name": name,
        "text": f"{name}\n{verdict_text(found)}",
        "notes": list(found.notes),
        "wall_seconds": time.perf_counter() - began,
        "predicted_seconds": search.predicted_seconds,
        "value": found.choice.value.model_dump(),
        "one_more": found.choice.one_more.model_dump(),
        "fresh_seconds": fresh,
        "typed": [[pair.label, pair.ratio, *pair.ratio_ci, pair.at_least] for pair in found.against_typed],
    }


def afresh(search: Search, best: Finding) -> list[float]:
    """Return the seconds to the target of five trainings with new seeds: their steps, times a step timed anew and alone."""
    exp, plan = search.experiment, search.plan.model_copy(update={"optimizer": best.candidate.optimizer})
    trials = [Trial(best.learning_rate, FIRST_NEW_SEED + place) for place in range(NEW_SEEDS)]
    strategy = best.candidate.strategy
    results = train(search.data, exp.model, strategy, trials, plan, exp.loss, exp.device, weights=False)
    item = next(item for item in search.known if best.candidate in item.group.members)
    again = Stopwatch(exp, search.data)
    again.sitting([item], 4, search.target, search.plan)
    step = again.timings[best.candidate].step().value
    return [max(1.0, steps_to(result, search.target)) * step for result in results]


def lines(results: dict[str, Any]) -> list[str]:
    """Return the page."""
    described = results["machine"]
    text = [
        "# Verdicts, and whether they hold",
        "",
        f"`make verdicts` on {results['date']}: {described['processor']}, {described['cores']} cores. Each recommended setting was trained",
        "afresh with five new seeds, and a step timed anew; the pages come with `make verdicts`.",
        "",
        "| data | took (estimated at most) | value (95% CI) | five new seeds, mean | in the CI | each in the interval of one training |",
        "|---|---|---|---|---|---|",
    ]
    text += [_row(item) for item in results["verdicts"]]
    for item in results["verdicts"]:
        name, *said = item["text"].splitlines()
        text += ["", f"## {name}", "", *(f"> {line}  " for line in said), "", *(f"- {note}" for note in item["notes"])]
        text += ["", *_beside(item["typed"])]
    return text


def _row(item: dict[str, Any]) -> str:
    value, one = Estimate(**item["value"]), Estimate(**item["one_more"])
    fresh = item["fresh_seconds"]
    mean = log_mean(fresh).interval().value if np.isfinite(fresh).all() else float("nan")
    inside = sum(one.holds(seconds) for seconds in fresh)
    cells = [
        item["name"],
        f"{seconds(item['wall_seconds'])} ({seconds(item['predicted_seconds'])})",
        f"{seconds(value.value)} ({seconds(value.low)}–{seconds(value.high)})",
        seconds(mean),
        "yes" if value.holds(mean) else f"no, {number(mean / value.value)}×",
        f"{inside} of {len(fresh)}",
    ]
    return "| " + " | ".join(cells) + " |"


def _beside(typed: Sequence[Sequence[Any]]) -> list[str]:
    rows = ["| what people type | seconds to the same target, over the recommended one's (97.5% CI) |", "|---|---|"]
    for label, ratio, low, high, at_least in typed:
        ends = f"over {number(low)}" if at_least else f"{number(low)}–{number(high)}"
        rows.append(f"| {label} | {'at least ' if at_least else ''}{number(ratio)}× ({ends}) |")
    return rows


if __name__ == "__main__":
    main()
