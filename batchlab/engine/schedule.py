"""The steps of a whole training as runs: stretches of steps between two looks at the losses, made by the backend in one go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from batchlab.engine.records import Plan
from batchlab.strategies import Indices, Population, Strategy


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
    """Return the rows that a training of `row_count` rows will see at most: all epochs, or as many steps as the plan allows."""
    all_epochs = plan.epochs * row_count
    return all_epochs if plan.max_steps is None else min(all_epochs, plan.max_steps * strategy.rows_per_step(row_count))


def runs(strategy: Strategy, population: Population, seeds: Sequence[int], plan: Plan, most_rows: int) -> Iterator[Run]:
    """Yield all runs of a training. A run ends with the step that reaches the next of the plan's evaluations, or `most_rows` rows.

    The steps are the same wherever runs end; the last run is always evaluated.
    """
    held = None
    for run in _stretches(strategy, population, seeds, plan, most_rows):
        if held is not None:
            yield held
        held = run
    if held is not None:
        yield replace(held, evaluated=True)


def _stretches(strategy: Strategy, population: Population, seeds: Sequence[int], plan: Plan, most_rows: int) -> Iterator[Run]:
    marks = np.linspace(0, planned_rows(strategy, population.row_count, plan), plan.evaluations + 1)[1:]
    most_steps = plan.epochs * population.row_count if plan.max_steps is None else plan.max_steps
    waiting = _Waiting()
    for epoch in range(plan.epochs):
        if waiting.steps_planned == most_steps:
            break
        orders = [strategy.order(population, seed, epoch) for seed in seeds]
        rows = orders[0].rows[None] if len(orders) == 1 else np.stack([order.rows for order in orders])
        rows = rows.astype(np.int32 if population.row_count < 2**31 else np.int64, copy=False)
        portions, steps = orders[0].portions, orders[0].steps[: most_steps - waiting.steps_planned]
        start = 0
        while len(steps):
            seen = waiting.rows_planned
            mark = marks[min(int(np.searchsorted(marks, seen, side="right")), len(marks) - 1)]
            reach = start + min(mark - seen, most_rows - waiting.row_count)
            made = min(int(np.searchsorted(steps, reach)) + 1, len(steps))
            end = int(steps[made - 1])
            first, last = np.searchsorted(portions, (start, end), side="right")
            waiting.add(rows[:, start:end], portions[first:last] - start, steps[:made] - start)
            start, steps = end, steps[made:]
            if waiting.rows_planned >= mark or waiting.row_count >= most_rows:
                yield waiting.joined(evaluated=waiting.rows_planned >= mark)
    if waiting.row_count:
        yield waiting.joined(evaluated=True)


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
