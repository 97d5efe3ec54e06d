"""Walking forward: the recommended setting trained on the past and tested on the next period, fold by fold."""

from typing import TYPE_CHECKING, Any

import numpy as np

from batchlab.analysis.estimates import log_mean
from batchlab.engine.loop import train
from batchlab.engine.records import Trial
from batchlab.experiment import Experiment
from batchlab.results import Period
from batchlab.search.findings import Finding
from batchlab.split import Split, walk_forward

if TYPE_CHECKING:
    from batchlab.search.search import Search


def walked(search: "Search") -> list[Period]:
    """Return what the recommended setting comes to in each period, trained afresh on all rows before it; nothing without one."""
    best, exp = search.findings.best, search.experiment
    if best is None:
        return []
    folds = walk_forward(exp.table, exp.profile.split)
    return [_period(search, best, number, fold) for number, fold in enumerate(folds, start=1)]


def _period(search: "Search", best: Finding, number: int, fold: Split) -> Period:
    from batchlab.search.search import budgeted, thinned

    exp = Experiment(search.profile, search.experiment.table, fold)
    sizes = fold.sizes()
    plan = budgeted(search.profile.train.model_copy(update={"max_rows": search.plan.max_rows}), sizes["train"])
    plan = plan.model_copy(update={"optimizer": best.candidate.optimizer, "patience": None, "keep": "settled"})
    trials = [result.trial for result in best.results]
    data, strategy = thinned(exp), best.candidate.strategy.updates
    results = train(data, exp.model, strategy, [Trial(best.learning_rate, trial.seed) for trial in trials], plan, exp.loss, exp.device)
    search.trial_count += len(trials)
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
