"""The last known value of the target, for rows in the order of time: of all rows, or of those of the same group or category."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.yardsticks import Numbers, after_each, constant, last_known
from batchlab.experiment import Experiment
from batchlab.rows.split import embargo_of, times_of

MOST_ROWS, MOST_GROUPINGS = 2_000_000, 8
"""A larger table is not gone through for it; of many categories only the first are tried."""


@dataclass(frozen=True)
class Remembered:
    """Tells the target's last known value by all rows of the table that lie far enough back, an embargo included; `train` `[rows]` are the
    rows that tell what follows a class, and what is predicted where nothing is known."""

    experiment: Experiment
    train: NDArray[np.int64]

    @property
    def affordable(self) -> bool:
        """Whether the table is small enough."""
        return len(self.experiment.table.target) <= MOST_ROWS

    @cached_property
    def groupings(self) -> dict[str, NDArray[np.int64]]:
        """Return the numbers `[rows]` of the groups within which a value may be looked for, by their column; all rows are one of ``."""
        table, found, place = self.experiment.table, {"": np.zeros(len(self.experiment.table.target), np.int64)}, 0
        hashes = table.side_column("group")
        if hashes is not None:
            found[self.experiment.profile.columns.group or "group"] = np.unique(hashes, return_inverse=True)[1]
        for column in table.schema.columns:
            if column.kind == "category" and len(found) < MOST_GROUPINGS:
                found[column.name] = (np.nan_to_num(table.features[:, place], nan=-1.0) + 1).astype(np.int64)
            place += len(column.packed_names)
        return found

    def predicted(self, grouping: str, wanted: NDArray[np.int64]) -> Numbers:
        """Return the last known value `[wanted, 1]`; of classes, how often each followed the last known one `[wanted, classes]`."""
        truth, classes = self._truth, len(self.experiment.table.schema.target.classes)
        last = self._last(grouping, wanted)
        if classes:
            return np.asarray(after_each(self._last(grouping, self.train), truth[self.train], classes)[last])
        return np.where(np.isnan(last), constant(truth[self.train], 0)[0, 0], last)[:, None]

    @cached_property
    def _truth(self) -> NDArray[Any]:
        return np.array(self.experiment.preparation.unscaled(self.experiment.table.target))

    def _last(self, grouping: str, wanted: NDArray[np.int64]) -> NDArray[Any]:
        table, embargo = self.experiment.table, embargo_of(self.experiment.table, self.experiment.profile.split)
        classes, sequence = len(table.schema.target.classes), table.schema.sequence
        apart = 1 if sequence is None else max(1, sequence.horizon)
        return last_known(np.asarray(times_of(table)), self.groupings[grouping], self._truth, wanted, embargo, classes, apart)
