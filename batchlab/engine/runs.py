"""A run: consecutive steps that a backend makes in one go."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.strategies import Indices


@dataclass(frozen=True)
class Run:
    """Consecutive steps. `rows` `[seeds, rows]` are row indices in their order; `portions` and `steps` hold where, along them,
    micro-batches and steps end. `first_step` counts from 1, `rows_before` are those seen by earlier runs. Of one process's part `whole`
    is the run of all processes, of whose rows it has some; its micro-batches may be empty."""

    rows: Indices
    portions: Indices
    steps: Indices
    first_step: int
    rows_before: int
    evaluated: bool
    whole: "Run | None" = None

    def only(self, mine: NDArray[np.bool_]) -> "Run":
        """Return the part with those of its rows that are marked `[rows]`."""
        kept = np.append(0, np.cumsum(mine))
        return replace(self, rows=self.rows[:, mine], portions=kept[self.portions], steps=kept[self.steps], whole=self.whole or self)

    @property
    def step_rows(self) -> Indices:
        """The rows seen in all, by all processes, before each step, and after the last one."""
        return self.rows_before + np.append(0, (self.whole or self).steps)

    @property
    def last_step(self) -> int:
        return self.first_step + len(self.steps) - 1

    @property
    def rows_seen(self) -> int:
        return int(self.step_rows[-1])

    def spans(self) -> Iterator[list[slice]]:
        """Yield, for each step, where its micro-batches stand along `rows`."""
        cuts = [0, *self.portions.tolist()]
        spans = [slice(start, end) for start, end in pairwise(cuts)]
        of = self.whole or self  # where one process has no rows its ends do not tell micro-batches apart
        lasts = (np.searchsorted(of.portions, of.steps) + 1).tolist()
        for first, last in pairwise([0, *lasts]):
            yield spans[first:last]


@dataclass(frozen=True)
class Window:
    """The rows of a run where they were read to: features `[seeds, places, features]` and target `[seeds, places]`, of which `order`
    `[seeds, rows]` holds the place of each of the run's rows. They stay there until the next run is asked for."""

    features: NDArray[Any]
    target: NDArray[Any]
    order: Indices


class Waiting:
    """Steps of one epoch or several, waiting to become a run."""

    def __init__(self) -> None:
        self.parts: list[tuple[Indices, Indices, Indices]] = []
        self.row_count = self.rows_before = self.steps_planned = self.steps_before = 0

    @property
    def rows_planned(self) -> int:
        return self.rows_before + self.row_count

    def begin_after(self, steps: int, rows: int) -> None:
        self.steps_planned = self.steps_before = steps
        self.rows_before = rows

    def add(self, rows: Indices, portions: Indices, steps: Indices) -> None:
        self.parts.append((rows, portions.astype(np.int64) + self.row_count, steps.astype(np.int64) + self.row_count))
        self.row_count += rows.shape[1]
        self.steps_planned += len(steps)

    def joined(self, evaluated: bool) -> Run:
        if len(self.parts) == 1:
            # kernels are compiled for rows that may be written to; remembered orders may not
            rows, portions, steps = np.require(self.parts[0][0], requirements=("C", "W")), *self.parts[0][1:]
        else:
            rows, portions, steps = (np.concatenate(part, axis=-1) for part in zip(*self.parts, strict=True))
        run = Run(rows, portions, steps, self.steps_before + 1, self.rows_before, evaluated)
        self.parts, self.row_count = [], 0
        self.rows_before, self.steps_before = run.rows_seen, run.last_step
        return run
