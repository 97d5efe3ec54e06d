"""All that a search knows so far, as one frozen record; its parts return the next one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.yardsticks import Yardstick
from batchlab.engine.records import TrialResult
from batchlab.results import Fetching, OverProcesses
from batchlab.search.noise import NoisePoint
from batchlab.search.space import Candidate, Setting
from batchlab.search.standings import Standings
from batchlab.search.timings import Delivery, Timings

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Start:
    """With what a race begins: rows of its first rung, draws of every setting, the settings of the first rung (the others begin later, if
    there is time), and how many validation rows it looks at; `look_seconds` is what looking at one of these takes."""

    rows: int
    draws: int
    settings: int
    rows_evaluated: int
    look_seconds: float = 0.0


@dataclass(frozen=True)
class Known:
    """What the race came to, and what was measured after it.

    `start` is what the first look said that the race can begin with; None before it.
    `confirmed` holds the trainings with fresh draws of each setting and `test_losses` `[draws]` theirs, in the target's unit, with
    `test_portions` `[draws, portions]` those of equal portions of the test rows; `yardsticks` what cheap ways to predict come to; `models`
    one training on the split itself, for shipping, and `noise` the gradient noise scale along it; `timings` and `peaks` are of rows of the
    table.
    `left_out` says which parts were not made, and why. `trainings` counts those outside the race.
    """

    standings: Standings = field(default_factory=Standings)
    start: Start | None = None
    confirmed: Mapping[Setting, Sequence[TrialResult]] = field(default_factory=dict)
    test_losses: Mapping[Setting, Numbers] = field(default_factory=dict)
    test_portions: Mapping[Setting, Numbers] = field(default_factory=dict)
    yardsticks: Sequence[Yardstick] = ()
    models: Mapping[Setting, TrialResult] = field(default_factory=dict)
    noise: Mapping[Setting, Sequence[NoisePoint]] = field(default_factory=dict)
    timings: Mapping[Candidate, Timings] = field(default_factory=dict)
    peaks: Mapping[Candidate, Sequence[int]] = field(default_factory=dict)
    deliveries: Sequence[Delivery] = ()
    fetching: Fetching | None = None
    processes: Sequence[OverProcesses] = ()
    sorted_of: Setting | None = None
    sorted_results: Sequence[TrialResult] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    trainings: int = 0
    seconds: float = 0.0

    @property
    def all_trainings(self) -> int:
        """Trainings of the race and after it."""
        return self.standings.trainings + self.trainings
