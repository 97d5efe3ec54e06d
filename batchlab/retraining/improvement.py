"""By how much one model's losses are below another's on the same rows, and how sure that is."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

Numbers = NDArray[np.float64]
RESAMPLES, MOST_BLOCKS, BATCH = 9_999, 1_000, 500
SEED = 20_260_000
"""Of the resampling: a decision made twice comes out the same."""


class Improvement(NamedTuple):
    """1 − after / before of the mean losses, its interval (NaN where there is none), and the share of `before` by which what ships would
    scatter with other seeds."""

    value: float
    low: float
    high: float
    seed_scatter: float


NOTHING_KNOWN = Improvement(math.nan, math.nan, math.nan, math.nan)


def improvement(
    before: Numbers, after: Numbers, seed_losses: Sequence[float], confidence: float, validation_losses: Sequence[float] = ()
) -> Improvement:
    """Return the relative improvement of the mean loss from `before` to `after` `[rows]`, the same rows in time order, all finite.

    Its uncertainty has two parts. Other rows would have come out otherwise: a paired bootstrap over consecutive blocks of rows (Künsch
    1989), since neighbours in time are alike. And each side is the best of some trainings that differ in their seed (`best_scatter` of
    their mean losses, two or more); a t distribution says how well so few know how much. Each end of the interval is surpassed with
    probability 1 − `confidence`. Nothing is known where `before` costs nothing.
    """
    if before.mean() <= 0:
        return NOTHING_KNOWN
    value = 1 - after.mean() / before.mean()
    scatter = best_scatter(seed_losses, validation_losses) / float(before.mean())
    drawn = _resampled(before, after, value)
    if drawn is None or not math.isfinite(scatter):
        return Improvement(value, math.nan, math.nan, scatter)
    rng = np.random.default_rng(SEED)
    drawn = drawn + math.sqrt(2) * scatter * rng.standard_t(len(seed_losses) - 1, RESAMPLES)
    low, high = np.quantile(drawn, (1 - confidence, confidence), method="closest_observation")
    return Improvement(float(value), float(low), float(high), scatter)


def best_scatter(losses: Sequence[float], validation_losses: Sequence[float] = ()) -> float:
    """Return the standard deviation of the loss of the best of `losses` `[seeds]`, best by the validation losses of the same trainings; of
    any one of them where those are not given; NaN of fewer than two.

    The least of n normal values varies less than one of them (David and Nagaraja, Order Statistics, 2003), and so does a value that goes
    along with it, by the share of its variance that they have in common: their squared correlation, adjusted for so few seeds.
    """
    count = len(losses)
    if count < 2:
        return math.nan
    one = float(np.std(losses, ddof=1))
    if count < 3 or len(validation_losses) != count or one == 0 or np.ptp(validation_losses) == 0:
        return one
    shared = float(np.corrcoef(losses, validation_losses)[0, 1]) ** 2
    adjusted = max(0.0, 1 - (1 - shared) * (count - 1) / (count - 2))
    return one * math.sqrt(1 - adjusted * (1 - _variance_of_least(count)))


@functools.cache
def _variance_of_least(count: int) -> float:
    """Return the variance of the least of so many standard normal values."""
    from scipy import stats

    return float(stats.order_statistic(stats.Normal(), n=count, r=1).variance())


def _resampled(before: Numbers, after: Numbers, value: float) -> Numbers | None:
    """Return the improvement in each of many resamples of the blocks; None of a single block."""
    from scipy import stats

    sums = in_blocks(before), in_blocks(after)
    blocks = len(sums[0])
    if blocks < 2:
        return None

    def improved(some_before: Numbers, some_after: Numbers, axis: int = -1) -> Numbers:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = 1 - some_after.sum(axis) / some_before.sum(axis)
        return np.where(np.isfinite(found), found, -1e300)  # a resample in which `before` costs nothing

    rng = np.random.default_rng(SEED)
    done = stats.bootstrap(sums, improved, n_resamples=RESAMPLES, batch=BATCH, vectorized=True, paired=True, method="percentile", rng=rng)
    return np.asarray(value + (done.bootstrap_distribution - value) * math.sqrt(blocks / (blocks - 1)))  # a resample varies too little


def in_blocks(losses: Numbers) -> Numbers:
    """Return the sums `[blocks]` of consecutive rows: as many a block as the cube root of all, and at most 1,000 blocks."""
    length = max(math.ceil(round(len(losses) ** (1 / 3), 9)), math.ceil(len(losses) / MOST_BLOCKS))
    return np.add.reduceat(losses, np.arange(0, len(losses), length))


def chance_of_no_harm(before: Numbers, after: Numbers) -> float:
    """Return the p value of the mean loss not having risen: a paired t test over blocks, which reaches the small values that a
    correction for many slices needs; 1 of a single block."""
    risen = in_blocks(after - before)
    if len(risen) < 2 or risen.mean() <= 0:
        return 1.0
    spread = risen.std(ddof=1) / math.sqrt(len(risen))
    return float(stdtr(len(risen) - 1, -risen.mean() / spread)) if spread > 0 else 0.0


def holm(p_values: Sequence[float]) -> Numbers:
    """Return p values corrected for their number (Holm 1979), in their order."""
    found, count = np.asarray(p_values, np.float64), len(p_values)
    order = np.argsort(found, kind="stable")
    corrected = np.empty(count)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(found[order] * np.arange(count, 0, -1)))
    return corrected
