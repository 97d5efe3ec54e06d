"""The search itself: its parts in order, each a stretch of work of its own that a caller may run where it likes."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.curves import SHARE_LEFT
from batchlab.engine.data import TrainingData
from batchlab.engine.records import Plan, Progress, TrialResult
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.report.wording import seconds
from batchlab.search import confirming, tuning
from batchlab.search.apart import Apart, ApartFailed
from batchlab.search.candidates import Candidate, Group, candidates, grouped
from batchlab.search.loaders import Delivery
from batchlab.search.progression import Progression
from batchlab.search.timing import Stopwatch

if TYPE_CHECKING:
    from batchlab.search.findings import Findings

TRAIN_ROWS_EVALUATED, VALIDATION_ROWS_EVALUATED = 4096, 16_384
"""Losses of curves are means over at most so many rows, so that evaluating does not cost more than training."""
LOADED_BATCH = 32
"""Loaders are compared at the batch size nearest to this one."""
OTHER_PARTS = 7


@dataclass(frozen=True)
class Part:
    """A stretch of the search: what it does, and how."""

    label: str
    number: int
    run: Callable[[], None]


class Search:
    """Tunes every group's learning rate with the same number of trials, confirms the best with fresh seeds, and times each setting alone.

    `parts` yields the work in its order; when it is exhausted, `findings` holds the verdict's evidence. After `max_minutes` no new
    tuning starts and what is known is confirmed.
    """

    def __init__(self, experiment: Experiment, on_progress: Callable[[str, Progress], None] = lambda label, progress: None) -> None:
        self.experiment, self.profile, self.rule = experiment, experiment.profile, experiment.profile.search
        self.on_progress = on_progress
        self.row_count = experiment.split.sizes()["train"]
        self.candidates = candidates(self.profile, self.row_count)
        self.groups = {group: Progression(group) for group in grouped(self.candidates)}
        self.data = thinned(experiment)
        self.plan = budgeted(self.profile.train, self.row_count)
        self.target = None if self.rule.target_loss is None else self.rule.target_loss / experiment.loss_unit
        self.first_loss = self.start_loss = math.nan
        self.share_left = SHARE_LEFT
        self.stopwatch = Stopwatch(experiment, self.data)
        self.apart: Apart | None = None
        self.peak_bytes: dict[Candidate, list[int]] = {}
        self.deliveries: list[Delivery] = []
        self.test_losses: dict[Group, NDArray[np.float64]] = {}
        self.sorted_of: Progression | None = None
        self.sorted_results: list[TrialResult] = []
        self.findings: Findings
        self.notes: list[str] = []
        self.predicted_seconds = 0.0
        self.began = time.perf_counter()
        self.trial_count = 0
        self._check()

    def _check(self) -> None:
        for candidate in self.candidates:
            try:
                candidate.strategy.check(self.data.population)
            except BadInput as error:
                raise BadInput(f"{candidate.label}: {error}") from error

    @property
    def budget_rows(self) -> int:
        """The rows that every trial sees."""
        return self.plan.max_rows or 0

    @property
    def seconds(self) -> float:
        """Seconds since the search began."""
        return time.perf_counter() - self.began

    def parts(self) -> Iterator[Part]:
        """Yield all parts; each must have run before the next is asked for."""
        self.apart = Apart(self.experiment, self.candidates, self.plan)
        try:
            for number, (label, run) in enumerate(self._work()):
                yield Part(label, number, run)
        finally:
            self.apart.stop()

    @property
    def part_count(self) -> int:
        """How many parts there will be."""
        searched = sum(item.group.first.rates is None for item in self.groups.values())
        given = sum(item.group.first.rates is not None and not item.group.first.typed for item in self.groups.values())
        return OTHER_PARTS + self.walks + given + searched * (2 + self.rule.rounds) + len(self.groups)

    @property
    def planned_trainings(self) -> int:
        """How many trainings there will be, if time allows."""
        tuned = sum(self.planned_tuning(item.group.first) for item in self.groups.values())
        return tuned + (len(self.groups) + 1) * self.rule.seeds  # one more for sorted rows

    def planned_tuning(self, candidate: Candidate) -> int:
        """How many trainings find one setting's rate."""
        if candidate.typed:
            return 0
        if candidate.rates is not None:
            return len(candidate.rates) * self.rule.tuning_seeds
        rule = self.rule
        return (rule.rates + rule.rounds * rule.finer_rates) * rule.tuning_seeds + rule.final_rates * rule.final_seeds

    def predicted(self) -> str:
        """Say how long the search should take."""
        limit = "" if self.rule.max_minutes is None else f", with {self.rule.max_minutes:g} minutes to end in"
        return f"about {seconds(self.predicted_seconds)} at most{limit}"

    def _work(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "estimate", self.estimate
        searched = [item for item in self.groups.values() if item.group.first.rates is None]
        for item in searched:
            yield f"coarse rates of {item.group.label}", partial(tuning.within_time, self, item, tuning.coarse)
        for item in self.groups.values():
            if item.group.first.rates is not None and not item.group.first.typed:
                yield f"given rates of {item.group.label}", partial(tuning.within_time, self, item, tuning.given)
        tuning.aim(self)
        for number in range(self.rule.rounds):
            for item in searched:
                yield f"finer rates of {item.group.label} ({number + 1})", partial(tuning.within_time, self, item, tuning.refine)
            tuning.aim(self)
        for item in searched:
            yield f"final rates of {item.group.label}", partial(tuning.within_time, self, item, tuning.play_off)
        tuning.aim(self)
        tuning.settle(self)
        yield "memory", self._await_memory
        yield "timing, first sitting", self._time
        for item in self.known:
            yield f"confirm {item.group.label}", partial(confirming.confirm, self, item)
        tuning.ease_target(self)
        yield "sorted order", partial(confirming.train_sorted, self)
        yield "timing, second sitting", self._time
        yield "loaders", self._measure_loaders
        yield "verdict", self._conclude
        if self.walks:
            yield "walk forward", self._walk

    def _conclude(self) -> None:
        from batchlab.search.concluding import concluded

        self.findings = concluded(self)

    @property
    def walks(self) -> bool:
        """Whether the recommended setting is tried on every period of the split."""
        return self.profile.split.kind == "walk_forward"

    def _walk(self) -> None:
        from batchlab.search.remarks import walk_note
        from batchlab.search.walking import walked

        periods = walked(self)
        notes = [*self.findings.notes, *([walk_note(periods)] if periods else [])]
        self.findings = replace(self.findings, periods=periods, notes=notes, trials=self.trial_count, seconds=self.seconds)

    @property
    def labels(self) -> list[str]:
        """The settings that were confirmed, in the order of the profile."""
        known = {member for item in self.known for member in item.group.members}
        return [candidate.label for candidate in self.candidates if candidate in known]

    @property
    def known(self) -> list[Progression]:
        """The groups of which enough is known to confirm them."""
        return [item for item in self.groups.values() if item.rate is not None]

    def seconds_of(self, label: str) -> float:
        """Return the seconds that all trainings of the setting with this label took, together with those that share its trials."""
        return next(item.seconds for item in self.groups.values() for member in item.group.members if member.label == label)

    def estimate(self) -> None:
        """Predict how long the search will take from a short look at every group; shrink every trial's rows alike where it may not."""
        from batchlab.search.estimate import fixed_seconds, predicted_seconds

        self.predicted_seconds = predicted_seconds(self)
        allowed = None if self.rule.max_minutes is None else 60 * self.rule.max_minutes
        if allowed is not None and self.predicted_seconds > allowed:
            fixed = fixed_seconds(self)
            share = max(allowed - fixed, 0.0) / (self.predicted_seconds - fixed)
            rows = max(int(self.budget_rows * share), min(self.row_count, self.budget_rows))
            if rows < self.budget_rows:
                self.notes.append(
                    f"every trial sees {rows:,} rows instead of {self.budget_rows:,}, so that the search fits into {allowed / 60:g} minutes"
                )
                self.plan = budgeted(self.profile.train.model_copy(update={"max_rows": rows}), self.row_count)

    def _time(self) -> None:
        self.stopwatch.sitting(self.known, self.rule.timings // 2, self.target, self.plan)

    def _await_memory(self) -> None:
        assert self.apart is not None
        try:
            self.peak_bytes = dict(zip(self.candidates, self.apart.peaks(), strict=True))
        except ApartFailed as error:
            self.notes.append(f"memory was not measured: {error}")

    def _measure_loaders(self) -> None:
        sizes = [item.group.first.batch_rows for item in self.known if not item.group.first.typed]
        if self.data.stored is not None:
            self.notes.append("loaders were not compared: the rows stay in files, and a DataLoader's workers would each take a copy")
            return
        usual = min(sizes, key=lambda rows: abs(rows - LOADED_BATCH))
        assert self.apart is not None
        try:
            self.deliveries = self.apart.deliveries(usual)
        except ApartFailed as error:
            self.notes.append(f"loaders were not measured: {error}")


def thinned(experiment: Experiment) -> TrainingData:
    """Return the experiment's data with evaluations of a sample of rows, where there are many."""
    return experiment.data.thinned(TRAIN_ROWS_EVALUATED, VALIDATION_ROWS_EVALUATED, experiment.profile.seed)


def budgeted(plan: Plan, row_count: int) -> Plan:
    """Return the plan of every trial: its rows, and evaluations that lie geometrically along them."""
    rows = min(plan.epochs * row_count, plan.max_rows or plan.epochs * row_count)
    return plan.model_copy(update={"max_rows": rows, "epochs": -(-rows // row_count), "spacing": "geometric", "learning_rate": None})
