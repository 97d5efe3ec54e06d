"""What the trials of one group came to: which rate is best, and what may be said of its curves."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.curves import crossing, level
from batchlab.engine.records import TrialResult

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class RateSummary:
    """One learning rate over its seeds: how many missed the target or diverged, rows to it (of those seeds that reached it: the
    geometric mean, and `unlucky`, one standard deviation of logarithms above it; NaN for none) and the mean level of the validation
    loss."""

    learning_rate: float
    seeds: int
    missed: int
    diverged: int
    rows_to_target: float
    unlucky: float
    level: float


def lowest(result: TrialResult) -> float:
    """Return the level of the trial's validation loss; infinite for a diverged one."""
    return math.inf if result.diverged_at is not None else level(result.curve.validation_loss)


def rows_to(result: TrialResult, target: float | None) -> float:
    """Return the rows that the trial saw until it reached the target; NaN for never."""
    return math.nan if _never(result, target) else crossing(result.curve.rows_seen, result.curve.validation_loss, target or 0.0)


def steps_to(result: TrialResult, target: float | None) -> float:
    """Return the steps that the trial made until it reached the target; NaN for never."""
    return math.nan if _never(result, target) else crossing(result.curve.step, result.curve.validation_loss, target or 0.0)


def _never(result: TrialResult, target: float | None) -> bool:
    """Whether there is nothing to reach, or a trial that diverged, be it after it had touched the target."""
    return target is None or result.diverged_at is not None


def by_rate(results: Iterable[TrialResult]) -> dict[float, list[TrialResult]]:
    """Return the trials of each learning rate, lowest rate first."""
    ordered = sorted(results, key=lambda result: result.trial.learning_rate)
    return {rate: list(group) for rate, group in groupby(ordered, key=lambda result: result.trial.learning_rate)}


def mean_levels(results: Iterable[TrialResult]) -> list[float]:
    """Return each learning rate's level of the validation loss, the mean over its seeds."""
    return [float(np.mean([lowest(result) for result in group])) for group in by_rate(results).values()]


def summaries(results: Sequence[TrialResult], target: float | None) -> list[RateSummary]:
    """Return what each learning rate came to."""
    return [_summary(rate, group, target) for rate, group in by_rate(results).items()]


def _summary(rate: float, group: Sequence[TrialResult], target: float | None) -> RateSummary:
    rows = np.array([rows_to(result, target) for result in group])
    logs = np.log(np.maximum(rows[np.isfinite(rows)], 1.0))
    return RateSummary(
        learning_rate=rate,
        seeds=len(group),
        missed=int(np.isnan(rows).sum()),
        diverged=sum(result.diverged_at is not None for result in group),
        rows_to_target=float(np.exp(logs.mean())) if len(logs) else math.nan,
        unlucky=float(np.exp(logs.mean() + logs.std())) if len(logs) else math.nan,
        level=float(np.mean([lowest(result) for result in group])),
    )


def ranked_rates(found: Sequence[RateSummary], by_level: bool) -> list[float]:
    """Return the learning rates, best first: those that bring most seeds to the target, with the fewest rows for an unlucky one (high
    rates reach it by chance, now early, now late). `by_level`, and among those that never get there, the lowest level is best; where all
    diverge, the lowest rate."""

    def rank(item: RateSummary) -> tuple[float, float, float, float]:
        rows = 0.0 if by_level or math.isnan(item.unlucky) else item.unlucky
        return 0 if by_level else item.missed / item.seeds, rows, item.level, item.learning_rate

    return [item.learning_rate for item in sorted(found, key=rank)]
