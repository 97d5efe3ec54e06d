"""What is measured once the race is run and confirmed: test rows, yardsticks, timings, memory, models, order, loaders.

Every method returns what is then known. Parts that time does not allow are left out by name.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from batchlab.engine.data import TrainingData
from batchlab.engine.records import Plan
from batchlab.experiment import Experiment
from batchlab.search.apart import Apart, ApartFailed, ApartLate, Fetcher
from batchlab.search.clock import Clock
from batchlab.search.dividing import PART, over_processes
from batchlab.search.evidence import Ground, evidence_of
from batchlab.search.hands import Hands
from batchlab.search.known import Known
from batchlab.search.models import tested, to_train, with_model, with_models_missing
from batchlab.search.sorting import sorted_trainings
from batchlab.search.space import Candidate, Setting
from batchlab.search.timing import Stopwatch
from batchlab.search.yardsticks import Fitting

TIMED, DONE = 0.9, 0.97
"""By these shares of the limit the first sitting of the timing, and all else that is measured, are over; the rest is for the verdict."""
LOADED_BATCH = 32
"""Loaders are compared at the batch size nearest to this one."""
FETCHED_SIZES = (32, 256, 2048)
"""A loop that fetches items anew is measured at the best setting's rows a step, where these are no more, and its steps at these, too."""
FETCHING_SECONDS = 5.0
"""What that takes, at least."""
NOT_FETCHED = "what fetching the data set's items costs was not measured"
APART_SECONDS = 15.0
"""What memory and loaders take at least, beside and after the confirmation."""
SECONDS_A_TIMING = 0.06
YARDSTICK = 1 / 3
"""A yardstick takes no more than this share of what is left for measuring."""


