"""Doing what a race decides: handing out stretches of training, stacked, and accounting for what they take."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.data import TrainingData
from batchlab.engine.halts import Keeper
from batchlab.engine.records import Plan, Trial, TrialResult, TrialState
from batchlab.experiment import Experiment
from batchlab.search.confirming import SHARE_OF_LAST_LOOK, rows_looked_at
from batchlab.search.draws import sampled
from batchlab.search.hands import Bench, Handed, Hands, SecondsLeft, Stack, Tell, Trained
from batchlab.search.judging import left
from batchlab.search.last_look import last_rows, looked_at_last, most_rows
from batchlab.search.race import MOST_DRAWS, Rung
from batchlab.search.space import Setting
from batchlab.search.standings import Standings

FIRST_MARKS, MOST_MARKS = 3, 12
"""Losses of a race are looked at where it halts and after a half, a quarter, … of these rows; on the first rung, where looking costs more
than training, three times."""
LATE_MARKS_A_DOUBLING, LATE_DOUBLINGS, EARLY_DOUBLINGS = 4, 4, 8
"""Those of a confirmation more often over the last four doublings, from which the time to the target is read."""
CONFIRMING_LOOKS = 1 + LATE_MARKS_A_DOUBLING * LATE_DOUBLINGS + EARLY_DOUBLINGS
FRESH = 1_000_003
"""Seeds of the confirmation are so far from those of the race."""


@dataclass(frozen=True)
class Worker:
    """Has settings of an experiment trained by `hands` under one plan, on (divided or thinned) data: those of the race and those that
    confirm. `seconds_left` says how much time there is; the `keeper` keeps where trainings in this process stand; `last_data` holds the
    validation rows of the last look at those that confirm, where there are more than along their curves."""

    experiment: Experiment
    data: TrainingData
    fresh_data: TrainingData
    plan: Plan
    tell: Tell
    seconds_left: SecondsLeft
    hands: Hands
    keeper: Keeper | None = None
    last_data: TrainingData | None = None

    @property
    def held_out(self) -> int:
        """How many validation rows a confirmation looks at."""
        return len(self.fresh_data.evaluated_in(0)[1][1])

    @property
    def looked_at_in_confirming(self) -> int:
        """How many validation rows all looks at one confirming training go by."""
        return CONFIRMING_LOOKS * self.held_out + (0 if self.last_data is None else len(self.last_data.validation_target))

    def confirming(self, standings: Standings, look_seconds: float) -> "Worker":
        """Return the worker that confirms what the race came to: it looks at as many validation rows as its trainings are worth, and at
        more of them when these have ended, which decides, where there are more. Looking at one row takes so many seconds."""
        seed, data = self.experiment.profile.seed, self.experiment.data
        along = rows_looked_at(standings, look_seconds, CONFIRMING_LOOKS, self.held_out)
        worker = replace(self, fresh_data=sampled(self.fresh_data, along, seed))
        if self.fresh_data.divisions is not None:
            return worker
        last = rows_looked_at(standings, look_seconds, 1, most_rows(data), SHARE_OF_LAST_LOOK)
        return worker if last <= along else replace(worker, last_data=last_rows(data, last, seed))

    def race_trial(self, setting: Setting, draw: int) -> Trial:
        """Return the trial of a race's draw: a seed, and a division where there are any."""
        return Trial(setting.learning_rate, self.experiment.profile.seed + draw, division=self._division(draw))

    def fresh_trial(self, setting: Setting, draw: int) -> Trial:
        """Return the trial of a confirmation's draw: a seed and a division that the race has not used."""
        return Trial(setting.learning_rate, self.experiment.profile.seed + FRESH + draw, division=self._division(MOST_DRAWS + draw))

    def _division(self, draw: int) -> int:
        return 0 if self.data.divisions is None else draw % len(self.data.divisions.train)

    def run(self, standings: Standings, rung: Rung, on_trained: Callable[[], None] = lambda: None) -> Standings:
        """Return the standings after the rung: its settings as far as it says or as time allowed. `on_trained` hears of every stack."""
        leader, entries = standings.leader, standings.entries
        if leader is not None:
            standings = standings.without({setting: left("time", entries[setting], leader) for setting in rung.cut})
        stacks = self._stacks(standings, rung)
        found: dict[int, Trained] = {}
        began, costs = time.perf_counter(), dict(standings.row_seconds)
        for number, trained in self._handed_out(self.data, [stack for stack, _ in stacks]):
            found[number] = trained
            costs |= {} if trained.row_seconds is None else {stacks[number][0].setting.branch: trained.row_seconds}
            on_trained()
            if self.hands.count * (time.perf_counter() - began) > rung.seconds:
                break
        results: dict[Setting, list[TrialResult]] = {}
        for number in sorted(found):  # they may have come in another order
            for setting, result in zip(stacks[number][1], found[number].results, strict=True):
                results.setdefault(setting, []).append(result)
        went_on = any(entries[setting].trials and goal.rows > entries[setting].rows for setting, goal in rung.goals.items())
        seconds, standings = time.perf_counter() - began, standings.folded(results)
        short = [setting for setting in results if standings.entries[setting].rows < rung.goals[setting].rows]
        looking, replicas = sum(item.seconds - item.train_seconds for item in found.values()), sum(map(len, results.values()))
        return replace(
            standings if self.seconds_left() <= 0 else standings.ending(short),
            share=max(standings.share, rung.share),
            looks=standings.looks + (went_on or standings.share == 0),
            row_seconds=costs,
            look_seconds=looking / replicas if replicas else standings.look_seconds,
            seconds=standings.seconds + seconds,
        )

    def _stacks(self, standings: Standings, rung: Rung) -> list[tuple[Stack, list[Setting]]]:
        """Return what trains together, and of which setting each trial is: trials of one branch that stand at the same place and go as
        far."""
        together: dict[tuple[object, ...], list[tuple[Setting, Trial, TrialState | None]]] = {}
        for setting, goal in rung.goals.items():
            known = standings.entries[setting].trials
            for draw in range(goal.draws):
                state = known[draw].state if draw < len(known) else None
                place = (0, 0, setting.updates, 0.0) if state is None else (state.steps, state.rows_seen, state.strategy, state.look)
                items = together.setdefault((goal.rows, *setting.branch, *place), [])
                items.append((setting, self.race_trial(setting, draw), state))
        return [_stacked(items, rung.goals[items[0][0]].rows) for items in together.values()]

    def confirm(self, setting: Setting, draws: int, rows: int) -> list[TrialResult]:
        """Have the setting trained for so many rows with fresh draws; none where there is no time."""
        stack = Stack(setting, tuple(self.fresh_trial(setting, draw) for draw in range(draws)), confirming_marks(rows))
        results = [result for _, trained in self._handed_out(self.fresh_data, [stack]) for result in trained.results]
        return results if self.last_data is None else looked_at_last(self.experiment, self.last_data, setting, results)

    def _handed_out(self, data: TrainingData, stacks: Sequence[Stack]) -> Handed:
        exp = self.experiment
        return self.hands.trained(
            Bench(exp.model, exp.loss, exp.device, self.plan, data), stacks, self.seconds_left, self.tell, self.keeper
        )


