"""Whether a target above 0 has so heavy a tail that it is better learnt on its logarithm."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SKEWED, TAMED = 2.0, 1.0
"""An exponential distribution has the first skewness; the logarithm must bring it below the second, on either side."""
FEWEST = 50
TOP = 0.01


@dataclass(frozen=True)
class Tail:
    """The skewness (third standardised moment) of a target and of its logarithm, and the share of its sum that the largest 1% hold."""

    skewness: float
    of_logarithm: float
    top_share: float


def heavy_tail(target: NDArray[Any]) -> Tail | None:
    """Return how heavy the tail of a target `[rows]` above 0 is; None where it is not, or where the logarithm does not tame it."""
    if len(target) < FEWEST or target.min() <= 0:
        return None
    values = np.asarray(target, np.float64)
    skewness, of_logarithm = pd.DataFrame({"values": values, "logarithms": np.log(values)}).skew().tolist()
    if not (skewness > SKEWED and abs(of_logarithm) < TAMED):  # a constant has no skewness, which is no number
        return None
    largest = np.sort(values)[-max(1, round(TOP * len(values))) :]
    return Tail(skewness, of_logarithm, float(largest.sum() / values.sum()))
