"""The search itself: its parts in order, each a stretch of work of its own that a caller may run where it likes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import joblib

from batchlab.engine.data import TrainingData
from batchlab.engine.records import Progress
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.search.apart import Apart, ApartFailed
from batchlab.search.clock import Clock
from batchlab.search.concluding import Ground, concluded, evidence_of
from batchlab.search.confirming import Aim, Confirmation, confirmations
from batchlab.search.draws import budgeted, divided, thinned
from batchlab.search.findings import Findings
from batchlab.search.judging import Terms, departures
from batchlab.search.known import Known
from batchlab.search.models import shipped_models, tested
from batchlab.search.race import MOST_DRAWS, Goal, Rung, Seconds, ends_of, next_rung
from batchlab.search.sorting import sorted_trainings
from batchlab.search.space import Candidate, first_settings, lines_for, lines_of, rows_of_table
from batchlab.search.standings import Standings
from batchlab.search.timing import Stopwatch
from batchlab.search.walking import walked
from batchlab.search.work import Worker

RACED, CONFIRMED, TIMED, DONE = 0.55, 0.8, 0.9, 0.97
"""By these shares of the limit the race, the confirmation, the timing and everything else are over; the rest is for the verdict."""
FIRST_ROWS, SMALLEST_PART, FIRST_LOOK = 2048, 8, 0.05
"""The first rung has so many rows, at most an 8th of the budget; fewer where it would take more than a 20th of the limit."""
LOADED_BATCH = 32
"""Loaders are compared at the batch size nearest to this one."""
ENOUGH = 0.5
"""A confirmation that time cut short counts where it saw so much of its rows: averages are good at any moment."""
APART_SECONDS = 15.0
"""What memory and loaders take at least, beside and after the confirmation."""
SECONDS_A_TIMING = 0.06


@dataclass(frozen=True)
class Part:
    """A stretch of the search: what it does, and how."""

    label: str
    run: Callable[[], None]


class Search:
    """Races all settings, confirms what is left with fresh draws, times it alone, and draws the verdict.

    `parts` yields the work in its order; each part replaces `known`, the one record of all that is known. `findings` is the verdict on it:
    at the end, after `stopped`, and at any moment between two parts.
    """

    def __init__(self, experiment: Experiment, on_progress: Callable[[str, Progress], None] = lambda label, progress: None) -> None:
        self.experiment, self.profile, self.rule = experiment, experiment.profile, experiment.profile.search
        limit = math.inf if self.rule.max_minutes is None else 60 * self.rule.max_minutes
        self.clock = Clock(limit)
        data = divided(experiment, MOST_DRAWS + self.rule.seeds)
        self.whole = thinned(experiment)
        self.plan = budgeted(self.profile.train, self.row_count)
        self.terms = self._terms(data or self.whole)
        racing, fresh = data or thinned(experiment, limit), data or self.whole
        self.worker = Worker(experiment, racing, fresh, self.plan, on_progress, lambda: self.clock.is_over(self.share_allowed))
        self.share_allowed = RACED
        self.stopwatch = Stopwatch(experiment, self.whole, self.plan, lambda: self.clock.is_over(self.share_allowed))
        self.ground = Ground(experiment, data or self.whole, self.terms, int(joblib.cpu_count()), self.rule.max_minutes)
        self.known = Known(standings=Standings().joined_by(first_settings(self.profile, self.terms.lines)))
        self.candidates: tuple[Candidate, ...] = ()
        self.apart: Apart | None = None
        self._findings: Findings | None = None

    @property
    def row_count(self) -> int:
        """The training rows of the split."""
        return self.experiment.split.sizes()["train"]

    def _terms(self, data: TrainingData) -> Terms:
        budget, count = self.plan.max_rows or 0, data.population.row_count
        lines = lines_of(self.profile, count)
        for line in lines:
            try:
                line.strategy.check(self.whole.population)
            except BadInput as error:
                raise BadInput(f"{line.label}: {error}") from error
        fitting = tuple(line for line in lines if line.batch_rows <= budget) or lines[:1]
        return Terms(
            row_count=count,
            budget_rows=budget,
            first_rows=max(1, min(FIRST_ROWS, budget // SMALLEST_PART)),
            draws=self.rule.tuning_seeds if data.divisions is None else 2 * self.rule.tuning_seeds,
            rows_are_shared=data.divisions is None and self.profile.split.kind != "in_sample",
            lines=fitting,
            new_rates=self.profile.train.learning_rate is None,
            new_sizes=self.rule.batch_rows is None and any(line.strategy.kind == "mini_batch" and line.typed is None for line in lines),
        )

    @property
    def budget_rows(self) -> int:
        """The rows that a training may see."""
        return self.terms.budget_rows

    @property
    def seconds(self) -> float:
        """Seconds since the search began."""
        return self.clock.elapsed

    @property
    def trial_count(self) -> int:
        """Trainings so far."""
        return self.known.all_trainings

    @property
    def findings(self) -> Findings:
        """The verdict on what is known now."""
        if self._findings is None:
            return concluded(self.ground, replace(self.known, seconds=self.clock.elapsed))
        return self._findings

    @property
    def share(self) -> float:
        """How far the search is: of its limit, or of the rows that the race goes to."""
        if not math.isinf(self.clock.limit_seconds):
            return min(1.0, self.clock.elapsed / self.clock.limit_seconds)
        return 0.5 * self.known.standings.share

    @property
    def labels(self) -> list[str]:
        """The rows of the table, in the order of the profile."""
        return [item.candidate.label for item in (*self.findings.settings, *self.findings.typed)]

    def stopped(self) -> bool:
        """End the search with what is known; the part under way ends between two runs of steps. Whether that is the first time, and enough
        is known for a verdict."""
        if self.clock.stopping.is_set() or self.known.standings.leader is None:
            return False
        self.clock.stopping.set()
        return True

    def seconds_of(self, label: str) -> float:
        """Return the seconds that all trainings of the setting's branch took in the race."""
        candidate = self.findings.of(label).candidate
        standings = self.known.standings
        rows = sum(
            trial.rows_seen
            for entry in standings.entries.values()
            if entry.setting.branch == candidate.setting.branch
            for trial in entry.trials
        )
        return rows * standings.row_seconds.get(candidate.setting.branch, 0.0)

    def parts(self) -> Iterator[Part]:
        """Yield all parts; each must have run before the next is asked for."""
        try:
            yield from self._race()
            yield from self._confirmation()
            yield from self._measurements()
            yield Part("verdict", self._conclude)
            if self.profile.split.kind == "walk_forward" and not self.clock.is_over():
                yield Part("walk forward", self._walk)
        finally:
            if self.apart is not None:
                self.apart.stop()

    def _race(self) -> Iterator[Part]:
        self.share_allowed = RACED
        yield Part("first look", self._look)
        while (rung := next_rung(self.known.standings, self.terms, self._left())) is not None:
            yield Part(f"race to {rung.share:.3g} of a training, {len(rung.goals)} settings", partial(self._run, rung))
            if self.clock.is_over(RACED):
                break

    def _left(self) -> Seconds:
        """Return what is left for racing and for the confirmation."""
        racing = self.clock.left(RACED)
        return Seconds(racing, self.clock.left(CONFIRMED) - racing)

    def _look(self) -> None:
        """Train one setting on a few rows: it loads the kernels, tells what a row costs, and so how many rows the first rung has."""
        setting = next(iter(self.known.standings.entries))
        rows = max(1, self.terms.first_rows // 4)
        rung = Rung(1.0, {setting: Goal(rows, self.terms.draws)})
        looked = Standings().joined_by([setting])
        for _ in range(2):  # the first look loads the kernels
            seen = self.worker.run(looked, rung)
        a_row = seen.row_seconds.get(setting.branch, 0.0)
        whole = a_row * self.terms.first_rows * self.terms.draws * len(self.known.standings.entries)
        allowed = FIRST_LOOK * self.clock.limit_seconds
        if whole > allowed:
            rows = max(setting.updates.rows_per_step(self.terms.row_count), int(self.terms.first_rows * allowed / whole), 1)
            self.terms = replace(self.terms, first_rows=min(rows, self.terms.first_rows))

    def _run(self, rung: Rung) -> None:
        """Run a rung and see who leaves."""
        standings = self.worker.run(self.known.standings.joined_by(rung.goals), rung)
        gone = departures(standings, self.terms, ends_of(standings, self.terms, self._left()))
        self.known = replace(self.known, standings=standings.without(gone))

    def _confirmation(self) -> Iterator[Part]:
        self.share_allowed = CONFIRMED
        lines = lines_for(self.known.standings.entries, self.terms.lines)
        self.terms = replace(self.terms, lines=lines)
        self.ground = replace(self.ground, terms=self.terms)
        rule, target = self.rule, self.rule.target_loss
        aim = Aim(
            margin=rule.margin,
            target=None if target is None else target / self.experiment.loss_unit,
            by_cost=rule.objective not in ("loss",),
            draws=rule.seeds,
        )
        planned = confirmations(self.known.standings, self.terms, aim, self.clock.left(CONFIRMED))
        self.candidates = rows_of_table(lines, [item.setting for item in planned])
        self._start_apart()
        for item in planned:
            if self.clock.is_over(CONFIRMED):
                break
            yield Part(f"confirm {self._label(item)}", partial(self._confirm, item))
        self.candidates = rows_of_table(lines, self.known.confirmed)

    def _label(self, item: Confirmation) -> str:
        return next((candidate.label for candidate in self.candidates if candidate.setting == item.setting), "")

    def _confirm(self, item: Confirmation) -> None:
        results = self.worker.confirm(item.setting, item.draws, item.rows)
        if all(result.diverged_at is not None or result.rows_seen >= ENOUGH * item.rows for result in results):
            confirmed = {**self.known.confirmed, item.setting: tuple(results)}
            self.known = replace(self.known, confirmed=confirmed, trainings=self.known.trainings + len(results))

    def _start_apart(self) -> None:
        """Measure memory in a process of its own beside the confirmation, whose time nobody takes, where time allows it."""
        if self.clock.left(DONE) < 2 * APART_SECONDS:
            why = (
                f"a limit of {self.rule.max_minutes:g} minutes leaves no time"
                if self.rule.max_minutes is not None
                else "the search was ended"
            )
            self.known = replace(self.known, left_out={**self.known.left_out, "memory": why, "loaders": why})
        else:
            self.apart = Apart(self.experiment, self.candidates, self.plan)

    def _measurements(self) -> Iterator[Part]:
        self.share_allowed = TIMED
        yield Part("test rows", self._test)
        yield Part("timing, first sitting", partial(self._time, 0.5))
        self.share_allowed = DONE
        yield Part("models", self._ship)
        if self.apart is not None and not self.clock.is_over(DONE):
            yield Part("memory", self._await_memory)
        yield Part("timing, second sitting", partial(self._time, 1.0))
        if not self.clock.is_over(DONE):
            yield Part("sorted order", self._sort)
        if self.apart is not None and not self.clock.is_over(DONE):
            yield Part("loaders", self._measure_loaders)

    def _test(self) -> None:
        evidence = evidence_of(self.ground, self.known)
        self.known = replace(self.known, test_losses=tested(self.experiment, evidence, lambda: self.clock.is_over(DONE)))

    def _time(self, share: float) -> None:
        """Time every confirmed row of the table in rounds, as many as time allows; the most promising rows where it is short."""
        left = max(0.0, self.clock.left(TIMED if share < 1 else DONE)) * share
        most = len(self.candidates) if math.isinf(left) else int(left / (2 * SECONDS_A_TIMING))
        candidates = self.candidates[: max(most, 2)]
        rounds = self.rule.timings // 2 if math.isinf(left) else int(left / (SECONDS_A_TIMING * max(len(candidates), 1)))
        rounds = max(1, min(self.rule.timings // 2, rounds))
        timings = self.stopwatch.sitting(candidates, rounds, self._growing_rows(), self.known.timings)
        self.known = replace(self.known, timings=timings)

    def _growing_rows(self) -> dict[Candidate, int]:
        """Return how many rows a batch that grows sees in its confirmed trainings."""
        confirmed = self.known.confirmed
        return {
            candidate: confirmed[candidate.setting][0].rows_seen
            for candidate in self.candidates
            if candidate.strategy.grows and candidate.setting in confirmed
        }

    def _ship(self) -> None:
        self.known = shipped_models(self.experiment, self.whole, self.plan, self.known, self.ground, lambda: self.clock.is_over(DONE))

    def _await_memory(self) -> None:
        assert self.apart is not None
        try:
            peaks = self.apart.peaks()
        except ApartFailed as error:
            self.known = replace(self.known, notes=(*self.known.notes, f"memory was not measured: {error}"))
        else:
            self.known = replace(self.known, peaks=dict(zip(self.apart.candidates, map(tuple, peaks), strict=True)))

    def _sort(self) -> None:
        self.known = sorted_trainings(
            self.experiment, self.ground.data, self.plan, self.known, self.terms, lambda: self.clock.is_over(DONE)
        )

    def _measure_loaders(self) -> None:
        sizes = [candidate.batch_rows for candidate in self.candidates if not candidate.typed] or [LOADED_BATCH]
        if self.whole.stored is not None:
            note = "loaders were not compared: the rows stay in files, and a DataLoader's workers would each take a copy"
            self.known = replace(self.known, notes=(*self.known.notes, note))
            return
        usual = min(sizes, key=lambda rows: abs(rows - LOADED_BATCH))
        assert self.apart is not None
        try:
            self.known = replace(self.known, deliveries=self.apart.deliveries(usual))
        except ApartFailed as error:
            self.known = replace(self.known, notes=(*self.known.notes, f"loaders were not measured: {error}"))

    def _conclude(self) -> None:
        self._findings = concluded(self.ground, replace(self.known, seconds=self.clock.elapsed))

    def _walk(self) -> None:
        self._findings = walked(self.experiment, self.plan, self.findings)