def _stacked(items: Sequence[tuple[Setting, Trial, TrialState | None]], until: int) -> tuple[Stack, list[Setting]]:
    """Return trials that stand at one place as a stack that goes so far, and their settings."""
    settings, trials, states = (list(part) for part in zip(*items, strict=True))
    begun = tuple(state for state in states if state is not None)
    return Stack(settings[0], tuple(trials), race_marks(begun[0].rows_seen if begun else 0, until), begun, states=True), settings


def race_marks(before: int, until: int) -> NDArray[np.float64]:
    """Return where a race looks at losses on its way from `before` to `until` rows."""
    halves = until * 2.0 ** -np.arange(MOST_MARKS)
    return np.unique(np.ceil(halves[halves > before] if before else halves[:FIRST_MARKS]))


def confirming_marks(rows: int) -> NDArray[np.float64]:
    """Return where a confirmation of so many rows looks at losses: geometrically, more closely towards the end."""
    late = rows * 2.0 ** -(np.arange(LATE_MARKS_A_DOUBLING * LATE_DOUBLINGS) / LATE_MARKS_A_DOUBLING)
    early = late[-1] * 2.0 ** -np.arange(1.0, EARLY_DOUBLINGS + 1)
    return np.unique(np.ceil(np.concatenate([early, late])))
