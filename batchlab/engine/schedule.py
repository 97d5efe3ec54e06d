"""The steps of a whole training as runs: stretches of steps between two looks at the losses, made by the backend in one go."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.records import Plan
from batchlab.engine.runs import Run, Waiting
from batchlab.errors import BadInput
from batchlab.strategies import Indices, Order, Population, Strategy
from batchlab.strategies.base import short

FIRST_PART = 20_000
"""Geometric evaluations begin after so small a part of all rows."""
FIRST_LOOK, LOOK_AGAIN = 4096, 1.5
"""A strategy that adapts is asked after so many rows (at most an epoch), and again when the rows seen have grown so many times."""

Adapt = Callable[[Strategy], Strategy]


def planned_rows(strategy: Strategy, row_count: int, plan: Plan) -> int:
    """Return the rows that a training of `row_count` rows will see at most: all epochs, or as many rows or steps as the plan allows."""
    by_rows = min(plan.epochs * row_count, plan.max_rows or plan.epochs * row_count)
    return by_rows if plan.max_steps is None else min(by_rows, plan.max_steps * strategy.rows_per_step(row_count))


def marks(strategy: Strategy, row_count: int, plan: Plan) -> NDArray[np.float64]:
    """Return after how many rows to evaluate: evenly, or geometrically from a `FIRST_PART`-th of all rows on."""
    total = planned_rows(strategy, row_count, plan)
    if plan.spacing == "geometric" and plan.evaluations > 1:
        return np.geomspace(total / FIRST_PART, total, plan.evaluations)
    return np.linspace(0, total, plan.evaluations + 1)[1:]


def runs(
    strategy: Strategy,
    population: Population,
    seeds: Sequence[int],
    plan: Plan,
    most_rows: int,
    adapt: Adapt = lambda strategy: strategy,
    steps_done: int = 0,
) -> Iterator[Run]:
    """Yield all runs of a training. A run ends with the step that reaches the next of the plan's evaluations, or `most_rows` rows.

    The steps are the same wherever runs end; the last run is always evaluated. A strategy that adapts is replaced by what `adapt` makes
    of it, first after `FIRST_LOOK` rows or an epoch, then each time the rows seen have grown by half; all steps before are yielded, and
    so made, by then. The rest of the epoch keeps its order and is cut anew. With `steps_done` the runs are those after that many steps,
    as a training that was stopped there would have gone on; a strategy that adapts cannot be taken up so.
    """
    if steps_done and strategy.adapts:
        raise BadInput(f"a training of {strategy.kind} that adapts to what it measures begins at its first step, not after {steps_done}.")
    _, _, rows_done = taken_up(strategy, population, steps_done)
    return Cutting(strategy, population, plan, most_rows, adapt).runs(seeds, steps_done, rows_done)


def taken_up(strategy: Strategy, population: Population, steps_done: int) -> tuple[int, int, int]:
    """Return the epoch that `steps_done` steps end in, the steps made in it, and the rows seen in all.

    It is computed, not drawn, except for a batch that grows on schedule.
    """
    rows, epoch = population.row_count, 0
    while True:
        # batches that grow on schedule grow at an epoch's start
        step_rows = int(strategy.order(population, 0, epoch).steps[0]) if strategy.grows and steps_done else strategy.rows_per_step(rows)
        steps = -(-rows // step_rows)
        if steps_done < steps:
            return epoch, steps_done, epoch * rows + steps_done * step_rows
        skipped = 1 if strategy.grows else steps_done // steps
        epoch, steps_done = epoch + skipped, steps_done - skipped * steps


def _stacked(strategy: Strategy, population: Population, seeds: Sequence[int], epoch: int, steps_done: int) -> Iterator[Order]:
    """Yield the epoch's pieces with rows `[seeds, rows]`: cuts are the same for every seed."""
    of_first, *of_others = (strategy.pieces(population, seed, epoch, steps_done) for seed in seeds)
    for piece in of_first:
        rows = piece.rows[None].astype(short(population.row_count), copy=False)
        if of_others:
            rows = np.repeat(rows, len(seeds), axis=0)
            for place, pieces in enumerate(of_others, start=1):
                rows[place] = next(pieces).rows
        yield Order(rows, piece.portions, piece.steps)


def _with_the_last_marked(pieces: Iterator[Order]) -> Iterator[tuple[Order, bool]]:
    held = next(pieces, None)
    while held is not None:
        following = next(pieces, None)
        yield held, following is None
        held = following


