"""What curves say: the level a training settles at, the target that a comparison measures to, and when a curve reaches it."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from batchlab.engine.records import SETTLED

HELD = 2
"""A target is reached when so many consecutive evaluations are at or below it."""
SHARE_LEFT = 0.02
"""The target leaves so much of the best trial's way from its first loss to its lowest level."""
LARGER_SHARES = (0.03, 0.05, 0.08, 0.13, 0.21)
"""What it leaves where no setting brings all its seeds so far: the first of these that one does."""


def level(losses: ArrayLike) -> float:
    """Return the lowest mean of `SETTLED` consecutive losses (of all, when there are fewer): one lucky evaluation does not count."""
    values = np.asarray(losses, np.float64)
    width = min(SETTLED, len(values))
    means = np.convolve(values, np.ones(width) / width, mode="valid")
    return float(np.nanmin(means)) if np.isfinite(means).any() else math.inf


def target_loss(first: float, levels: Iterable[float], share_left: float = SHARE_LEFT) -> float | None:
    """Return the target: the best level plus `share_left` of the way that led there from the `first` loss. None when nothing was learnt.

    `levels` holds one number a setting, its mean over seeds. A setting that ends at the best level has therefore made 98% of the way.
    """
    lowest = min((value for value in levels if math.isfinite(value)), default=math.inf)
    return lowest + share_left * (first - lowest) if lowest < first else None


def crossing(axis: ArrayLike, losses: ArrayLike, target: float) -> float:
    """Return where along `axis` (steps, rows) the losses first reach `target` and stay there for `HELD` evaluations; NaN for never.

    Between two evaluations the loss is taken to fall exponentially: linear in its logarithm. The last evaluation may stand alone.
    """
    at, values = np.asarray(axis, np.float64), np.asarray(losses, np.float64)
    below = values <= target
    held = below.copy()
    for later in range(1, HELD):
        held[:-later] &= below[later:]
    if not held.any():
        return math.nan
    point = int(np.argmax(held))
    if point == 0:
        return float(at[0])
    before, after = values[point - 1], values[point]
    if before <= target:  # a lone dip just before: the target was met there, and is held from here
        return float(at[point])
    share = (math.log(before / target) / math.log(before / after)) if after > 0 else (before - target) / (before - after)
    return float(at[point - 1] + share * (at[point] - at[point - 1]))
