"""What a search knows of one group of settings so far."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from batchlab.analysis.estimates import Estimate
from batchlab.engine.records import TrialResult
from batchlab.search.candidates import Group


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


@dataclass
class Progression:
    """What is known of one group: all its tuning trials, those of the final rates' own seeds, its
    best rate, and that rate's trials with fresh seeds."""

    group: Group
    tuned: list[TrialResult] = field(default_factory=list)
    finals: list[TrialResult] = field(default_factory=list)
    rate: float | None = None
    confirmed: list[TrialResult] = field(default_factory=list)
    noise: list[NoisePoint] = field(default_factory=list)
    seconds: float = 0.0
