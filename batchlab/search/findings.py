"""What a search found: the evidence of every setting, drawn together into the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.estimates import Estimate
from batchlab.analysis.frontier import Frontier
from batchlab.analysis.objectives import Objective
from batchlab.analysis.verdict import Choice, Outcome, Pair
from batchlab.engine.records import TrialResult
from batchlab.results import Fetching, OverProcesses, Period, TrainingFacts, YardstickResult
from batchlab.search.noise import NoisePoint
from batchlab.search.space import Candidate
from batchlab.search.standings import Left, Standings
from batchlab.search.timings import Delivery, Timings
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.mini_batch import MiniBatch

Numbers = NDArray[np.float64]
WHOLE = 1.2
"""A training that saw a whole budget but for such a factor was not cut short."""
FALLING, EARLY, LEARNT = 0.05, 1 / 32, 0.9
"""A loss that fell by more than this share over the second half of its rows is not where it leads; nor is one within the first 1/32 of a
training that is hardly below that of the best constant: curves begin with plateaus."""


@dataclass(frozen=True)
class RateSummary:
    """What one optimizer and learning rate came to in the race: after `rows`, the mean loss over `draws` (as training saw it; infinite for
    one that diverged), and why it left where it did."""

    optimizer: str
    learning_rate: float
    draws: int
    rows: int
    loss: float
    left: Left | None


@dataclass(frozen=True)
class Finding:
    """The evidence of one row of the table. `results` are its trainings with fresh draws (of one that was left behind, those of the race),
    `shown` the training that is shipped; `rates` what every optimizer and learning rate came to. `left` says why and when it left the
    race, where it did. Losses in `outcome` are in the target's unit, those of `results`, `noise`, `rates` and `left` as
    training saw them."""

    candidate: Candidate
    outcome: Outcome
    results: Sequence[TrialResult]
    shown: TrialResult
    rates: Sequence[RateSummary]
    noise: Sequence[NoisePoint]
    noise_scale: Estimate | None
    timings: Timings
    left: Left | None
    reason: str | None

    @property
    def learning_rate(self) -> float:
        """The learning rate that the row shows."""
        return self.candidate.learning_rate

    @property
    def fall(self) -> float:
        """By what share of its last value the mean loss fell over the second half of its rows."""
        curves = [result.curve for result in self.results if result.diverged_at is None]
        halves = [np.interp(curve.rows_seen[-1] / 2, curve.rows_seen, curve.validation_loss) for curve in curves]
        last = sum(curve.validation_loss[-1] for curve in curves)
        return float(sum(halves) / last - 1) if last > 0 else 0.0

    @property
    def falls(self) -> bool:
        """Whether its loss was on its way down still."""
        return self.fall > FALLING

    @property
    def steps(self) -> Estimate:
        """Steps to the target; a lower bound where it was not reached."""
        return self.outcome.to_target(self.outcome.least_steps).interval()

    @property
    def rows(self) -> Estimate:
        """Rows to the target; a lower bound where it was not reached."""
        return self.outcome.to_target(self.outcome.least_rows).interval()

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
    """Everything that a search found; `loss_unit` turns losses that training saw into the target's unit.

    `settings` holds the rows of the profile's strategies, `typed` what people type by default. `budget_rows` are those that a training
    could see. `left_out` names the parts that were not made, with the reason. `race` is how the race stood at its end, `training` what
    trainings are made of beside their settings; `confirmed` says whether fresh draws confirm anything.
    """

    settings: Sequence[Finding]
    typed: Sequence[Finding]
    choice: Choice | None
    objective: Objective
    margin: float
    against_typed: Sequence[Pair]
    frontier: Frontier | None
    throughput_knee: float | None
    memory_ceiling: int
    deliveries: Sequence[Delivery]
    fetching: Fetching | None
    processes: Sequence[OverProcesses]
    sorted_order: Pair | None
    sorted_label: str
    target_loss: float | None
    target_given: bool
    first_loss: float
    constant_loss: float
    loss_unit: float
    row_count: int
    budget_rows: int
    divisions: int
    race: Standings
    trials: int
    seconds: float
    limit_minutes: float | None
    left_out: Mapping[str, str]
    notes: Sequence[str]
    periods: Sequence[Period] = ()
    yardsticks: Sequence[YardstickResult] = ()
    training: TrainingFacts | None = None
    confirmed: bool = True

    @property
    def best(self) -> Finding | None:
        """The recommended setting's evidence."""
        return None if self.choice is None else self.of(self.choice.label)

    @property
    def steps_over_processes(self) -> tuple[OverProcesses, ...]:
        """Steps that were divided over processes, with the seconds that they come to on the way to the target where that is reached."""
        steps = {
            item.candidate.label: float(item.outcome.least_steps[0])
            for item in (*self.settings, *self.typed)
            if item.outcome.status == "reached"
        }
        return tuple(
            item.model_copy(update={"seconds_to_target": item.seconds_per_step * steps[item.label]}) if item.label in steps else item
            for item in self.processes
        )

    @property
    def cut_short(self) -> bool:
        """Whether time ended the recommended setting's training on its way, so that the verdict is not one on where it leads."""
        if self.best is None:
            return False
        raced = self.race.raced(self.best.candidate.setting, self.budget_rows)
        return on_its_way(self.best, raced, self.constant_loss, self.confirmed)

    @property
    def labels(self) -> list[str]:
        """The rows of the table, in the order of the profile."""
        return [item.candidate.label for item in (*self.settings, *self.typed)]

    def of(self, label: str) -> Finding:
        """Return the evidence of the setting with this label."""
        return next(item for item in (*self.settings, *self.typed) if item.candidate.label == label)

    def seconds_of(self, label: str) -> float:
        """Return the seconds that all trainings of the setting's branch took in the race."""
        branch = self.of(label).candidate.setting.branch
        rows = sum(trial.rows_seen for entry in self.race.entries.values() if entry.setting.branch == branch for trial in entry.trials)
        return rows * self.race.row_seconds.get(branch, 0.0)


def on_its_way(best: Finding, raced: float, constant_loss: float, confirmed: bool) -> bool:
    """Whether time ended a training that has `raced` over this share of its budget: while its loss was falling, before it had learnt
    anything, or before anything was confirmed."""
    if WHOLE * raced >= 1:
        return False
    return best.falls or not confirmed or (raced < EARLY and best.outcome.loss > LEARNT * constant_loss)
