"""Whether verdicts on small tables hold on rows that nobody has seen: many tables of one law, and more rows to tell the truth."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from batchlab.analysis.verdict import paired
from batchlab.config import load_profile
from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.records import Trial
from batchlab.search.findings import Finding
from batchlab.search.search import Search
from batchlab.search.work import confirming_marks
from benchmarks.verdict_checks import FIRST_NEW_SEED, NEW_DRAWS, experiment_of, searched

ROWS, NEW_ROWS, FEATURES = 500, 20_000, 8
SETTINGS = (
    *("scale=false", "search.max_minutes=0.12", "search.objective=loss", "search.yardsticks=false"),
    *("model.kind=mlp", "model.widths=[16]", "train.epochs=60"),
)
Numbers = NDArray[np.float64]


def on_new_rows(folder: Path, split: str, tables: int) -> dict[str, Any]:
    """Search so many tables, and say how often the interval of the recommended setting's loss holds its loss on new rows; of all pairs of
    it and another setting how often the interval of their ratio does (97.5% are promised), how many were called worse, and how many of
    these are better in truth; and how much the recommended setting loses to the best of its table."""
    found = {"tables": tables, "loss_covered": 0, "pairs": 0, "ratio_covered": 0, "called_worse": 0, "better_in_truth": 0}
    regrets = []
    for seed in range(tables):
        search, new = _searched(folder, split, seed)
        best, choice = search.findings.best, search.findings.choice
        assert best is not None
        assert choice is not None
        own = _truth(search, best, new)
        others = [item for item in (*search.findings.settings, *search.findings.typed) if item.outcome.status in ("reached", "not_reached")]
        truths = {item.candidate.label: _truth(search, item, new) for item in others if item is not best}
        found["loss_covered"] += choice.loss.holds(own)
        for item in others:
            if item is best:
                continue
            pair, ratio = paired(item.outcome, best.outcome, "loss"), truths[item.candidate.label] / own
            found["pairs"] += 1
            found["ratio_covered"] += pair.loss_ratio_ci[0] <= ratio <= pair.loss_ratio_ci[1]
            found["called_worse"] += pair.worse
            found["better_in_truth"] += pair.worse and ratio < 1
        regrets.append(own / min([own, *truths.values()]) - 1)
    return found | {"mean_regret": round(float(np.mean(regrets)), 4), "most_regret": round(max(regrets), 4)}


def _searched(folder: Path, split: str, seed: int) -> tuple[Search, TrainingData]:
    """Return a finished search on a table of its own, and its data with the new rows in the place of the validation rows."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(ROWS + NEW_ROWS, FEATURES))
    signal = features @ rng.normal(size=FEATURES) / 3 + 0.4 * np.sin(2 * features[:, 0])
    target = signal + 0.5 * rng.standard_t(4, len(features))
    path = folder / f"new-rows-{seed}.parquet"
    pd.DataFrame({f"x{place}": features[:ROWS, place] for place in range(FEATURES)} | {"y": target[:ROWS]}).to_parquet(path)
    profile = load_profile("quick", data=str(path), target="y", overrides=[f"split.kind={split}", *SETTINGS])
    search = searched(experiment_of(profile, folder))
    new = [torch.tensor(values[ROWS:], dtype=torch.float32) for values in (features, target)]
    return search, replace(search.experiment.data, validation_features=new[0], validation_target=new[1])


def _truth(search: Search, item: Finding, new: TrainingData) -> float:
    """Return the mean loss on the new rows of fresh trainings of a setting."""
    exp, setting = search.experiment, item.candidate.setting
    plan = search.plan.model_copy(update={"optimizer": setting.optimizer, "patience": None, "keep": "last"})
    trials = [Trial(setting.learning_rate, FIRST_NEW_SEED + draw) for draw in range(NEW_DRAWS)]
    marks = confirming_marks(int(item.outcome.budget_rows))
    results = train(new, exp.model, setting.updates, trials, plan, exp.loss, exp.device, marks=marks, weights=False)
    return float(np.mean([result.curve.validation_loss[-1] for result in results])) * search.findings.loss_unit