@dataclass
class Measuring:
    """Measures the rows of a table on the (thinned) data of an experiment, within the time of a clock."""

    experiment: Experiment
    data: TrainingData
    plan: Plan
    clock: Clock
    hands: Hands
    stopwatch: Stopwatch = field(init=False)
    apart: Apart | None = field(default=None, init=False)
    fetcher: Fetcher | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.stopwatch = Stopwatch(self.experiment, self.data, self.plan, lambda: self.clock.is_over(DONE), self.hands.train)

    def parts(self, ground: Ground, known: Known, candidates: Sequence[Candidate]) -> dict[str, Callable[[Known], Known]]:
        """Return all that is measured after the confirmation, in its order: the names, and what turns what is known into what is then."""
        settings = to_train(known, ground)
        return {
            "test rows": lambda known: self.tested(known, ground),
            "yardsticks": self.with_yardsticks,
            "fetching items": lambda known: self.with_fetching(known, settings),
            "timing, first sitting": lambda known: self.timed(known, candidates, 0.5),
            **{f"model {number} of {len(settings)}": self._model(ground, setting) for number, setting in enumerate(settings, start=1)},
            "models": with_models_missing,
            "peak memory": self.with_memory,
            "timing, second sitting": lambda known: self.timed(known, candidates, 1.0),
            "sorted order": lambda known: self.with_sorted_order(known, ground),
            "loaders": lambda known: self.with_loaders(known, candidates),
            **({PART: lambda known: over_processes(self.stopwatch, known, candidates)} if self.plan.processes > 1 else {}),
        }

    def begun_apart(self, known: Known, candidates: Sequence[Candidate]) -> Known:
        """Begin to measure memory in a process of its own, beside the confirmation, whose time nobody takes; and start one for fetching."""
        limit = self.experiment.profile.search.max_minutes
        if (own := self.experiment.of_this_session) is not None:
            return _without(
                known, ("peak memory", "loaders"), f"a process of its own measures them, and cannot import {own} of this session"
            )
        if self.clock.left(DONE) >= 2 * APART_SECONDS:
            self.apart = Apart(self.experiment, candidates, self.plan)
            return self._with_fetcher(known)
        why = "the search was ended" if self.clock.stopping.is_set() else f"a limit of {limit:g} min leaves no time"
        return _without(known, ("peak memory", "loaders"), why)

    def _with_fetcher(self, known: Known) -> Known:
        items = self.experiment.given_items
        try:
            self.fetcher = None if items is None else Fetcher(self.experiment, items)
        except ApartFailed as error:
            return replace(known, notes=(*known.notes, f"{NOT_FETCHED}: {error}"))
        return known

    def stop(self) -> None:
        """End the processes that measure apart."""
        for process in (self.apart, self.fetcher):
            if process is not None:
                process.stop()

    def tested(self, known: Known, ground: Ground) -> Known:
        """Add what the trainings come to on the test rows."""
        evidence = evidence_of(ground, known)
        best_first = dict(sorted(evidence.items(), key=lambda item: min(result.validation_loss for result in item[1])))
        found = tested(self.experiment, best_first, self._is_over)
        losses, portions = ({setting: part[place] for setting, part in found.items()} for place in (0, 1))
        return replace(known, test_losses=losses, test_portions=portions)

    def with_yardsticks(self, known: Known) -> Known:
        """Add what cheap ways to predict come to on the same rows; each may take a third of the time that is left."""
        if not self.experiment.profile.search.yardsticks:
            return known
        if self._is_over():
            return _without(known, ("yardsticks",), "no time")
        found, missing = Fitting(self.experiment, lambda: YARDSTICK * self.clock.left(DONE)).all()
        return replace(known, yardsticks=found, left_out={**known.left_out, **missing})

    def timed(self, known: Known, candidates: Sequence[Candidate], share: float) -> Known:
        """Time the confirmed rows of the table in rounds, as many as time allows; the most promising rows where it is short."""
        left = max(0.0, self.clock.left(TIMED if share < 1 else DONE)) * share
        most = len(candidates) if math.isinf(left) else int(left / (2 * SECONDS_A_TIMING))
        candidates, planned = candidates[: max(most, 2)], self.experiment.profile.search.timings // 2
        rounds = planned if math.isinf(left) else int(left / (SECONDS_A_TIMING * max(len(candidates), 1)))
        growing = {
            candidate: known.confirmed[candidate.setting][0].rows_seen
            for candidate in candidates
            if candidate.strategy.grows and candidate.setting in known.confirmed
        }
        return replace(known, timings=self.stopwatch.sitting(candidates, max(1, min(planned, rounds)), growing, known.timings))

    def _model(self, ground: Ground, setting: Setting) -> Callable[[Known], Known]:
        """Return what adds a training of the setting on the split's own rows, and the noise scale along it."""
        return lambda known: with_model(self.experiment, self.data, self.plan, known, ground, setting, self._is_over)

    def with_memory(self, known: Known) -> Known:
        """Add the peaks that the process apart has measured."""
        if self.apart is None:
            return known
        if self._is_over():
            return _without(known, ("peak memory",), "no time")
        try:
            peaks = self.apart.peaks(self.clock.left(DONE))
        except ApartLate:
            return _without(known, ("peak memory",), "no time")
        except ApartFailed as error:
            return replace(known, notes=(*known.notes, f"memory was not measured: {error}"))
        return replace(known, peaks=dict(zip(self.apart.candidates, map(tuple, peaks), strict=True)))

    def with_sorted_order(self, known: Known, ground: Ground) -> Known:
        """Add trainings of the best mini-batch whose rows come sorted by their target."""
        if self._is_over():
            return _without(known, ("sorted order",), "no time")
        return sorted_trainings(self.experiment, ground.data, self.plan, known, ground.terms, self._is_over)

    def with_loaders(self, known: Known, candidates: Sequence[Candidate]) -> Known:
        """Add the speeds of loaders at a usual batch size, measured apart."""
        if self.apart is None or "peak memory" in known.left_out:
            return known
        if self._is_over():
            return _without(known, ("loaders",), "no time")
        if self.data.stored is not None:
            note = "loaders were not compared: the rows stay in files, and a DataLoader's workers would each take a copy"
            return replace(known, notes=(*known.notes, note))
        sizes = [candidate.batch_rows for candidate in candidates if not candidate.typed] or [LOADED_BATCH]
        try:
            size = min(sizes, key=lambda rows: abs(rows - LOADED_BATCH))
            return replace(known, deliveries=self.apart.deliveries(size, self.clock.left(DONE)))
        except ApartLate:
            return _without(known, ("loaders",), "no time")
        except ApartFailed as error:
            return replace(known, notes=(*known.notes, f"loaders were not measured: {error}"))

    def with_fetching(self, known: Known, best_first: Sequence[Setting]) -> Known:
        """Add what a loop costs that fetches a data set's items anew, measured apart, at the best setting's rows a step and others."""
        if self.fetcher is None:
            return known
        left = self.clock.left(DONE)
        if left < FETCHING_SECONDS:
            return _without(known, ("fetching items",), "no time")
        count = self.data.population.row_count
        most, own = min(FETCHED_SIZES[-1], count), [setting.updates.rows_per_step(count) for setting in best_first[:1]]
        sizes = [size for size in dict.fromkeys([*own, *FETCHED_SIZES]) if size <= most] or [most]
        try:
            return replace(known, fetching=self.fetcher.fetching(sizes, left))
        except ApartLate:
            return _without(known, ("fetching items",), "no time")
        except ApartFailed as error:
            return replace(known, notes=(*known.notes, f"{NOT_FETCHED}: {error}"))

    def _is_over(self) -> bool:
        return self.clock.is_over(DONE)


def _without(known: Known, parts: Sequence[str], why: str) -> Known:
    return replace(known, left_out={**known.left_out, **dict.fromkeys(parts, why)})
