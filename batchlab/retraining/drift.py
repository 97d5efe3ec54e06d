"""Whether fresh rows still come from where the old ones came from: every raw column, the target and the predictions."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batchlab.results import Result
from batchlab.retraining.rule import DriftRule
from batchlab.table.schema import PackedTable

Predictions = NDArray[np.floating]


class ColumnDrift(Result):
    """One column, old rows against fresh ones. `psi` is its population stability index, `p_value` that of its test after correction.

    `untested` says why there was no test. `change` says in words what changed: the median, or the value whose share moved most.
    """

    name: str
    kind: Literal["number", "boolean", "datetime", "category", "prediction"]
    psi: float
    p_value: float
    drifted: bool
    missing_before: float
    missing_now: float
    change: str
    untested: str | None = None


class Drift(Result):
    """What drifted. `columns` are the raw features in the table's order; rows are those that were looked at; `text` is one sentence."""

    columns: tuple[ColumnDrift, ...]
    target: ColumnDrift
    predictions: ColumnDrift | None
    reference_rows: int
    fresh_rows: int
    drifted: bool
    text: str

    @property
    def worst(self) -> tuple[ColumnDrift, ...]:
        """What drifted, the largest change first."""
        every = (*self.columns, self.target, *filter(None, (self.predictions,)))
        return tuple(sorted((item for item in every if item.drifted), key=lambda item: -item.psi))


def drift(
    table: PackedTable,
    reference: NDArray[np.int64],
    fresh: NDArray[np.int64],
    rule: DriftRule,
    predictions: tuple[Predictions, Predictions] | None = None,
    time_column: str | None = None,
) -> Drift:
    """Compare `fresh` with `reference` rows of the table (row numbers, ascending) column by column; memory is bounded by the sample.

    `predictions` are those of one model on reference and on fresh rows, `[rows]` or `[rows, outputs]`; they need not be for the same
    rows as are looked at here. Dates, the `time_column` and whole numbers that never fall from row to row are not tested: they always
    move on.
    """
    raise NotImplementedError