class Cutting:
    """Cuts a training's epochs into runs; what is left of one goes into the next.

    `strategy` is the one that goes on, as it has adapted, and `look` the rows at which it is asked again. Runs end at the `points` (rows),
    by default those that the plan evaluates at.
    """

    def __init__(
        self,
        strategy: Strategy,
        population: Population,
        plan: Plan,
        most_rows: int,
        adapt: Adapt,
        points: Sequence[float] | NDArray[np.float64] | None = None,
        look: float | None = None,
    ) -> None:
        self.strategy, self.population, self.plan, self.most_rows, self.adapt = strategy, population, plan, most_rows, adapt
        self.points = np.append(marks(strategy, population.row_count, plan) if points is None else points, math.inf)
        first = min(FIRST_LOOK, population.row_count) if strategy.adapts else math.inf
        self.look = first if look is None else look
        self.waiting, self.is_over = Waiting(), False

    def runs(self, seeds: Sequence[int], steps_done: int, rows_done: int) -> Iterator[Run]:
        """Yield the runs after so many steps and rows."""
        population, strategy = self.population, self.strategy
        self.waiting.begin_after(steps_done, rows_done)
        if rows_done >= (self.plan.max_rows or math.inf) or steps_done >= (self.plan.max_steps or math.inf):
            return
        if strategy.adapts:
            epoch, in_epoch = divmod(rows_done, population.row_count)
        else:
            epoch, in_epoch, _ = taken_up(strategy, population, steps_done)
        for number in range(epoch, self.plan.epochs):
            done = in_epoch if number == epoch else 0
            if self.strategy.adapts:
                pieces = self._cut_anew(seeds, number, done)
            else:
                pieces = _stacked(self.strategy, population, seeds, number, done)
            for piece, is_last in _with_the_last_marked(pieces):
                yield from self.runs_of(piece, number, ends_training=is_last and number == self.plan.epochs - 1)
                if self.is_over:
                    return

    def _cut_anew(self, seeds: Sequence[int], epoch: int, rows_done: int) -> Iterator[Order]:
        """Yield the epoch's order after so many of its rows, cut as the strategy now is."""
        (whole,) = _stacked(self.strategy, self.population, seeds, epoch, 0)
        rest = self.strategy.order(Population(whole.rows.shape[1] - rows_done), 0, epoch)
        yield Order(whole.rows[:, rows_done:], rest.portions, rest.steps)

    def runs_of(self, piece: Order, epoch: int, ends_training: bool) -> Iterator[Run]:
        """Yield the runs that end in this piece."""
        waiting, start, portions, before = self.waiting, 0, piece.portions, self.waiting.rows_planned
        steps, ends_here = self._allowed(piece.steps, before, ends_training)
        while len(steps):
            seen = waiting.rows_planned
            if seen >= self.look:
                if waiting.row_count:
                    yield waiting.joined(evaluated=False)
                self.strategy, self.look = self.adapt(self.strategy), LOOK_AGAIN * seen
                cut = self.strategy.order(Population(piece.rows.shape[1] - start), 0, epoch)
                portions = cut.portions + start
                steps, ends_here = self._allowed(cut.steps + start, before, ends_training)
            mark = self.points[int(np.searchsorted(self.points, seen, side="right"))]
            reach = start + min(mark - seen, self.most_rows - waiting.row_count, self.look - seen)
            made = min(int(np.searchsorted(steps, reach)) + 1, len(steps))
            end = int(steps[made - 1])
            first, last = np.searchsorted(portions, (start, end), side="right")
            waiting.add(piece.rows[:, start:end], portions[first:last] - start, steps[:made] - start)
            start, steps = end, steps[made:]
            is_last = ends_here and not len(steps)
            if waiting.rows_planned >= mark or waiting.row_count >= self.most_rows or is_last:
                yield waiting.joined(evaluated=waiting.rows_planned >= mark or is_last)
        self.is_over = ends_here

    def _allowed(self, steps: Indices, rows_before: int, ends_training: bool) -> tuple[Indices, bool]:
        """Return the piece's steps that the plan still allows, and whether the training ends with the last of them."""
        allowed = _allowed(steps, self.plan, rows_before, self.waiting.steps_planned)
        return allowed, ends_training or _is_spent(allowed, self.plan, rows_before, self.waiting.steps_planned)


def _allowed(steps: Indices, plan: Plan, rows_before: int, steps_before: int) -> Indices:
    """Return the epoch's steps that the plan still allows; the one that reaches `max_rows` is the last."""
    most = len(steps) if plan.max_steps is None else plan.max_steps - steps_before
    if plan.max_rows is not None:
        most = min(most, int(np.searchsorted(steps, plan.max_rows - rows_before)) + 1)
    return steps[:most]


def _is_spent(steps: Indices, plan: Plan, rows_before: int, steps_before: int) -> bool:
    """Whether the plan allows no more after these steps."""
    by_steps = plan.max_steps is not None and steps_before + len(steps) >= plan.max_steps
    return by_steps or (plan.max_rows is not None and rows_before + int(steps[-1]) >= plan.max_rows)
