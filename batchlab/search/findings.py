"""What a search found: the evidence of every setting, drawn together into the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.estimates import Estimate, log_mean
from batchlab.analysis.frontier import Frontier
from batchlab.analysis.verdict import Choice, Outcome, Pair
from batchlab.engine.records import TrialResult
from batchlab.results import Period
from batchlab.search.candidates import Candidate
from batchlab.search.loaders import Delivery
from batchlab.search.timing import Timings
from batchlab.search.trials import RateSummary
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.mini_batch import MiniBatch

if TYPE_CHECKING:
    from batchlab.search.progression import NoisePoint

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """The evidence of one setting. `results` are its trainings with fresh seeds, `shown` the one of median speed; `rates` what every
    learning rate came to. Losses in `outcome` are in the target's unit, those of `results` and `noise` as training saw them."""

    candidate: Candidate
    learning_rate: float
    outcome: Outcome
    results: Sequence[TrialResult]
    shown: TrialResult
    rates: Sequence[RateSummary]
    noise: "Sequence[NoisePoint]"
    noise_scale: Estimate | None
    timings: Timings
    reason: str | None

    @property
    def steps(self) -> Estimate:
        """Steps to the target; a lower bound where seeds did not reach it."""
        return log_mean(self.outcome.least_steps).interval()

    @property
    def rows(self) -> Estimate:
        """Rows to the target; a lower bound where seeds did not reach it."""
        return log_mean(self.outcome.least_rows).interval()

    @property
    def seconds(self) -> Estimate:
        """Seconds to the target: steps × seconds a step."""
        return self.outcome.seconds().interval()

    @property
    def sampled(self) -> bool:
        """Whether the setting draws constant batches at random, or takes all rows: a point of the frontier."""
        updates = self.candidate.strategy.updates
        return isinstance(updates, FullBatch) or (isinstance(updates, MiniBatch) and updates.shuffled)


@dataclass(frozen=True)
class Findings:
    """Everything that a search found; `loss_unit` turns losses that training saw into the target's unit."""

    settings: Sequence[Finding]
    typed: Sequence[Finding]
    choice: Choice | None
    against_typed: Sequence[Pair]
    frontier: Frontier | None
    throughput_knee: float | None
    memory_ceiling: int
    deliveries: Sequence[Delivery]
    sorted_order: Pair | None
    sorted_label: str
    target_loss: float | None
    target_given: bool
    first_loss: float
    start_loss: float
    share_left: float
    loss_unit: float
    row_count: int
    budget_rows: int
    trials: int
    seconds: float
    notes: Sequence[str]
    periods: Sequence[Period] = ()

    @property
    def best(self) -> Finding | None:
        """The recommended setting's evidence."""
        return None if self.choice is None else self.of(self.choice.label)

    def of(self, label: str) -> Finding:
        """Return the evidence of the setting with this label."""
        return next(item for item in (*self.settings, *self.typed) if item.candidate.label == label)
