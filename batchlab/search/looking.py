"""The first look: one setting trained for a moment tells what rows and looks cost, and so with what a race can begin."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from batchlab.search.draws import sampled
from batchlab.search.hands import Here
from batchlab.search.known import Start
from batchlab.search.race import Goal, Rung
from batchlab.search.space import USUAL_SIZE, Setting
from batchlab.search.standings import Standings
from batchlab.search.terms import Terms
from batchlab.search.work import FIRST_MARKS, Worker

SHARE, OF_LOOKS = 0.12, 0.6
"""The first rung takes at most about this share of the limit; looking at losses may take so much of it though training takes the rest."""
LOOKED_AT = 1024
"""The first look itself looks at so many rows."""
FEWEST_EVALUATED, FEWEST_DRAWS, FEWEST_ROWS, FEWEST_SETTINGS = 512, 2, 512, 4
"""With less than this of each, settings could not be told apart: validation rows looked at, draws, rows on the first rung; and a race of
fewer settings is none."""


FEW_STEPS = 32
"""So many steps of the smallest batch tell what a step costs."""


@dataclass(frozen=True)
class Costs:
    """What one replica's row takes to train on, and to look at once, and what a stack takes whatever it trains; seconds. `step`: what a
    replica's step takes beside its rows, where that was found out; and how many rows there are."""

    row: float
    look: float
    stack: float
    step: float = 0.0
    row_count: int = 1

    def of(self, start: Start, settings: Sequence[Setting]) -> float:
        """Return the seconds of a first rung, whose settings begin in this order."""
        stacks = len({setting.branch for setting in settings[: start.settings]})
        looks = (1 + FIRST_MARKS) * start.rows_evaluated * self.look
        steps = (
            sum(start.rows / setting.updates.rows_per_step(self.row_count) for setting in settings[: start.settings]) if self.step else 0.0
        )
        return stacks * self.stack + start.draws * (steps * self.step + start.settings * (start.rows * self.row + looks))


def started(terms: Terms, settings: Sequence[Setting], costs: Costs, seconds: float, held_out: int) -> Start:
    """Return with what a race of so many seconds begins: as much as the terms say where that takes a small share of them; else it looks at
    fewer rows, then makes fewer draws, trains on fewer rows, and begins with fewer settings, each as far as still tells settings apart.
    Without a limit nothing depends on what was measured."""
    if math.isinf(seconds):
        return Start(terms.first_rows, terms.draws, len(settings), held_out)
    allowed, chosen = SHARE * seconds, Start(terms.first_rows, terms.draws, len(settings), held_out, costs.look)
    if costs.of(chosen, settings) > allowed:
        others = costs.of(replace(chosen, rows_evaluated=0), settings)
        looks = costs.of(chosen, settings) - others
        fewer = int(held_out * min(1.0, max(allowed - others, OF_LOOKS * allowed) / looks)) if looks else held_out
        chosen = replace(chosen, rows_evaluated=min(held_out, max(FEWEST_EVALUATED, fewer)))
    if costs.of(chosen, settings) > allowed:
        chosen = replace(chosen, draws=min(chosen.draws, FEWEST_DRAWS))
    if costs.of(chosen, settings) > allowed:
        chosen = replace(chosen, rows=_afforded_rows(chosen, settings, costs, allowed, FEWEST_ROWS))
    while costs.of(chosen, settings) > allowed and chosen.settings > FEWEST_SETTINGS:
        chosen = replace(chosen, settings=chosen.settings - 1)
    return replace(chosen, rows=_afforded_rows(chosen, settings, costs, allowed, _as_dear_as_looks(chosen, settings, costs)))


def _as_dear_as_looks(start: Start, settings: Sequence[Setting], costs: Costs) -> int:
    """Return the rows that take as long to train on as looking at their losses does: fewer would spend the time on looking."""
    looks = start.settings * start.draws * (1 + FIRST_MARKS) * start.rows_evaluated * costs.look
    training = costs.of(start, settings) - costs.of(replace(start, rows=0), settings)
    return max(1, min(start.rows, int(start.rows * looks / training))) if training else start.rows


def _afforded_rows(start: Start, settings: Sequence[Setting], costs: Costs, allowed: float, fewest: int) -> int:
    """Return the rows of a first rung that takes no longer than allowed; not fewer than these, nor more than it has."""
    all_rows = costs.of(start, settings)
    others = costs.of(replace(start, rows=0), settings)
    if all_rows <= allowed or all_rows <= others:
        return start.rows
    return min(start.rows, max(fewest, int(start.rows * (allowed - others) / (all_rows - others))))


def first_look(worker: Worker, standings: Standings, terms: Terms) -> Costs:
    """Train one setting for a moment: first for a step, which loads the kernels, then to tell what it costs. Where trainings step in torch
    and rows take many times as long in small batches, one is trained with the smallest batch, too."""
    settings, count = list(standings.entries), terms.row_count
    few = replace(
        worker,
        data=sampled(worker.data, LOOKED_AT, worker.experiment.profile.seed),
        hands=worker.hands if worker.hands.count == 1 else Here(),
    )
    if not worker.experiment.steps_in_torch:
        return _costs(few, settings[0], count, terms.first_rows)
    smallest = min(settings, key=lambda setting: setting.updates.rows_per_step(count))
    usual = min(settings, key=lambda setting: abs(math.log2(setting.updates.rows_per_step(count) / USUAL_SIZE)))
    costs = _costs(few, usual, count, terms.first_rows)
    small, size = smallest.updates.rows_per_step(count), usual.updates.rows_per_step(count)
    if small >= size:
        return costs
    dearer = _costs(few, smallest, count, FEW_STEPS * small)
    step = max(0.0, dearer.row - costs.row) / (1 / small - 1 / size)
    return replace(costs, row=max(0.0, costs.row - step / size), step=step, row_count=count)


def _costs(worker: Worker, setting: Setting, row_count: int, most_rows: int) -> Costs:
    """Return what a setting costs, trained on a few rows."""
    step = setting.updates.rows_per_step(row_count)
    for rows in (step, max(step, min(most_rows, FEWEST_ROWS))):
        seen = worker.run(Standings().joined_by([setting]), Rung(1.0, {setting: Goal(rows, FEWEST_DRAWS)}))
    trials = seen.entries[setting].trials
    looked = trials[0].evaluation_seconds / len(trials[0].curve.step)
    return Costs(
        row=seen.row_seconds.get(setting.branch, 0.0),
        look=looked / len(trials) / len(worker.data.evaluated_in(0)[1][1]),
        stack=max(0.0, seen.seconds - trials[0].train_seconds - trials[0].evaluation_seconds),
    )
