"""The verdict: which setting to train with, compared pair by pair with the runner-up and with full batch. Pure functions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.estimates import Estimate, LogMean, Spread, log_mean, ratio
from batchlab.results import Result

Objective = Literal["time", "rows", "memory", "test_loss"]
Status = Literal["reached", "not_reached", "diverged"]
Numbers = NDArray[np.float64]

PAIR_CONFIDENCE = 0.975
"""The verdict makes two comparisons, with the runner-up and with full batch, so each has half of the 5% (Bonferroni)."""


@dataclass(frozen=True)
class Outcome:
    """What was measured of one setting. `steps` and `rows` `[seeds]` to the target are NaN where it was never reached; then the training
    ended after `budget_steps` and `budget_rows`. `seconds_per_step` `[rounds]`, `peak_bytes` `[measurements]`; `validation_loss` (the
    level of the curve) and `test_loss` `[seeds]`. Seeds and rounds are the same ones for all settings: they pair."""

    label: str
    name: str
    batch_rows: int
    learning_rate: float
    diverged: bool
    steps: Numbers
    rows: Numbers
    budget_steps: float
    budget_rows: float
    seconds_per_step: Numbers
    peak_bytes: Numbers
    validation_loss: Numbers
    test_loss: Numbers

    @property
    def seeds_reached(self) -> int:
        return int(np.isfinite(self.steps).sum())

    @property
    def status(self) -> Status:
        """Reached means by every seed."""
        if self.diverged:
            return "diverged"
        return "reached" if self.seeds_reached == len(self.steps) else "not_reached"

    @property
    def least_steps(self) -> Numbers:
        """Steps to the target; where it was not reached, those that were made without reaching it."""
        return np.where(np.isfinite(self.steps), self.steps, self.budget_steps)

    @property
    def least_rows(self) -> Numbers:
        """Rows to the target, or those seen without reaching it."""
        return np.where(np.isfinite(self.rows), self.rows, self.budget_rows)

    def seconds(self) -> LogMean:
        """Return seconds to the target: steps × seconds a step, with both uncertainties. A lower bound where seeds did not reach it."""
        return log_mean(self.least_steps).times(log_mean(self.seconds_per_step))


@dataclass(frozen=True)
class Measure:
    """What an objective goes by: its value, and another setting's value over this one's, and what settings are ranked by."""

    value: Callable[[Outcome], LogMean]
    over: Callable[[Outcome, Outcome], LogMean]
    rank: Callable[[Outcome], float]
    needs_target: bool = True


PAGES_BYTES = 8192
"""Memory comes in pages, so a peak is known to about two of them."""


def _to_pages(*items: "Outcome") -> LogMean:
    """Return the uncertainty of peaks that come in pages, as a factor."""
    return LogMean(0.0, (Spread(float(sum((PAGES_BYTES / np.mean(item.peak_bytes)) ** 2 for item in items)), math.inf),))


MEASURES: dict[Objective, Measure] = {
    "time": Measure(
        value=Outcome.seconds,
        over=lambda a, b: ratio(a.least_steps, b.least_steps).times(ratio(a.seconds_per_step, b.seconds_per_step)),
        rank=lambda item: item.seconds().mean,
    ),
    "rows": Measure(
        value=lambda item: log_mean(item.least_rows),
        over=lambda a, b: ratio(a.least_rows, b.least_rows),
        rank=lambda item: log_mean(item.least_rows).mean,
    ),
    "memory": Measure(
        value=lambda item: log_mean(item.peak_bytes).times(_to_pages(item)),
        over=lambda a, b: ratio(a.peak_bytes, np.full(len(a.peak_bytes), np.exp(np.log(b.peak_bytes).mean()))).times(_to_pages(a, b)),
        rank=lambda item: log_mean(item.peak_bytes).mean,
    ),
    # Chosen by validation rows: to choose by test rows would be tuning on them.
    "test_loss": Measure(
        value=lambda item: log_mean(item.test_loss),
        over=lambda a, b: ratio(a.test_loss, b.test_loss),
        rank=lambda item: log_mean(item.validation_loss).mean,
        needs_target=False,
    ),
}


class Pair(Result):
    """Another setting's value over the recommended one's, with its 97.5% interval; unbounded above where the other never got there."""

    label: str
    ratio: float
    ratio_ci: tuple[float, float]
    at_least: bool

    @property
    def detectable(self) -> bool:
        """Whether the interval excludes equality."""
        return not self.ratio_ci[0] <= 1 <= self.ratio_ci[1]


class Choice(Result):
    """The recommended setting and its comparisons. `value` is in seconds, rows, bytes or loss, as the objective says; `one_more` is the
    interval in which a further training falls. `ties` are settings that cannot be told from it."""

    label: str
    objective: Objective
    value: Estimate
    one_more: Estimate
    sure: bool
    runner_up: Pair | None
    full_batch: Pair | None
    ties: tuple[str, ...]


def chosen(outcomes: Sequence[Outcome], objective: Objective = "time") -> Choice | None:
    """Return the best setting by the objective among those that every seed brought to the target (else by the most seeds), with its
    paired comparisons. Of settings that make the same steps and cannot be told apart, the first one counts. None when all diverged."""
    measure = MEASURES[objective]
    ranked = sorted((item for item in outcomes if item.status != "diverged"), key=lambda item: rank_of(item, objective))
    if not ranked:
        return None
    best = _first_of_alike(ranked[0], outcomes, objective)
    place = next(place for place, item in enumerate(ranked) if item is best)
    others = ranked[:place] + ranked[place + 1 :]
    pairs = [paired(other, best, objective) for other in others]
    value = measure.value(best)
    return Choice(
        label=best.label,
        objective=objective,
        value=value.interval(),
        one_more=value.of_one_more(_scatter(best, objective)),
        sure=best.status == "reached" or not measure.needs_target,
        runner_up=pairs[0] if pairs else None,
        full_batch=next((pair for pair, item in zip(pairs, others, strict=True) if item.name == "full_batch"), None),
        ties=tuple(
            pair.label for pair, item in zip(pairs, others, strict=True) if not pair.detectable and not _misses_more(item, best, measure)
        ),
    )


def paired(other: Outcome, best: Outcome, objective: Objective) -> Pair:
    """Return how many times the best setting's value the other one's is."""
    measure = MEASURES[objective]
    found = measure.over(other, best).interval(PAIR_CONFIDENCE)
    if not math.isfinite(found.value):  # a seed diverged, so there is no mean to compare
        return Pair(label=other.label, ratio=math.inf, ratio_ci=(0.0, math.inf), at_least=False)
    bound = measure.needs_target and objective != "memory" and other.seeds_reached < len(other.steps)
    return Pair(label=other.label, ratio=found.value, ratio_ci=(found.low, math.inf if bound else found.high), at_least=bound)


def _first_of_alike(best: Outcome, outcomes: Sequence[Outcome], objective: Objective) -> Outcome:
    def steps_alike(item: Outcome) -> bool:
        return np.array_equal(item.steps, best.steps) and np.array_equal(item.validation_loss, best.validation_loss)

    alike = (item for item in outcomes if steps_alike(item))
    return next((item for item in alike if item is best or not paired(item, best, objective).detectable), best)


def _misses_more(item: Outcome, best: Outcome, measure: Measure) -> bool:
    return measure.needs_target and item.seeds_reached < best.seeds_reached


def rank_of(item: Outcome, objective: Objective) -> tuple[int, float]:
    """Return what settings are sorted by: seeds that missed the target, then the measure; where none got there, the loss."""
    measure = MEASURES[objective]
    missed = len(item.steps) - item.seeds_reached if measure.needs_target else int((~np.isfinite(item.test_loss)).sum())
    never = measure.needs_target and item.seeds_reached == 0
    return missed, MEASURES["test_loss"].rank(item) if never else measure.rank(item)


def _scatter(item: Outcome, objective: Objective) -> float:
    """Return the variance of one training's logarithm about the mean, seed by seed."""
    values = {"time": item.least_steps, "rows": item.least_rows, "memory": item.peak_bytes, "test_loss": item.test_loss}[objective]
    if not np.isfinite(values).all():
        return math.inf
    scatter = float(np.log(np.maximum(values, np.finfo(np.float64).tiny)).var(ddof=1))
    return scatter + (float(np.log(item.seconds_per_step).var(ddof=1)) if objective == "time" else 0.0)
