"""Finding every group's learning rate: coarse, finer or further, then the best few with more seeds; and the target they aim at."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from batchlab.analysis.curves import LARGER_SHARES, SHARE_LEFT, target_loss
from batchlab.engine.loop import train
from batchlab.engine.recorder import Recorder
from batchlab.engine.records import Progress, Trial, TrialResult
from batchlab.search import rates
from batchlab.search.progression import Progression
from batchlab.search.trials import mean_levels, ranked_rates, rows_to, summaries

if TYPE_CHECKING:
    from batchlab.search.search import Search

FINAL = 500_009
"""Seeds of the final rates are so far from those of the first rounds."""
RESERVED = 0.3
"""Of a limited time, this share is kept for confirming and timing."""


class OutOfTime(Exception):
    """The time that tuning may take is over."""


def coarse(search: "Search", item: Progression) -> None:
    """Train the coarse grid of rates."""
    tune(search, item, rates.coarse(item.group.first.optimizer, search.rule.rates))


def given(search: "Search", item: Progression) -> None:
    """Train the rates that the profile gives."""
    tune(search, item, item.group.first.rates or ())


def refine(search: "Search", item: Progression) -> None:
    """Train rates between the best one and its neighbours, or beyond it where it lies at the edge."""
    if item.tuned:
        tried = sorted({result.trial.learning_rate for result in item.tuned})
        tune(search, item, rates.further(tried, ranked(search, item)[0], search.rule.finer_rates))


def play_off(search: "Search", item: Progression) -> None:
    """Train the best few rates with many more seeds: what a few seeds flattered falls behind."""
    if item.tuned:
        before = len(item.tuned)
        tune(search, item, ranked(search, item)[: search.rule.final_rates], search.rule.final_seeds, first_seed=FINAL)
        item.finals = item.tuned[before:]


def tune(search: "Search", item: Progression, chosen: Sequence[float], seed_count: int | None = None, first_seed: int = 0) -> None:
    """Train the chosen rates, each with the same seeds."""
    seeds = [search.profile.seed + first_seed + number for number in range(seed_count or search.rule.tuning_seeds)]
    item.tuned += trained(search, item, [Trial(rate, seed) for rate in chosen for seed in seeds])


def within_time(search: "Search", item: Progression, work: "Callable[[Search, Progression], None]") -> None:
    """Do the work unless the time for tuning is over, also in the middle of it."""
    try:
        if is_late(search):
            raise OutOfTime
        work(search, item)
    except OutOfTime:
        note = f"tuning ended at {search.rule.max_minutes:g} minutes' limit, before every strategy had all its trials"
        if note not in search.notes:
            search.notes.append(note)


def is_late(search: "Search") -> bool:
    """Whether the time for tuning is over and there is something to confirm."""
    limit = search.rule.max_minutes
    return limit is not None and search.seconds > 60 * limit * (1 - RESERVED) and any(item.tuned for item in search.groups.values())


def trained(search: "Search", item: Progression, trials: Sequence[Trial]) -> list[TrialResult]:
    """Train trials of the group under the search's budget, without keeping weights; raises OutOfTime when tuning must end."""

    def tell(progress: Progress) -> None:
        search.on_progress(item.group.label, progress)
        if is_late(search):
            raise OutOfTime

    return run(search, item, trials, tell, {"keep": "last"}, weights=False)


def run(
    search: "Search",
    item: Progression,
    trials: Sequence[Trial],
    on_progress: Callable[[Progress], None],
    changes: dict[str, str],
    weights: bool,
    on_evaluation: Callable[[Recorder], None] = lambda recorder: None,
) -> list[TrialResult]:
    """Train the group's trials with `changes` to the plan, and keep account of them."""
    first, began, exp = item.group.first, time.perf_counter(), search.experiment
    plan = search.plan.model_copy(update={"optimizer": first.optimizer, "patience": None, **changes})
    strategy, model = first.strategy.updates, search.experiment.model
    results = train(
        search.data, model, strategy, trials, plan, exp.loss, exp.device, on_progress, on_evaluation=on_evaluation, weights=weights
    )
    search.trial_count += len(trials)
    item.seconds += time.perf_counter() - began
    return results


def aim(search: "Search") -> None:
    """Set the target from all tuning curves so far, unless the user did."""
    tuned = [result for item in search.groups.values() for result in item.tuned]
    if not tuned:
        return
    search.first_loss = float(np.mean([result.curve.validation_loss[0] for result in tuned]))
    if search.rule.target_loss is None:
        levels = [level for item in search.groups.values() for level in mean_levels(item.tuned)]
        constant = search.experiment.constant_loss
        search.start_loss = min(search.first_loss, constant) if min(levels) < constant else search.first_loss
        search.target = target_loss(search.start_loss, levels)


def ease_target(search: "Search") -> None:
    """Raise a chosen target, step by step, until some setting brings all its confirmed seeds there; as it was where none ever does."""
    if search.rule.target_loss is not None or search.target is None:
        return
    levels = [level for item in search.groups.values() for level in mean_levels(item.tuned)]
    searched = [item.confirmed for item in search.known if not item.group.first.typed]
    for share in (SHARE_LEFT, *LARGER_SHARES):
        target = target_loss(search.start_loss, levels, share)
        if any(np.isfinite([rows_to(result, target) for result in results]).all() for results in searched):
            search.target, search.share_left = target, share
            break
    if search.share_left > SHARE_LEFT:
        search.notes.append(
            f"the target leaves {search.share_left:.0%} of the way instead of {SHARE_LEFT:.0%}: no setting got closer with every seed"
        )


def ranked(search: "Search", item: Progression) -> list[float]:
    """Return the group's rates, best first; once there are final ones, those, by their own seeds."""
    return ranked_rates(summaries(item.finals or item.tuned, search.target), search.rule.objective == "test_loss" or search.target is None)


def settle(search: "Search") -> None:
    """Choose every group's rate; those that people type have theirs."""
    for item in search.groups.values():
        first = item.group.first
        if first.typed and first.rates is not None:
            item.rate = first.rates[0]
        elif item.tuned:
            item.rate = ranked(search, item)[0]
    missing = [item.group.label for item in search.groups.values() if item.rate is None]
    if missing:
        search.notes.append(f"not tried, for lack of time: {', '.join(missing)}")
