"""The gradient noise scale tr(Σ)/‖G‖² (McCandlish et al. 2018, appendix A.1) with a confidence interval."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from batchlab.analysis.estimates import CONFIDENCE, Estimate

NOTHING = 1e-9
"""Noise below this part of the signal counts as so much: a noise scale of a billionth of a row is none."""


def noise_scale(gradients: NDArray[np.floating], batch_rows: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return the noise scale in rows, from the gradients `[batches, parameters]` of small batches of `batch_rows` rows each, all at the
    same weights, and of the big batch that they make together.

    ‖G‖² = (B_big‖G_big‖² − B_small‖G_small‖²)/(B_big − B_small) and tr Σ = (‖G_small‖² − ‖G_big‖²)/(1/B_small − 1/B_big), both
    averaged before their ratio is taken. The interval is a jackknife over the small batches, of ‖G‖²/tr Σ, whose inverse may be
    unbounded: near a minimum the gradient drowns in noise, and no number of rows is enough.
    """
    small = np.asarray(gradients, np.float64)
    count = len(small)
    if count < 3:
        raise ValueError(f"the noise scale needs the gradients of 3 batches or more, got {count}")
    total = small.sum(0)
    squares, along = np.einsum("ij,ij->i", small, small), small @ total
    all_squares, all_total = squares.sum(), float(total @ total)
    if all_squares == 0:  # nothing is left to learn, and nothing to compare
        return Estimate(value=math.inf, low=0.0, high=math.inf)
    inverse = _signal_to_noise(all_total, all_squares, count, batch_rows)
    without = _signal_to_noise(all_total - 2 * along + squares, all_squares - squares, count - 1, batch_rows)
    pseudo = count * inverse - (count - 1) * without
    middle, error = float(pseudo.mean()), float(pseudo.std(ddof=1)) / math.sqrt(count)
    reach = float(stdtrit(count - 1, 0.5 + confidence / 2)) * error
    return Estimate(value=_inverted(middle), low=_inverted(middle + reach), high=_inverted(middle - reach))


def _signal_to_noise(total: "float | NDArray[np.float64]", squares: "float | NDArray[np.float64]", count: int, batch_rows: int):  # type: ignore[no-untyped-def]
    """Return ‖G‖²/tr Σ from ‖Σ g‖² and Σ ‖g‖² over `count` batches."""
    signal = (total - squares) / (count * (count - 1))
    noise = batch_rows * (squares - total / count) / (count - 1)
    return signal / np.maximum(noise, NOTHING * signal)


def _inverted(signal_to_noise: float) -> float:
    return 1 / signal_to_noise if signal_to_noise > 0 else math.inf
