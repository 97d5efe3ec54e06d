"""The search itself: its parts in order, each a stretch of work of its own that a caller may run where it likes."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import joblib

from batchlab.engine.backends.choice import made_ready
from batchlab.engine.records import Progress
from batchlab.experiment import Experiment
from batchlab.search.clock import Clock
from batchlab.search.concluding import concluded
from batchlab.search.confirming import Confirmation, aim_of, confirmations
from batchlab.search.draws import budgeted, divided, lightly, sampled, thinned
from batchlab.search.evidence import Ground
from batchlab.search.findings import Findings
from batchlab.search.hands import Hands, Here
from batchlab.search.judging import departures
from batchlab.search.keeping import Kept
from batchlab.search.known import Known, Start
from batchlab.search.looking import first_look, started
from batchlab.search.measuring import Measuring
from batchlab.search.part import Part
from batchlab.search.proposing import beginners
from batchlab.search.race import MOST_DRAWS, Rung, Seconds, ends_of, next_rung
from batchlab.search.space import Candidate, first_settings, lines_for, rows_of_table
from batchlab.search.standings import Standings
from batchlab.search.terms import DRAWS_WHERE_DIVIDED, Terms, terms_of
from batchlab.search.walking import walked
from batchlab.search.work import Worker

RACED, CONFIRMED, CONFIRMED_AT_ALL = 0.55, 0.8, 0.9
"""By these shares of the limit the race and the confirmation are over, and that of the first setting, without which nothing is sure."""
ENOUGH = 0.5
"""A confirmation that time cut short counts where it saw so much of its rows: averages are good at any moment."""


class Search:
    """Races all settings, confirms what is left with fresh draws, times it alone, and draws the verdict.

    `parts` yields the work in its order; each part replaces `known`, the one record of all that is known. `findings` is the verdict on it:
    at the end, after `stopped`, and at any moment between two parts.
    """

    def __init__(
        self,
        experiment: Experiment,
        on_progress: Callable[[str, Progress], None] = lambda label, progress: None,
        known: Known | None = None,
        kept: Kept | None = None,
        hands: Hands | None = None,
    ) -> None:
        self.experiment, self.profile, self.rule = experiment, experiment.profile, experiment.profile.search
        self.kept = kept
        limit = 60 * self.rule.max_minutes
        made_ready(experiment.model, self.profile.train, experiment.device)  # before the clock begins: a search is not the place for it
        self.clock = Clock(limit, time.perf_counter() - (0.0 if known is None else known.seconds))
        whole = thinned(experiment)
        data = lightly(experiment, divided(experiment, MOST_DRAWS + DRAWS_WHERE_DIVIDED * self.rule.seeds) or whole)
        self.plan = budgeted(self.profile.train, experiment.split.sizes()["train"], data.population.row_count)
        terms = terms_of(experiment, data, self.plan)
        self.share_allowed = RACED
        self.hands = hands or Here()
        self.worker = Worker(experiment, data, data, self.plan, on_progress, lambda: self.clock.left(self.share_allowed), self.hands, kept)
        self.measuring = Measuring(experiment, whole, self.plan, self.clock, self.hands)
        self.ground = Ground(experiment, data, terms, int(joblib.cpu_count()), None if math.isinf(limit) else limit / 60)
        notes = (self.hands.note,) if self.hands.note else ()
        self.known = known or Known(standings=Standings().joined_by(first_settings(self.profile, terms.lines)), notes=notes)
        if self.known.start is not None:
            self._begin_with(self.known.start)
        self.candidates: tuple[Candidate, ...] = ()
        self._findings: Findings | None = None

    @property
    def terms(self) -> Terms:
        """What the race goes by."""
        return self.ground.terms

    @property
    def budget_rows(self) -> int:
        """The rows that a training may see."""
        return self.terms.budget_rows

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

    def stopped(self) -> bool:
        """End the search with what is known; the part under way ends between two runs of steps. Whether that is the first time, and enough
        is known for a verdict."""
        if self.clock.stopping.is_set() or not (self.clock.begun.is_set() or self.known.standings.leader):
            return False
        self.clock.stopping.set()
        return True

    def keep(self) -> None:
        """Write what is known now, where the search was told where."""
        if self.kept is not None:
            self.kept.keep_known(replace(self.known, seconds=self.clock.elapsed))

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
            self.measuring.stop()
            self.hands.close()

    def _race(self) -> Iterator[Part]:
        self.share_allowed = RACED
        if self.known.start is None:
            yield Part("first look", self._look)
        while (rung := next_rung(self.known.standings, self.terms, self._left())) is not None:
            yield Part(f"race over {100 * rung.share:.3g}% of a training, {len(rung.goals)} settings", partial(self._run, rung))
            if self.clock.is_over(RACED):
                break

    def _left(self) -> Seconds:
        """Return what is left for racing and for the confirmation, all hands together."""
        racing, both = self.clock.left(RACED), self.clock.left(CONFIRMED)
        return Seconds(self.hands.count * racing, self.hands.count * (both - racing))

    def _look(self) -> None:
        """Find out with what the race can begin."""
        costs = first_look(self.worker, self.known.standings, self.terms)
        _, settings = beginners(self.known.standings, self.terms)
        self._begin_with(started(self.terms, settings, costs, self.clock.limit_seconds, self.worker.held_out))

    def _begin_with(self, start: Start) -> None:
        """Begin with what the first look said, now or before the search was killed."""
        self.known = replace(self.known, start=start)
        data = sampled(self.worker.fresh_data, start.rows_evaluated, self.profile.seed)
        self.worker = replace(self.worker, data=data)
        terms = replace(self.terms, first_rows=start.rows, draws=start.draws, beginners=start.settings)
        self.ground = replace(self.ground, terms=terms)

    def _run(self, rung: Rung) -> None:
        """Run a rung and see who leaves."""
        standings = self.worker.run(self.known.standings.joined_by(rung.goals), rung, self.clock.begun.set)
        gone = departures(standings, self.terms, ends_of(standings, self.terms, self._left()))
        self.known = replace(self.known, standings=standings.without(gone))

    def _confirmation(self) -> Iterator[Part]:
        self.share_allowed = CONFIRMED
        lines = lines_for(self.known.standings.entries, self.terms.lines)
        self.ground = replace(self.ground, terms=replace(self.terms, lines=lines))
        look = 0.0 if self.known.start is None else self.known.start.look_seconds
        self.worker = self.worker.confirming(self.known.standings, look)
        aim = aim_of(self.rule, self.experiment.loss_unit, self.terms, look * self.worker.looked_at_in_confirming)
        planned = confirmations(self.known.standings, self.terms, aim, self.hands.count * self.clock.left(CONFIRMED))
        self.candidates = rows_of_table(lines, [item.setting for item in planned])
        self.known = self.measuring.begun_apart(self.known, self.candidates)
        for item in planned:
            if item.setting in self.known.confirmed:
                continue
            if self.clock.is_over(CONFIRMED):
                break
            self.share_allowed = CONFIRMED if self.known.confirmed else CONFIRMED_AT_ALL
            label = next((candidate.label for candidate in self.candidates if candidate.setting == item.setting), "")
            yield Part(f"confirm {label}", partial(self._confirm, item))
        self.candidates = rows_of_table(lines, self.known.confirmed)

    def _confirm(self, item: Confirmation) -> None:
        results = self.worker.confirm(item.setting, item.draws, item.rows)
        if results and all(result.diverged_at is not None or result.rows_seen >= ENOUGH * item.rows for result in results):
            confirmed = {**self.known.confirmed, item.setting: tuple(results)}
            self.known = replace(self.known, confirmed=confirmed, trainings=self.known.trainings + len(results))

    def _measurements(self) -> Iterator[Part]:
        for label, measure in self.measuring.parts(self.ground, self.known, self.candidates).items():
            yield Part(label, partial(self._measure, measure), timed=label.startswith("timing"))

    def _measure(self, measure: Callable[[Known], Known]) -> None:
        self.known = measure(self.known)

    def _conclude(self) -> None:
        self._findings = concluded(self.ground, replace(self.known, seconds=self.clock.elapsed))

    def _walk(self) -> None:
        self._findings = walked(self.experiment, self.plan, self.findings)
