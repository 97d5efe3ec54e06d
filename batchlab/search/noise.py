"""The gradient noise scale along a training."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from batchlab.analysis.estimates import Estimate


@dataclass(frozen=True)
class NoisePoint:
    """The gradient noise scale at a moment of a training; losses as the training saw them."""

    step: int
    rows_seen: int
    validation_loss: float
    noise_scale: Estimate


def nearest_to(target: float | None, points: Iterable[NoisePoint]) -> NoisePoint | None:
    """Return the point whose validation loss is nearest to the target, by ratio."""
    if target is None:
        return None
    lossy = (point for point in points if point.validation_loss > 0)
    return min(lossy, key=lambda point: abs(math.log(point.validation_loss / target)), default=None)
