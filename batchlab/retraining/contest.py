"""What a gate looks at: the two models on the same holdout rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.retraining.drift import Drift

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Contestant:
    """A model on the holdout: `losses` `[rows]` in the target's unit, `predictions` `[rows, outputs]`, and what using it costs.

    `version` is its number in the registry. `old_losses` `[old rows]` are those on the old holdout, for an update. What was not
    measured (None) on either side is not compared.
    """

    losses: Numbers
    predictions: Numbers
    version: int | None = None
    seconds_per_row: float | None = None
    size_bytes: int | None = None
    old_losses: Numbers | None = None

    @cached_property
    def loss(self) -> float:
        """The mean loss; not finite where one is not, or where they are too large to be averaged."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.mean(self.losses, dtype=np.float64))


@dataclass(frozen=True)
class Holdout:
    """The rows that decide, in time order: `truth` `[rows]` (class numbers where there are `classes` of them, 0 for regression).

    `labels` are columns whose values are slices too, `[rows]` each (None or "" for missing); `constant_losses` `[rows]` those of always
    predicting the training rows' mean, or their shares of classes; `quarantined_share` is that of the fresh rows.
    """

    truth: NDArray[Any]
    classes: int = 0
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    constant_losses: Numbers | None = None
    quarantined_share: float = 0.0
    drift: Drift | None = None
