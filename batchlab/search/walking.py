"""Walking forward: the recommended setting trained on the past and tested on the next period, fold by fold."""

from dataclasses import replace
from typing import Any

import numpy as np

from batchlab.analysis.estimates import log_mean
from batchlab.engine.loop import train
from batchlab.engine.records import Plan, Trial
from batchlab.experiment import Experiment
from batchlab.results import Period
from batchlab.rows.split import Split, walk_forward
from batchlab.search.draws import budgeted, thinned
from batchlab.search.findings import Finding, Findings
from batchlab.search.remarks import walk_note
from batchlab.search.work import confirming_marks


def walked(experiment: Experiment, plan: Plan, found: Findings) -> Findings:
    """Return the findings with what the recommended setting comes to in each period, trained afresh on all rows before it."""
    best = found.best
    if best is None:
        return found
    folds = walk_forward(experiment.table, experiment.profile.split)
    periods = [_period(experiment, plan, best, number, fold) for number, fold in enumerate(folds, start=1)]
    trainings = found.trials + len(folds) * len(best.results)
    return replace(found, periods=periods, notes=[*found.notes, walk_note(periods)], trials=trainings)


def _period(experiment: Experiment, plan: Plan, best: Finding, number: int, fold: Split) -> Period:
    exp, sizes = Experiment(experiment.profile, experiment.table, fold), fold.sizes()
    rows = max(result.rows_seen for result in best.results)
    plan = budgeted(experiment.profile.train.model_copy(update={"max_rows": plan.max_rows}), sizes["train"])
    plan = plan.model_copy(update={"optimizer": best.candidate.optimizer, "patience": None, "keep": "last"})
    data, strategy = thinned(exp), best.candidate.strategy.updates
    trials = [Trial(best.learning_rate, result.trial.seed) for result in best.results]
    results = train(data, exp.model, strategy, trials, plan, exp.loss, exp.device, marks=confirming_marks(rows))
    loss = log_mean(exp.test_losses(results)).interval()
    first, last = _moments(exp, fold)
    return Period(
        number=number,
        first=first,
        last=last,
        train_rows=sizes["train"],
        test_rows=sizes["test"],
        test_loss=loss.value,
        test_loss_ci=(loss.low, loss.high if np.isfinite(loss.high) else None),
        constant_test_loss=exp.constant_test_loss,
    )


def _moments(exp: Experiment, fold: Split) -> tuple[str, str]:
    """Return the first and the last moment of the test rows: dates, numbers of time, or row numbers."""
    rows, times = fold.rows("test"), exp.table.side_column("time")
    values: Any = rows if times is None else times[rows]
    ends = (values.min(), values.max())
    if times is not None and times.dtype == np.int64:
        first, last = (str(np.datetime64(int(value), "us").astype("datetime64[s]")).replace("T", " ") for value in ends)
    else:
        first, last = (f"{value:,}" if times is None else f"{value:g}" for value in ends)
    return first, last
