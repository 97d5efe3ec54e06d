"""The search itself: its parts in order, each a stretch of work of its own that a caller may run where it likes."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from batchlab.analysis.curves import target_loss
from batchlab.analysis.estimates import Estimate
from batchlab.engine.loop import train
from batchlab.engine.recorder import Recorder
from batchlab.engine.records import Plan, Progress, Trial, TrialResult
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.report.wording import seconds
from batchlab.search import rates
from batchlab.search.apart import Apart, ApartFailed
from batchlab.search.candidates import Candidate, Group, candidates, grouped
from batchlab.search.loaders import Delivery
from batchlab.search.timing import Stopwatch
from batchlab.search.trials import mean_levels, ranked_rates, rows_to, summaries
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch

if TYPE_CHECKING:
    from batchlab.search.findings import Findings

TRAIN_ROWS_EVALUATED, VALIDATION_ROWS_EVALUATED = 4096, 16_384
"""Losses of curves are means over at most so many rows, so that evaluating does not cost more than training."""
NOISE_EVERY, NOISE_BATCHES = 4, 256
"""The noise scale is measured at every fourth evaluation of one seed, from so many small batches."""
FINAL, FRESH = 500_009, 1_000_003
"""Seeds of the final rates and of the confirmation are so far from those of the first rounds."""
LOADED_BATCH = 32
"""Loaders are compared at the batch size nearest to this one."""
OTHER_PARTS = 7
RESERVED = 0.3
"""Of a limited time, this share is kept for confirming and timing."""


@dataclass(frozen=True)
class NoisePoint:
    """The gradient noise scale at a moment of a training; losses as the training saw them."""

    step: int
    rows_seen: int
    validation_loss: float
    noise_scale: Estimate


@dataclass(frozen=True)
class Part:
    """A stretch of the search: what it does, and how."""

    label: str
    number: int
    run: Callable[[], None]


@dataclass
class Progression:
    """What is known of one group: all its tuning trials, its best rate, and that rate's trials with fresh seeds."""

    group: Group
    tuned: list[TrialResult] = field(default_factory=list)
    rate: float | None = None
    confirmed: list[TrialResult] = field(default_factory=list)
    noise: list[NoisePoint] = field(default_factory=list)
    seconds: float = 0.0


class OutOfTime(Exception):
    """The time that the search may take is over."""


