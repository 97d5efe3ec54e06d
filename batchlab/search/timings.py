"""What a setting's steps cost, and how fast rows are delivered, as measured."""

from dataclasses import dataclass

import numpy as np

from batchlab.analysis.estimates import Estimate, log_mean


@dataclass(frozen=True)
class Timings:
    """Seconds a step of one row of the table, one number a round; seconds of them spent on delivery; seconds of one evaluation.

    `alone` says that they were taken undisturbed; otherwise they are what the stacked trainings of the search took.
    """

    seconds_per_step: tuple[float, ...] = ()
    delivery_per_step: tuple[float, ...] = ()
    seconds_per_evaluation: tuple[float, ...] = ()
    alone: bool = True

    def step(self) -> Estimate:
        """Return the seconds of a step with their interval."""
        return log_mean(self.seconds_per_step).interval()

    @property
    def delivery_share(self) -> float:
        """How much of a step is drawing the order of rows and fetching them, measured alone; the rest is compute."""
        if not self.delivery_per_step:
            return 0.0
        return min(1.0, float(np.median(self.delivery_per_step) / np.median(self.seconds_per_step)))


@dataclass(frozen=True)
class Delivery:
    """One way to deliver batches: rows a second once it is under way, and the seconds until the first batch."""

    label: str
    workers: int
    rows_per_second: float
    first_batch_seconds: float
