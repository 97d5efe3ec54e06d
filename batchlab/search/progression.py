"""What a search knows of one group of settings so far."""

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
