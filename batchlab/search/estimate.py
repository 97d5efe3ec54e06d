"""How long a search will take, from a short look at each group."""

import time
from typing import TYPE_CHECKING

from batchlab.engine.loop import train
from batchlab.engine.records import Trial
from batchlab.search import rates

if TYPE_CHECKING:
    from batchlab.search.progression import Progression
    from batchlab.search.search import Search

LOOKED_AT_STEPS, LOOKED_AT_ROWS = 4, 4096
SECONDS_A_SETTING, SECONDS_APART = 0.4, 4.0
"""Timing a setting and recording it; memory, loader and report."""


def predicted_seconds(search: "Search") -> float:
    """Return the seconds that the whole search should take, told from a few steps of every group's stacked trials."""
    trainings = sum(_of_group(search, item) for item in search.groups.values())
    return trainings + fixed_seconds(search)


def fixed_seconds(search: "Search") -> float:
    """Return the seconds that do not depend on how many rows a trial sees."""
    return SECONDS_A_SETTING * len(search.candidates) + SECONDS_APART


def _of_group(search: "Search", item: "Progression") -> float:
    rule, exp, first = search.rule, search.experiment, item.group.first
    together = rule.tuning_seeds * (rule.rates if first.rates is None else len(first.rates))
    rate = (first.rates or rates.coarse(first.optimizer, rule.rates))[0]
    rows = min(search.budget_rows, max(LOOKED_AT_STEPS * first.batch_rows, LOOKED_AT_ROWS))
    plan = search.plan.model_copy(update={"max_rows": rows, "optimizer": first.optimizer, "evaluations": 2, "hopeless_after": 1.0})
    count = 1 if first.strategy.adapts else together
    trials = [Trial(rate, search.profile.seed + place % rule.tuning_seeds) for place in range(count)]
    strategy = first.strategy.updates
    for _ in range(2):  # the first look loads the kernels
        began = time.perf_counter()
        result = train(search.data, exp.model, strategy, trials, plan, exp.loss, exp.device, weights=False)[0]
        fixed = time.perf_counter() - began - result.train_seconds - result.evaluation_seconds
    ordering = search.stopwatch.order_seconds(first) * len({trial.seed for trial in trials})
    moving = max(result.train_seconds - ordering, 0.0) * search.budget_rows / rows
    whole = (
        moving
        + ordering * -(-search.budget_rows // strategy.rows_drawn_at_once(search.row_count))
        + result.evaluation_seconds / 3 * (search.plan.evaluations + 1)
        + fixed
    )
    return whole / count * (search.planned_tuning(first) + rule.seeds)
