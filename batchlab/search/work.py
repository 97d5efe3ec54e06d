"""Doing what a race decides: training stretches, stacked, and accounting for what they take. The only file that trains for the race."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.data import TrainingData
from batchlab.engine.halts import Keeper
from batchlab.engine.loop import train
from batchlab.engine.records import Plan, Progress, Trial, TrialResult, TrialState
from batchlab.experiment import Experiment
from batchlab.search.judging import left
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

Tell = Callable[[str, Progress], None]


@dataclass(frozen=True)
class Item:
    """A trial to train, and where it goes on from."""

    setting: Setting
    trial: Trial
    state: TrialState | None


@dataclass(frozen=True)
class Worker:
    """Trains settings of an experiment under one plan, on (divided or thinned) data: those of the race and those that confirm.
    `should_stop` is asked between runs of steps; the `keeper` keeps where trainings stand."""

    experiment: Experiment
    data: TrainingData
    fresh_data: TrainingData
    plan: Plan
    tell: Tell
    should_stop: Callable[[], bool]
    keeper: Keeper | None = None

    @property
    def held_out(self) -> int:
        """How many validation rows a confirmation looks at."""
        return len(self.fresh_data.evaluated_in(0)[1][1])

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
        trained: dict[Setting, list[TrialResult]] = {}
        costs, began, replicas, training = dict(standings.row_seconds), time.perf_counter(), 0, 0.0
        for rows, stack in self._stacks(standings, rung):
            if self.should_stop() or time.perf_counter() - began > rung.seconds:
                break
            results, seconds_a_row = self._stretch(stack, rows)
            costs |= {} if seconds_a_row is None else {stack[0].setting.branch: seconds_a_row}
            replicas, training = replicas + len(stack), training + results[0].train_seconds
            for item, result in zip(stack, results, strict=True):
                trained.setdefault(item.setting, []).append(result)
            on_trained()
        went_on = any(entries[setting].trials and goal.rows > entries[setting].rows for setting, goal in rung.goals.items())
        seconds, standings = time.perf_counter() - began, standings.folded(trained)
        short = [setting for setting in trained if standings.entries[setting].rows < rung.goals[setting].rows]
        return replace(
            standings if self.should_stop() else standings.ending(short),
            share=max(standings.share, rung.share),
            looks=standings.looks + (went_on or standings.share == 0),
            row_seconds=costs,
            look_seconds=(seconds - training) / replicas if replicas else standings.look_seconds,
            seconds=standings.seconds + seconds,
        )

    def _stacks(self, standings: Standings, rung: Rung) -> list[tuple[int, list[Item]]]:
        """Return what trains together, and to how many rows: trials of one branch that stand at the same place."""
        stacks: dict[tuple[object, ...], list[Item]] = {}
        for setting, goal in rung.goals.items():
            known = standings.entries[setting].trials
            for draw in range(goal.draws):
                state = known[draw].state if draw < len(known) else None
                place = (0, 0, setting.updates, 0.0) if state is None else (state.steps, state.rows_seen, state.strategy, state.look)
                stacks.setdefault((goal.rows, *setting.branch, *place), []).append(Item(setting, self.race_trial(setting, draw), state))
        return [(place[0], stack) for place, stack in stacks.items() if isinstance(place[0], int)]

    def _stretch(self, stack: Sequence[Item], until: int) -> tuple[list[TrialResult], float | None]:
        """Train a stack until so many rows; return its trials and the seconds that a row of one of them took, if any was seen."""
        first = stack[0]
        before = 0 if first.state is None else first.state.rows_seen
        states = [item.state for item in stack if item.state is not None] or None
        points, trials = race_marks(before, until), [item.trial for item in stack]
        results = self._train(self.data, first.setting, trials, points, begun=states, states=True, weights=True)
        rows = sum(max(0, result.rows_seen - before) for result in results)
        return results, _row_seconds(results) if rows else None

    def confirm(self, setting: Setting, draws: int, rows: int) -> list[TrialResult]:
        """Train the setting for so many rows with fresh draws, and keep the weights."""
        trials = [self.fresh_trial(setting, draw) for draw in range(draws)]
        return self._train(self.fresh_data, setting, trials, confirming_marks(rows), states=False, weights=True)

    def _train(
        self, data: TrainingData, setting: Setting, trials: Sequence[Trial], points: NDArray[np.float64], **options: Any
    ) -> list[TrialResult]:
        exp = self.experiment
        plan = self.plan.model_copy(update={"optimizer": setting.optimizer, "patience": None, "keep": "last"})
        return train(
            data,
            exp.model,
            setting.updates,
            trials,
            plan,
            exp.loss,
            exp.device,
            lambda progress: self.tell(said(setting), progress),
            marks=points,
            should_stop=self.should_stop,
            keeper=self.keeper,
            **options,
        )


def _row_seconds(results: Sequence[TrialResult]) -> float | None:
    """Return what a row of one trial cost over the last stretch between two looks: before, loading kernels may have counted as training."""
    curve = max((result.curve for result in results), key=lambda curve: curve.rows_seen[-1])
    if len(curve.rows_seen) < 2:
        return None
    rows = curve.rows_seen[-1] - curve.rows_seen[-2]
    return (curve.wall_seconds[-1] - curve.wall_seconds[-2]) / (rows * len(results))


def said(setting: Setting) -> str:
    """Return the setting in a few words."""
    size = getattr(setting.updates, "batch_rows", "")
    return f"{setting.updates.kind} {size} {setting.optimizer.kind} {setting.learning_rate:g}".replace("  ", " ")


def race_marks(before: int, until: int) -> NDArray[np.float64]:
    """Return where a race looks at losses on its way from `before` to `until` rows."""
    halves = until * 2.0 ** -np.arange(MOST_MARKS)
    return np.unique(np.ceil(halves[halves > before] if before else halves[:FIRST_MARKS]))


def confirming_marks(rows: int) -> NDArray[np.float64]:
    """Return where a confirmation of so many rows looks at losses: geometrically, more closely towards the end."""
    late = rows * 2.0 ** -(np.arange(LATE_MARKS_A_DOUBLING * LATE_DOUBLINGS) / LATE_MARKS_A_DOUBLING)
    early = late[-1] * 2.0 ** -np.arange(1.0, EARLY_DOUBLINGS + 1)
    return np.unique(np.ceil(np.concatenate([early, late])))
