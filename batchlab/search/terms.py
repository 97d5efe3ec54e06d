"""What a race goes by, from the profile and the rows that there are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.data import TrainingData
from batchlab.engine.records import Plan
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.search.draws import IN_TIME, SHIFTS
from batchlab.search.space import Line, lines_of

FIRST_ROWS, SMALLEST_PART = 2048, 8
"""The first rung has so many rows, at most an 8th of the budget."""

DRAWS_WHERE_DIVIDED = 2
"""Where draws also divide the rows, their losses scatter more, and each seed of the profile stands for so many draws."""


@dataclass(frozen=True)
class Terms:
    """What a race goes by: training rows, rows that a whole training and the first rung see, draws of every setting in the race and (at
    most) in its confirmation, whether the validation rows are the same for all draws (so that they share in the uncertainty), whether
    they are windows in time that overlap, validation rows over training rows where draws divide them at random (`overlap`), the lines of
    the table, what may be proposed, and how many settings the first rung has (None: all)."""

    row_count: int
    budget_rows: int
    first_rows: int
    draws: int
    fresh_draws: int
    rows_are_shared: bool
    lines: tuple[Line, ...]
    rows_overlap: bool = False
    overlap: float = 0.0
    new_rates: bool = True
    new_sizes: bool = True
    beginners: int | None = None

    def shared(self, portions: NDArray[np.float64], divisions: Sequence[int]) -> NDArray[np.float64] | None:
        """Return losses of portions of the validation rows `[draws, portions]` so that a column stands for the same rows in all draws, NaN
        where a draw has not these; None where every draw has rows of its own.

        Windows in time lie a quarter apart, so three quarters of the rows of one are those of the next, and a row in four windows is no
        four rows.
        """
        if not self.rows_overlap:
            return portions if self.rows_are_shared else None
        count = portions.shape[1]
        found = np.full((len(portions), count + (SHIFTS - 1) * count // SHIFTS), np.nan)
        for own, losses, division in zip(found, portions, divisions, strict=True):
            start = (SHIFTS - 1 - division) * count // SHIFTS
            own[start : start + count] = losses
        return found


def terms_of(experiment: Experiment, data: TrainingData, plan: Plan) -> Terms:
    """Return the terms of a race on these rows under this plan; raises BadInput for a strategy that does not fit the training rows."""
    profile, budget, count = experiment.profile, plan.max_rows or 0, data.population.row_count
    lines = lines_of(profile, count)
    divisions, in_time = data.divisions, profile.split.kind in IN_TIME
    of_each_seed = 1 if divisions is None else DRAWS_WHERE_DIVIDED
    for line in lines:
        try:
            line.strategy.check(experiment.data.population)
        except BadInput as error:
            raise BadInput(f"{line.label}: {error}") from error
    return Terms(
        row_count=count,
        budget_rows=budget,
        first_rows=max(1, min(FIRST_ROWS, budget // SMALLEST_PART)),
        draws=of_each_seed * profile.search.tuning_seeds,
        fresh_draws=of_each_seed * profile.search.seeds,
        rows_are_shared=divisions is None and profile.split.kind != "in_sample",
        rows_overlap=divisions is not None and in_time,
        overlap=0.0 if divisions is None or in_time else divisions.validation.shape[1] / divisions.train.shape[1],
        lines=tuple(line for line in lines if line.batch_rows <= budget) or lines[:1],
        new_rates=profile.train.learning_rate is None,
        new_sizes=profile.search.batch_rows is None and any(line.strategy.kind == "mini_batch" and line.typed is None for line in lines),
    )