class Search:
    """Tunes every group's learning rate with the same number of trials, confirms the best with fresh seeds, and times each setting alone.

    `parts` yields the work in its order; when it is exhausted, `findings` holds the verdict's evidence. After `max_minutes` no new
    tuning starts and what is known is confirmed.
    """

    def __init__(self, experiment: Experiment, on_progress: Callable[[str, Progress], None] = lambda label, progress: None) -> None:
        self.experiment, self.profile, self.rule = experiment, experiment.profile, experiment.profile.search
        self.on_progress = on_progress
        self.row_count = len(experiment.split.train)
        self.candidates = candidates(self.profile, self.row_count)
        self.groups = {group: Progression(group) for group in grouped(self.candidates)}
        self.data = experiment.data.thinned(TRAIN_ROWS_EVALUATED, VALIDATION_ROWS_EVALUATED, self.profile.seed)
        self.plan = _budgeted(self.profile.train, self.row_count)
        self.target = None if self.rule.target_loss is None else self.rule.target_loss / experiment.loss_unit
        self.first_loss = math.nan
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
        return OTHER_PARTS + given + searched * (2 + self.rule.rounds) + len(self.groups)

    @property
    def planned_trainings(self) -> int:
        """How many trainings there will be, if time allows."""
        tuned = sum(self.planned_tuning(item.group.first) for item in self.groups.values())
        return tuned + len(self.groups) * self.rule.seeds

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
        limit = "" if self.rule.max_minutes is None else f", and no longer than {self.rule.max_minutes:g} minutes"
        return f"about {seconds(self.predicted_seconds)} at most{limit}"

    def _work(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "estimate", self.estimate
        searched = [item for item in self.groups.values() if item.group.first.rates is None]
        for item in searched:
            yield f"coarse rates of {item.group.label}", partial(self._within_time, item, self._coarse)
        for item in self.groups.values():
            if item.group.first.rates is not None and not item.group.first.typed:
                yield f"given rates of {item.group.label}", partial(self._tune, item, item.group.first.rates)
        self._aim()
        for number in range(self.rule.rounds):
            for item in searched:
                yield f"finer rates of {item.group.label} ({number + 1})", partial(self._within_time, item, self._refine)
            self._aim()
        for item in searched:
            yield f"final rates of {item.group.label}", partial(self._within_time, item, self._play_off)
        self._aim()
        self._settle()
        yield "memory", self._await_memory
        yield "timing, first sitting", self._time
        for item in self.known:
            yield f"confirm {item.group.label}", partial(self._confirm, item)
        yield "sorted order", self._train_sorted
        yield "timing, second sitting", self._time
        yield "loaders", self._measure_loaders
        yield "verdict", self._conclude

    def _conclude(self) -> None:
        from batchlab.search.findings import concluded

        self.findings = concluded(self)

    @property
    def labels(self) -> list[str]:
        """The settings that were confirmed, in the order of the profile."""
        return [member.label for item in self.known for member in item.group.members]

    @property
    def known(self) -> list[Progression]:
        """The groups of which enough is known to confirm them."""
        return [item for item in self.groups.values() if item.rate is not None]

    def seconds_of(self, label: str) -> float:
        """Return the seconds that all trainings of the setting with this label took, together with those that share its trials."""
        return next(item.seconds for item in self.groups.values() for member in item.group.members if member.label == label)

    def estimate(self) -> None:
        """Predict how long the search will take from a short look at every group; shrink every trial's rows alike where it may not."""
        from batchlab.search.estimate import predicted_seconds

        self.predicted_seconds = predicted_seconds(self)
        allowed = None if self.rule.max_minutes is None else 60 * self.rule.max_minutes
        if allowed is not None and self.predicted_seconds > allowed:
            rows = max(int(self.budget_rows * allowed / self.predicted_seconds), min(self.row_count, self.budget_rows))
            if rows < self.budget_rows:
                self.notes.append(
                    f"every trial sees {rows:,} rows instead of {self.budget_rows:,}, so that the search fits into {allowed / 60:g} minutes"
                )
                self.plan = _budgeted(self.profile.train.model_copy(update={"max_rows": rows}), self.row_count)

    def _coarse(self, item: Progression) -> None:
        self._tune(item, rates.coarse(item.group.first.optimizer, self.rule.rates))

    def _refine(self, item: Progression) -> None:
        if item.tuned:
            tried = [result.trial.learning_rate for result in item.tuned]
            self._tune(item, rates.further(sorted(set(tried)), self._ranked(item)[0], self.rule.finer_rates))

    def _play_off(self, item: Progression) -> None:
        """Train the best few rates with many more seeds: what a few seeds flattered falls behind."""
        if item.tuned:
            self._tune(item, self._ranked(item)[: self.rule.final_rates], self.rule.final_seeds, first_seed=FINAL)

    def _tune(self, item: Progression, chosen: Sequence[float], seed_count: int | None = None, first_seed: int = 0) -> None:
        seeds = [self.profile.seed + first_seed + number for number in range(seed_count or self.rule.tuning_seeds)]
        trials = [Trial(rate, seed) for rate in chosen for seed in seeds]
        item.tuned += self._trained(item, trials, weights=False)

    def _within_time(self, item: Progression, work: Callable[[Progression], None]) -> None:
        """Do the work unless the time for tuning is over, also in the middle of it."""
        try:
            if self._is_late():
                raise OutOfTime
            work(item)
        except OutOfTime:
            self._note_the_end()

    def _is_late(self) -> bool:
        return (
            self.rule.max_minutes is not None and self.seconds > 60 * self.rule.max_minutes * (1 - RESERVED) and self._is_something_known()
        )

    def _is_something_known(self) -> bool:
        return any(item.tuned for item in self.groups.values())

    def _note_the_end(self) -> None:
        note = f"tuning ended at {self.rule.max_minutes:g} minutes' limit, before every strategy had all its trials"
        if note not in self.notes:
            self.notes.append(note)

    def _trained(
        self, item: Progression, trials: Sequence[Trial], weights: bool, watch: Callable[[Recorder], None] = lambda _: None
    ) -> list[TrialResult]:
        first, began = item.group.first, time.perf_counter()
        tuning = not weights

        def tell(progress: Progress) -> None:
            self.on_progress(item.group.label, progress)
            if tuning and self._is_late():
                raise OutOfTime

        changes = {"optimizer": first.optimizer, "patience": None, "keep": "settled" if weights else "last"}
        plan = self.plan.model_copy(update=changes)
        exp = self.experiment
        results = train(
            self.data,
            self.profile.model,
            first.strategy.updates,
            trials,
            plan,
            exp.loss,
            exp.device,
            tell,
            on_evaluation=watch,
            weights=weights,
        )
        self.trial_count += len(trials)
        item.seconds += time.perf_counter() - began
        return results

    def _aim(self) -> None:
        """Set the target from all tuning curves so far, unless the user did."""
        tuned = [result for item in self.groups.values() for result in item.tuned]
        if not tuned:
            return
        self.first_loss = float(np.mean([result.curve.validation_loss[0] for result in tuned]))
        if self.rule.target_loss is None:
            levels = [level for item in self.groups.values() for level in mean_levels(item.tuned)]
            self.target = target_loss(self.first_loss, levels)

    def _ranked(self, item: Progression) -> list[float]:
        return ranked_rates(summaries(item.tuned, self.target), self.rule.objective == "test_loss" or self.target is None)

    def _settle(self) -> None:
        """Choose every group's rate; those that people type have theirs."""
        for item in self.groups.values():
            first = item.group.first
            if first.typed and first.rates is not None:
                item.rate = first.rates[0]
            elif item.tuned:
                item.rate = self._ranked(item)[0]

    def _confirm(self, item: Progression) -> None:
        """Train the best rate with fresh seeds, and measure the noise scale along the first of them."""
        trials = [Trial(item.rate or 0.0, self.profile.seed + FRESH + number) for number in range(self.rule.seeds)]

        def watch(recorder: Recorder) -> None:
            curve = recorder.curves[0]
            if recorder.backend.active[0] and len(curve.step) % NOISE_EVERY == 1 and recorder.backend.seeds[0] == trials[0].seed:
                scale = recorder.backend.noise_scale(0, self.data, NOISE_BATCHES)
                item.noise.append(NoisePoint(curve.step[-1], curve.rows_seen[-1], curve.validation_loss[-1], scale))

        item.confirmed = self._trained(item, trials, weights=True, watch=watch)
        self.test_losses[item.group] = self.experiment.test_losses(item.confirmed)

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
        usual = min(sizes, key=lambda rows: abs(rows - LOADED_BATCH))
        assert self.apart is not None
        try:
            self.deliveries = self.apart.deliveries(usual)
        except ApartFailed as error:
            self.notes.append(f"loaders were not measured: {error}")

    def _train_sorted(self) -> None:
        """Train the fastest mini-batch once more, with rows in the order of their target instead of shuffled, seed by seed."""
        eligible = [item for item in self.known if isinstance(item.group.first.strategy.updates, MiniBatch) and not item.group.first.typed]
        eligible = [item for item in eligible if 1 < item.group.first.batch_rows < self.row_count and self.target is not None]
        if not eligible:
            return
        self.sorted_of = min(eligible, key=lambda item: _mean_rows(item.confirmed, self.target))
        order = torch.argsort(self.data.target, stable=True)
        data = replace(self.data, features=self.data.features[order], target=self.data.target[order], population=Population(self.row_count))
        strategy = MiniBatch(batch_rows=self.sorted_of.group.first.batch_rows, shuffled=False)
        trials = [result.trial for result in self.sorted_of.confirmed]
        plan = self.plan.model_copy(update={"optimizer": self.sorted_of.group.first.optimizer})
        exp = self.experiment
        self.sorted_results = train(data, self.profile.model, strategy, trials, plan, exp.loss, exp.device, weights=False)
        self.trial_count += len(trials)


def _mean_rows(results: Sequence[TrialResult], target: float | None) -> float:
    rows = np.array([rows_to(result, target) for result in results])
    return float(np.where(np.isnan(rows), 1e18, rows).mean())


def _budgeted(plan: Plan, row_count: int) -> Plan:
    """Return the plan of every trial: its rows, and evaluations that lie geometrically along them."""
    rows = min(plan.epochs * row_count, plan.max_rows or plan.epochs * row_count)
    return plan.model_copy(update={"max_rows": rows, "epochs": -(-rows // row_count), "spacing": "geometric", "learning_rate": None})
