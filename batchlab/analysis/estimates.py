"""Positive quantities with their uncertainty: means of logarithms, products, paired ratios, and their t intervals."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from batchlab.records import Result

CONFIDENCE = 0.95
Numbers = NDArray[np.float64]


class Estimate(Result):
    """A value and its confidence interval, 95% unless said otherwise. An end that the data do not bound is infinite."""

    value: float
    low: float
    high: float

    def holds(self, number: float) -> bool:
        """Whether the interval covers `number`."""
        return self.low <= number <= self.high


class Spread(NamedTuple):
    """Variance of a mean and its degrees of freedom."""

    variance: float
    degrees: float


@dataclass(frozen=True)
class LogMean:
    """The mean of a quantity's logarithm: its exponential is the geometric mean. `parts` are the independent sources of its variance."""

    mean: float
    parts: tuple[Spread, ...]

    def times(self, other: "LogMean") -> "LogMean":
        """Return the product of two independent quantities, both uncertainties carried through."""
        return LogMean(self.mean + other.mean, self.parts + other.parts)

    @property
    def variance(self) -> float:
        return sum(part.variance for part in self.parts)

    @property
    def degrees(self) -> float:
        """Effective degrees of freedom (Welch 1947, Satterthwaite 1946)."""
        lost = sum(part.variance**2 / part.degrees for part in self.parts if part.variance > 0)
        return self.variance**2 / lost if lost else math.inf

    def interval(self, confidence: float = CONFIDENCE) -> Estimate:
        """Return the geometric mean with its t interval; one without a finite mean is unbounded."""
        if not math.isfinite(self.mean):
            return Estimate(value=math.inf, low=0.0, high=math.inf)
        reach = float(stdtrit(self.degrees, 0.5 + confidence / 2)) * math.sqrt(self.variance) if self.variance else 0.0
        return Estimate(value=math.exp(self.mean), low=math.exp(self.mean - reach), high=math.exp(self.mean + reach))


def log_mean(values: ArrayLike) -> LogMean:
    """Return the mean logarithm of independent positive `values` (two or more of them)."""
    return _mean_of(_logarithms(values))


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> LogMean:
    """Return numerator / denominator of values that belong together pair by pair: the same seed, the same round of timing."""
    tops, bottoms = _logarithms(numerator), _logarithms(denominator)
    return _mean_of(tops - np.where(np.isfinite(tops), bottoms, 0.0))


def _logarithms(values: ArrayLike) -> Numbers:
    """Return logarithms; nothing is smaller than the smallest number that has one."""
    return np.log(np.maximum(np.asarray(values, np.float64), np.finfo(np.float64).tiny))


def _mean_of(logs: Numbers) -> LogMean:
    if len(logs) < 2:
        raise ValueError(f"an interval needs two values or more, got {len(logs)}")
    if not np.isfinite(logs).all():
        return LogMean(math.inf, (Spread(math.inf, 1),))
    return LogMean(float(logs.mean()), (Spread(float(logs.var(ddof=1) / len(logs)), len(logs) - 1),))
