"""Whether a champion still fits: drift of the fresh rows' columns, and of what it predicts and loses on them."""

import numpy as np
from numpy.typing import NDArray

from batchlab.config import Profile
from batchlab.engine.losses import chosen_loss
from batchlab.retraining.drift import Drift, drift
from batchlab.retraining.judging import Registered
from batchlab.table import PackedTable

FEWEST_LOSSES = 100
Rows = NDArray[np.int64]


def champion_drift(champion: Registered, table: PackedTable, sides: tuple[Rows, Rows], profile: Profile) -> Drift:
    """Compare the fresh rows of the table with old ones (`sides`: old, fresh; row numbers, ascending).

    The champion's losses are compared on rows that it was not trained on, where either side has 100 of them: they tell of a relation
    that has changed, or of targets that are wrong, while no column has.
    """
    rule = profile.retraining.drift
    whole = [rows[table.has_history(rows)] for rows in sides]
    some = [rows[:: max(1, -(-len(rows) // rule.most_rows))] for rows in whole]
    old, new = (champion.predicted(table, rows) for rows in some)
    loss = chosen_loss(profile.train.loss, table.schema.target.task, profile.train.huber_delta)
    before, now = (
        champion.losses(table, rows, predicted, loss)[champion.unseen(table, rows)]
        for rows, predicted in zip(some, (old, new), strict=True)
    )
    known = (before, now) if min(len(before), len(now)) >= FEWEST_LOSSES else None
    return drift(table, *sides, rule, (old, new), profile.columns.time, known)
