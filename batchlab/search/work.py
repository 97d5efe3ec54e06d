"""Doing what a race decides: training stretches, stacked, and accounting for what they take. The only file that trains for the race."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.records import Plan, Progress, Trial, TrialResult, TrialState
from batchlab.experiment import Experiment
from batchlab.search.race import MOST_DRAWS, Rung
from batchlab.search.space import Setting
from batchlab.search.standings import Left, Standings

MARKS_A_DOUBLING = 2
"""Losses of a race are looked at so many times while the rows seen double."""
LATE_MARKS_A_DOUBLING, LATE_DOUBLINGS, EARLY_DOUBLINGS = 4, 4, 8
"""Those of a confirmation more often over the last four doublings, from which the time to the target is read."""
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
    """Trains settings of an experiment on its (divided or thinned) data under one plan. `should_stop` is asked between runs of steps."""

    experiment: Experiment
    data: TrainingData
    plan: Plan
    tell: Tell
    should_stop: Callable[[], bool]

    def race_trial(self, setting: Setting, draw: int) -> Trial:
        """Return the trial of a race's draw: a seed, and a division where there are any."""
        return Trial(setting.learning_rate, self.experiment.profile.seed + draw, division=self._division(draw))

    def fresh_trial(self, setting: Setting, draw: int) -> Trial:
        """Return the trial of a confirmation's draw: a seed and a division that the race has not used."""
        return Trial(setting.learning_rate, self.experiment.profile.seed + FRESH + draw, division=self._division(MOST_DRAWS + draw))

    def _division(self, draw: int) -> int:
        return 0 if self.data.divisions is None else draw % len(self.data.divisions.train)

    def run(self, standings: Standings, rung: Rung) -> Standings:
        """Return the standings after the rung: its settings as far as it says or as time allowed."""
        leader = standings.leader
        if leader is not None:
            entries = standings.entries
            standings = standings.without(
                {setting: Left("time", entries[setting].rows, entries[setting].loss, leader.setting, leader.loss) for setting in rung.cut}
            )
        trained: dict[Setting, list[TrialResult]] = {}
        costs, began = dict(standings.row_seconds), time.perf_counter()
        for stack in self._stacks(standings, rung):
            if self.should_stop():
                break
            results, costs[stack[0].setting.branch] = self._stretch(stack, race_marks(rung.until_rows))
            for item, result in zip(stack, results, strict=True):
                trained.setdefault(item.setting, []).append(result)
        standings = standings.folded(trained)
        return replace(
            standings,
            rows=max(standings.rows, rung.until_rows),
            looks=standings.looks + (rung.until_rows > standings.rows),
            row_seconds=costs,
            seconds=standings.seconds + time.perf_counter() - began,
        )

    def _stacks(self, standings: Standings, rung: Rung) -> list[list[Item]]:
        """Return what trains together: trials of one branch that stand at the same place."""
        stacks: dict[tuple[object, ...], list[Item]] = {}
        for setting, draws in rung.draws.items():
            known = standings.entries[setting].trials
            for draw in range(draws):
                state = known[draw].state if draw < len(known) else None
                place = (0, 0, setting.updates, 0.0) if state is None else (state.steps, state.rows_seen, state.strategy, state.look)
                stacks.setdefault((*setting.branch, *place), []).append(Item(setting, self.race_trial(setting, draw), state))
        return list(stacks.values())

    def _stretch(self, stack: Sequence[Item], points: NDArray[np.float64]) -> tuple[list[TrialResult], float]:
        """Train a stack to the last of the points; return its trials and the seconds that a row of one of them took."""
        first, began = stack[0], time.perf_counter()
        states = [item.state for item in stack if item.state is not None] or None
        results = self._train(first.setting, [item.trial for item in stack], points, begun=states, states=True, weights=False)
        before = 0 if first.state is None else first.state.rows_seen
        rows = sum(max(0, result.rows_seen - before) for result in results)
        return results, (time.perf_counter() - began) / max(rows, 1)

    def confirm(self, setting: Setting, draws: int, rows: int) -> list[TrialResult]:
        """Train the setting for so many rows with fresh draws, and keep the weights."""
        trials = [self.fresh_trial(setting, draw) for draw in range(draws)]
        return self._train(setting, trials, confirming_marks(rows), states=False, weights=True)

    def _train(self, setting: Setting, trials: Sequence[Trial], points: NDArray[np.float64], **options: Any) -> list[TrialResult]:
        exp = self.experiment
        plan = self.plan.model_copy(update={"optimizer": setting.optimizer, "patience": None, "keep": "last", "hopeless_after": 1.0})
        return train(
            self.data,
            exp.model,
            setting.updates,
            trials,
            plan,
            exp.loss,
            exp.device,
            lambda progress: self.tell(said(setting), progress),
            marks=points,
            should_stop=self.should_stop,
            **options,
        )


def said(setting: Setting) -> str:
    """Return the setting in a few words."""
    size = getattr(setting.updates, "batch_rows", "")
    return f"{setting.updates.kind} {size} {setting.optimizer.kind} {setting.learning_rate:g}".replace("  ", " ")


def race_marks(until: int) -> NDArray[np.float64]:
    """Return where a race looks at losses on its way to `until` rows: the same places for all who come there, however they went."""
    return np.unique(np.ceil(until * 2.0 ** -(np.arange(3 * MARKS_A_DOUBLING) / MARKS_A_DOUBLING)))


def confirming_marks(rows: int) -> NDArray[np.float64]:
    """Return where a confirmation of so many rows looks at losses: geometrically, more closely towards the end."""
    late = rows * 2.0 ** -(np.arange(LATE_MARKS_A_DOUBLING * LATE_DOUBLINGS) / LATE_MARKS_A_DOUBLING)
    early = late[-1] * 2.0 ** -np.arange(1.0, EARLY_DOUBLINGS + 1)
    return np.unique(np.ceil(np.concatenate([early, late])))
