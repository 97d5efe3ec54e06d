"""The frontier: steps against rows to the target over batch sizes (McCandlish et al. 2018, eq. 2.11), and the critical batch size."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from batchlab.analysis.estimates import CONFIDENCE, Estimate
from batchlab.records import Result

RESAMPLES = 400
POOR_FIT = math.log(1.25)
"""A fit whose points lie further than 25% from it (root mean square) is called poor."""
FEWEST = 3
Numbers = NDArray[np.float64]


class Frontier(Result):
    """The fit of (S/S_min − 1)(E/E_min − 1) = 1, the same as S = S_min + E_min/B: steps S and rows E = S·B to the target at batch size B.

    `critical_batch` is E_min/S_min; `misfit` the root mean square distance of the points from the fit, in logarithms of steps.
    """

    batch_rows: tuple[float, ...]
    steps: tuple[float, ...]
    smallest_steps: float
    smallest_rows: float
    critical_batch: Estimate
    misfit: float

    @property
    def poor(self) -> bool:
        """Whether the points do not follow the curve, so that the critical batch size says little."""
        return self.misfit > POOR_FIT

    @property
    def within(self) -> bool:
        """Whether the critical batch size lies among the batch sizes that were tried, and not beyond them."""
        return min(self.batch_rows) <= self.critical_batch.value <= max(self.batch_rows)

    def steps_at(self, batch_rows: ArrayLike) -> Numbers:
        """Return the fitted steps at batch sizes."""
        return np.asarray(self.smallest_steps + self.smallest_rows / np.asarray(batch_rows, np.float64))


def fitted(batch_rows: Sequence[float], steps: Sequence[ArrayLike], seed: int = 0) -> Frontier | None:
    """Fit `steps` `[batch sizes, 1 + resamples]` over `batch_rows`: the first are those measured, the others those of draws resampled
    alike for all batch sizes. None for fewer than three batch sizes.

    The interval goes over the resamples, each with the fit's own residuals resampled.
    """
    if len(batch_rows) < FEWEST:
        return None
    sizes, logs = np.asarray(batch_rows, np.float64), np.log(np.asarray(steps, np.float64))
    middle = logs[:, 0]
    least_steps, least_rows = _solved(sizes, middle)
    residuals = middle - np.log(least_steps + least_rows / sizes)
    widened = residuals * math.sqrt(len(sizes) / max(1, len(sizes) - 2))
    rng = np.random.default_rng(seed)
    criticals = []
    for _ in range(RESAMPLES):
        drawn = logs[:, rng.integers(logs.shape[1])]
        some_steps, some_rows = _solved(sizes, drawn + rng.choice(widened, len(sizes)))
        criticals.append(some_rows / some_steps)
    value = least_rows / least_steps
    low, high = np.quantile(criticals, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Frontier(
        batch_rows=tuple(sizes.tolist()),
        steps=tuple(np.exp(middle).tolist()),
        smallest_steps=least_steps,
        smallest_rows=least_rows,
        critical_batch=Estimate(value=value, low=min(float(low), value), high=max(float(high), value)),
        misfit=float(np.sqrt(np.mean(residuals**2))),
    )


def _solved(sizes: Numbers, log_steps: Numbers) -> tuple[float, float]:
    """Return S_min and E_min that fit best in logarithms."""
    begin = np.array([log_steps.min() - 0.1, (log_steps + np.log(sizes)).min() - 0.1])

    def distance(logs: Numbers) -> Numbers:
        return np.asarray(np.logaddexp(logs[0], logs[1] - np.log(sizes)) - log_steps)

    def slopes(logs: Numbers) -> Numbers:
        of_steps = 1 / (1 + np.exp(np.clip(logs[1] - np.log(sizes) - logs[0], -700, 700)))
        return np.stack([of_steps, 1 - of_steps], axis=1)

    low = [log_steps.min() - 12, (log_steps + np.log(sizes)).min() - 12]
    high = [log_steps.max() + 1, (log_steps + np.log(sizes)).max() + 1]
    from scipy.optimize import least_squares  # half a second, of which most searches have no need at their start

    found = least_squares(distance, begin, jac=slopes, bounds=(low, high)).x
    return float(np.exp(found[0])), float(np.exp(found[1]))
