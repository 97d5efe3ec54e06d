"""What curves say: when one reaches a loss."""

import math

import numpy as np
from numpy.typing import ArrayLike

HELD = 2
"""A target is reached when so many consecutive evaluations are at or below it."""


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
