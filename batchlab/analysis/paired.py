"""Who is surely behind: paired relative differences of losses over draws (seeds and divisions) and over validation rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Numbers = NDArray[np.float64]
PRIOR_DRAWS = 8.0
"""The scatter of the other settings together weighs like so many draws in the estimate of each one's own (Smyth 2004, moderated t), or
like as many as they have where these are fewer."""
LARGEST = 700.0
"""A ratio whose logarithm is larger is beyond all numbers."""
CLOSE = 0.5
"""Settings whose loss is at most so much above the leader's tell how much differences scatter; those far off scatter more."""


@dataclass(frozen=True)
class Difference:
    """A setting's loss over another's, less 1, with the variance of the ratio's logarithm and its degrees of freedom: a loss fifty times
    as high scatters fifty times as much, and is no less surely higher."""

    value: float
    variance: float
    degrees: float

    def low(self, error: float) -> float:
        """Return the end below which the difference lies with probability `error` at most (one-sided)."""
        return self._at(-self._reach(error))

    def high(self, error: float) -> float:
        """Return the end above which the difference lies with probability `error` at most (one-sided)."""
        return self._at(self._reach(error))

    def _at(self, away: float) -> float:
        if not -1 < self.value < math.inf:
            return self.value
        logarithm = math.log1p(self.value) + away
        return math.expm1(logarithm) if logarithm < LARGEST else math.inf

    def _reach(self, error: float) -> float:
        if not math.isfinite(self.variance):
            return math.inf
        return float(special.stdtrit(self.degrees, 1 - error)) * math.sqrt(self.variance)


@dataclass(frozen=True)
class Sample:
    """Losses of one setting: `losses` `[draws]`, and the mean losses of portions of the validation rows `[draws, portions]` where draws
    share these rows, NaN where a draw has not those of a portion; None where every draw has rows of its own, whose scatter the draws then
    show. `overlap`: where draws divide one table at random, validation rows over training rows; what is true of its rows and of no others
    does not go away with more draws, so the variance of a mean over draws is so much of a single one's larger (Nadeau and Bengio 2003)."""

    losses: Numbers
    portions: Numbers | None = None
    overlap: float = 0.0


def differences(samples: Sequence[Sample], leader: int) -> list[Difference]:
    """Return every sample's difference to that of the leader, paired draw by draw and portion by portion.

    With few draws the scatter of one difference says little, so that of all other close settings together is counted as `PRIOR_DRAWS`
    further ones. A sample that is not finite is infinitely far behind.
    """
    best = samples[leader]
    residuals = [_residuals(sample, best) for sample in samples]
    squares = [_squares(found, value) for found, value in residuals]
    total, degrees = sum(own for own, _ in squares), sum(own for _, own in squares)
    return [
        Difference(0.0, 0.0, math.inf)
        if place == leader
        else _difference(sample, best, residuals[place], Prior(total - squares[place][0], degrees - squares[place][1]))
        for place, sample in enumerate(samples)
    ]


@dataclass(frozen=True)
class Prior:
    """What the other close settings say of the scatter of differences: their squares, and the degrees of freedom behind these."""

    squares: float
    degrees: int

    @property
    def weight(self) -> float:
        """How many draws it counts as."""
        return min(PRIOR_DRAWS, self.degrees)

    @property
    def variance(self) -> float:
        """The variance of a single draw's difference."""
        return max(self.squares, 0.0) / self.degrees if self.degrees else 0.0


def _squares(residuals: Numbers, value: float) -> tuple[float, int]:
    """Return the sum of squares of a close setting's residuals and its degrees of freedom; none of one that is not close."""
    if len(residuals) < 2 or not 0 < abs(value) <= CLOSE:
        return 0.0, 0
    return float(residuals.var(ddof=1)) * (len(residuals) - 1), len(residuals) - 1


def _residuals(sample: Sample, best: Sample) -> tuple[Numbers, float]:
    """Return how far each shared draw's losses are apart beside the ratio of means, relatively, and that ratio less 1."""
    count = min(len(sample.losses), len(best.losses))
    own, other = sample.losses[:count], best.losses[:count]
    if not count or not np.isfinite(own).all() or not np.isfinite(other).all():
        return np.zeros(0), math.inf
    if other.mean() <= 0:  # a loss of nothing has no ratio
        return np.zeros(0), math.inf if own.mean() > other.mean() else 0.0
    if own.mean() <= 0:
        return np.zeros(count), -1.0
    return own / own.mean() - other / other.mean(), float(own.mean() / other.mean()) - 1


def _difference(sample: Sample, best: Sample, departures: tuple[Numbers, float], prior: Prior) -> Difference:
    residuals, value = departures
    count = len(residuals)
    if count == 0:
        return Difference(value, 0.0, 1.0)
    own = float(residuals.var(ddof=1)) if count > 1 else 0.0
    degrees = prior.weight + count - 1
    if degrees == 0:
        return Difference(value, math.inf, 1.0)
    over_draws = (prior.weight * prior.variance + (count - 1) * own) / degrees * (1 / count + best.overlap)
    over_rows, freedom = _over_rows(sample, best, count, value)
    total = over_draws + over_rows
    lost = over_draws**2 / degrees + (over_rows**2 / freedom if freedom else 0.0)
    return Difference(value, total, total**2 / lost if lost > 0 else degrees)


def _over_rows(sample: Sample, best: Sample, count: int, value: float) -> tuple[float, float]:
    """Return the variance of the ratio of means over validation rows, from the portions' differences, and its degrees of freedom."""
    if sample.portions is None or best.portions is None:
        return 0.0, 0.0
    own, other = sample.portions[:count], best.portions[:count]
    return variance_over_rows(own / np.nanmean(own) - other / np.nanmean(other)) if value > -1 else (0.0, 0.0)


def variance_over_rows(portions: Numbers) -> tuple[float, float]:
    """Return the variance of the mean of portions of rows `[draws, portions]` from how their means over draws scatter, and its degrees of
    freedom. A portion weighs as many times as draws have it (not NaN); none without a second one."""
    times = np.isfinite(portions).sum(0)
    weights = times[times > 0] / times.sum()
    pieces = 1 / float((weights**2).sum())
    if pieces < 1.5:
        return 0.0, 0.0
    means = np.nanmean(portions[:, times > 0], 0)
    spread = weights * (means - weights @ means)
    return float(spread @ spread) * pieces / (pieces - 1), pieces - 1
