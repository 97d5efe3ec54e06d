"""The steps of a whole training as runs: stretches of steps between two looks at the losses, made by the backend in one go."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.records import Plan
from batchlab.strategies import Indices, Population, Strategy

FIRST_PART = 20_000
"""Geometric evaluations begin after so small a part of all rows."""
FIRST_LOOK, LOOK_AGAIN = 4096, 1.5
"""A strategy that adapts is asked after so many rows (at most an epoch), and again when the rows seen have grown so many times."""

Adapt = Callable[[Strategy], Strategy]


@dataclass(frozen=True)
class Run:
    """Consecutive steps. `rows` `[seeds, rows]` are row indices in their order; `portions` and `steps` hold where, along them,
    micro-batches and steps end. `first_step` counts from 1, `rows_before` are those seen by earlier runs."""

    rows: Indices
    portions: Indices
    steps: Indices
    first_step: int
    rows_before: int
    evaluated: bool

    @property
    def last_step(self) -> int:
        return self.first_step + len(self.steps) - 1

    @property
    def rows_seen(self) -> int:
        return self.rows_before + int(self.steps[-1])

    def spans(self) -> Iterator[list[slice]]:
        """Yield, for each step, where its micro-batches stand along `rows`."""
        cuts = [0, *self.portions.tolist()]
        spans = [slice(start, end) for start, end in pairwise(cuts)]
        lasts = (np.searchsorted(self.portions, self.steps) + 1).tolist()
        for first, last in pairwise([0, *lasts]):
            yield spans[first:last]


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
    strategy: Strategy, population: Population, seeds: Sequence[int], plan: Plan, most_rows: int, adapt: Adapt = lambda strategy: strategy
) -> Iterator[Run]:
    """Yield all runs of a training. A run ends with the step that reaches the next of the plan's evaluations, or `most_rows` rows.

    The steps are the same wherever runs end; the last run is always evaluated. A strategy that adapts is replaced by what `adapt` makes
    of it, first after `FIRST_LOOK` rows or an epoch, then each time the rows seen have grown by half; all steps before are yielded, and
    so made, by then. The rest of the epoch keeps its order and is cut anew.
    """
    points = np.append(marks(strategy, population.row_count, plan), math.inf)
    waiting, look = _Waiting(), min(FIRST_LOOK, population.row_count) if strategy.adapts else math.inf
    for epoch in range(plan.epochs):
        orders = [strategy.order(population, seed, epoch) for seed in seeds]
        rows = orders[0].rows[None] if len(orders) == 1 else np.stack([order.rows for order in orders])
        rows = rows.astype(np.int32 if population.row_count < 2**31 else np.int64, copy=False)
        before = waiting.rows_planned
        portions, steps = orders[0].portions, _allowed(orders[0].steps, plan, before, waiting.steps_planned)
        ends_here = epoch == plan.epochs - 1 or _is_spent(steps, plan, before, waiting.steps_planned)
        start = 0
        while len(steps):
            seen = waiting.rows_planned
            if seen >= look:
                if waiting.row_count:
                    yield waiting.joined(evaluated=False)
                strategy, look = adapt(strategy), LOOK_AGAIN * seen
                cut = strategy.order(Population(rows.shape[1] - start), 0, epoch)
                portions, steps = cut.portions + start, _allowed(cut.steps + start, plan, before, waiting.steps_planned)
                ends_here = epoch == plan.epochs - 1 or _is_spent(steps, plan, before, waiting.steps_planned)
            mark = points[int(np.searchsorted(points, seen, side="right"))]
            reach = start + min(mark - seen, most_rows - waiting.row_count, look - seen)
            made = min(int(np.searchsorted(steps, reach)) + 1, len(steps))
            end = int(steps[made - 1])
            first, last = np.searchsorted(portions, (start, end), side="right")
            waiting.add(rows[:, start:end], portions[first:last] - start, steps[:made] - start)
            start, steps = end, steps[made:]
            is_last = ends_here and not len(steps)
            if waiting.rows_planned >= mark or waiting.row_count >= most_rows or is_last:
                yield waiting.joined(evaluated=waiting.rows_planned >= mark or is_last)
        if ends_here:
            break


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


class _Waiting:
    """Steps of one epoch or several, waiting to become a run."""

    def __init__(self) -> None:
        self.parts: list[tuple[Indices, Indices, Indices]] = []
        self.row_count = self.rows_before = self.steps_planned = self.steps_before = 0

    @property
    def rows_planned(self) -> int:
        return self.rows_before + self.row_count

    def add(self, rows: Indices, portions: Indices, steps: Indices) -> None:
        self.parts.append((rows, portions + self.row_count, steps + self.row_count))
        self.row_count += rows.shape[1]
        self.steps_planned += len(steps)

    def joined(self, evaluated: bool) -> Run:
        if len(self.parts) == 1:
            rows, portions, steps = np.ascontiguousarray(self.parts[0][0]), *self.parts[0][1:]
        else:
            rows, portions, steps = (np.concatenate(part, axis=-1) for part in zip(*self.parts, strict=True))
        run = Run(rows, portions, steps, self.steps_before + 1, self.rows_before, evaluated)
        self.parts, self.row_count = [], 0
        self.rows_before, self.steps_before = run.rows_seen, run.last_step
        return run
