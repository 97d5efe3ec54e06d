"""How far the probabilities of a classifier are from what happened."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FULL_BINS, ROWS_A_BIN, MOST_CLASSES = 10, 100, 20


def calibration_error(truth: NDArray[Any], predictions: NDArray[np.float64]) -> float:
    """Return the mean distance between predicted probability and observed share over bins of equally many rows, averaged over classes.

    `truth` `[rows]` are class numbers, `predictions` `[rows, classes]`. Of two classes the second is looked at, of many the 20 most
    frequent; there are ten bins, or fewer of 100 rows each.
    """
    from sklearn.calibration import calibration_curve

    bins = max(1, min(FULL_BINS, len(truth) // ROWS_A_BIN))
    classes = predictions.shape[1]
    frequent = np.argsort(-np.bincount(truth, minlength=classes), kind="stable")[:MOST_CLASSES]
    errors = []
    for label in [1] if classes == 2 else frequent:
        probability = np.clip(predictions[:, label], 0.0, 1.0)
        observed, predicted = calibration_curve(truth == label, probability, n_bins=bins, strategy="quantile")
        errors.append(float(np.abs(observed - predicted).mean()))
    return float(np.mean(errors))
