"""Scores of predictions, in the target's unit, through scikit-learn."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.losses import Loss
from batchlab.table.target import Target

Predictions = NDArray[np.float64]


def mean_loss(truth: NDArray[Any], predictions: Predictions, loss: Loss, target_scale: float) -> float:
    """Return the mean of the rows' losses."""
    return float(row_losses(truth, predictions, loss, target_scale).mean())


def row_losses(truth: NDArray[Any], predictions: Predictions, loss: Loss, target_scale: float) -> NDArray[np.float64]:
    """Return each row's loss `[rows]` in the target's unit: squared for MSE and Huber (its knee is `delta` scaled units wide), nats for
    cross-entropy, where a row costs at most 708, what the smallest probability in float64 does; its own for one of the user's. One that is
    not a number stays so."""
    if loss.own is not None:
        return loss.own.of_predictions(truth, predictions)
    if loss.name == "cross_entropy":  # not sklearn's log_loss, which takes no row to cost more than 36 nats
        probability = predictions[np.arange(len(truth)), truth].astype(np.float64)
        return np.asarray(-np.log(np.maximum(probability, np.finfo(np.float64).tiny)))
    residual = np.abs(predictions[:, 0].astype(np.float64) - truth)
    if loss.name == "huber":
        knee = loss.delta * target_scale
        return np.asarray(np.where(residual < knee, 0.5 * residual**2, knee * (residual - 0.5 * knee)))
    return np.asarray(residual**2)


def scores(truth: NDArray[Any], predictions: Predictions, target: Target) -> dict[str, float | None]:
    """Return the scores of the task by name; None for one that these rows cannot give (R² of a constant, ROC AUC without two classes)."""
    if target.task == "regression":
        return _regression_scores(truth, predictions[:, 0])
    return _classification_scores(truth, predictions, target)


def _regression_scores(truth: NDArray[np.float64], predictions: Predictions) -> dict[str, float | None]:
    from sklearn import metrics

    return {
        "rmse": float(metrics.root_mean_squared_error(truth, predictions)),
        "mae": float(metrics.mean_absolute_error(truth, predictions)),
        "r2": float(metrics.r2_score(truth, predictions)) if np.ptp(truth) > 0 else None,
    }


def _classification_scores(truth: NDArray[np.int64], predictions: Predictions, target: Target) -> dict[str, float | None]:
    from sklearn import metrics

    labels = np.arange(len(target.classes))
    chosen = predictions.argmax(axis=1)
    result: dict[str, float | None] = {
        "log_loss": float(metrics.log_loss(truth, predictions, labels=labels)),
        "accuracy": float(metrics.accuracy_score(truth, chosen)),
        "roc_auc": _roc_auc(truth, predictions),
    }
    table = metrics.confusion_matrix(truth, chosen, labels=labels)
    for label, name in zip(labels, target.classes, strict=True):
        result[f"rows_of_class/{name}"] = float(table[label].sum())
        result[f"predicted_as_class/{name}"] = float(table[:, label].sum())
        result[f"correct_of_class/{name}"] = float(table[label, label])
    return result


def _roc_auc(truth: NDArray[np.int64], predictions: Predictions) -> float | None:
    """Area under the ROC curve; one class against the rest, averaged, for more than two. None unless every class has rows."""
    from sklearn import metrics

    if len(np.unique(truth)) < predictions.shape[1]:
        return None
    if predictions.shape[1] == 2:
        return float(metrics.roc_auc_score(truth, predictions[:, 1]))
    return float(metrics.roc_auc_score(truth, predictions, multi_class="ovr", labels=np.arange(predictions.shape[1])))
