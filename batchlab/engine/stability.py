"""Why a linear model diverges: the curvature of its loss, and the learning rate beyond which no step can hold it."""

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import Optimizer


def largest_curvature(features: NDArray[np.float64], loss: Loss, weight_decay: float = 0.0) -> float:
    """Return the largest eigenvalue of the loss's Hessian in the weights and bias of a linear model.

    `features` is `[rows, features]`, as the model sees them. Exact for MSE; an upper bound for Huber and cross-entropy.
    """
    with_bias = np.column_stack([features, np.ones(len(features))])
    return float(loss.curvature * np.linalg.eigvalsh(with_bias.T @ with_bias / len(features))[-1] + weight_decay)


def largest_stable_rate(features: NDArray[np.float64], loss: Loss, optimizer: Optimizer) -> float | None:
    """Return the learning rate above which full-batch steps diverge on a quadratic: 2/curvature for plain gradient descent.

    For Huber and cross-entropy a rate that is certainly stable. Smaller batches need a smaller rate. None where the
    optimizer rescales its steps (Adam), so that no such bound is known.
    """
    gain = optimizer.stability_gain()
    return None if gain is None else 2 * gain / largest_curvature(features, loss, optimizer.weight_decay)


def divergence_reason(step: int, rate: float, stable_rate: float | None, scaled: bool, exact: bool) -> str:
    """Say at which step a trial diverged, how its learning rate compares with the largest stable one, and what to do.

    Where that is not `exact`, the number is a rate that is surely stable.
    """
    reason = f"the loss left all bounds at step {step} with learning rate {rate:g}"
    if stable_rate is not None and rate > stable_rate:
        reason += (
            f", {rate / stable_rate:.3g} times {'the largest stable one' if exact else 'one that is surely stable'} ({stable_rate:.3g})"
        )
    elif stable_rate is not None:
        reason += f"; full-batch steps are stable up to {stable_rate:.3g}, small batches need less"
    advice = f"stay below {stable_rate:.3g}" if stable_rate is not None and rate > stable_rate else "use a lower learning rate"
    return f"{reason}; {advice}" + ("." if scaled else ", or scale the features (scale=true) so that a common rate fits them all.")
