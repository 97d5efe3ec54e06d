"""Cheap ways to predict, to hold a model against: a constant, a linear model, the last known value, boosted trees. From arrays alone."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.paired import Difference

Numbers = NDArray[np.float64]
Predict = Callable[[NDArray[Any]], Numbers]
"""Maps inputs `[rows, inputs]` to predictions `[rows, 1]`, or to probabilities `[rows, classes]`."""
LEAST_SQUARES, LOGISTIC = "least squares", "scikit-learn's logistic regression with defaults"
BOOSTING = "scikit-learn's gradient boosting with defaults"
FITTED = (LEAST_SQUARES, LOGISTIC, BOOSTING)
"""What takes time to fit; a verdict says which of these there was none for."""
ROUNDS, FIRST_TREES, GROWTH = 100, 10, 9
"""Boosting makes so many rounds, in stretches: a first one of so many trees, then each at most so many times as long as all before. They
are few, for each bins the rows anew."""


@dataclass(frozen=True)
class Yardstick:
    """What a cheap way to predict comes to: mean losses on the split's validation and test rows, in the target's unit, and those of equal
    portions of the test rows `[portions]`; the seconds that fitting took, on `rows` of `of_rows` training rows. `key` names it in
    programs, `name` in sentences; `note` says what else there is to know."""

    key: str
    name: str
    validation_loss: float
    test_loss: float
    portions: Numbers
    seconds: float
    rows: int
    of_rows: int
    note: str = ""


def constant(truth: NDArray[Any], classes: int) -> Numbers:
    """Return what is best predicted always `[1, outputs]`: the mean or, of so many classes, their shares."""
    if classes:
        return np.bincount(truth, minlength=classes)[None] / len(truth)
    return np.array([[truth.mean()]])


def least_squares(inputs: Numbers, truth: Numbers) -> Predict:
    """Return the linear model with the least squared error on inputs `[rows, inputs]`; the one of smallest weights, where many are."""
    centre, level = inputs.mean(0), truth.mean()
    slopes = np.linalg.lstsq(inputs - centre, truth - level, rcond=None)[0]
    return lambda rows: ((rows - centre) @ slopes + level)[:, None]


def logistic(inputs: Numbers, truth: NDArray[np.int64], classes: int) -> tuple[Predict, bool]:
    """Return scikit-learn's logistic regression with its defaults, and whether it converged. Classes without a row have probability 0."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged is told
        model.fit(inputs, truth)
    return _of_all_classes(model, classes), int(np.max(model.n_iter_)) < model.max_iter


def _of_all_classes(model: Any, classes: int) -> Predict:
    def predict(rows: NDArray[Any]) -> Numbers:
        found = np.zeros((len(rows), classes))
        found[:, model.classes_] = model.predict_proba(rows)
        return found

    return predict


def boosted(
    features: NDArray[np.float32], truth: NDArray[Any], classes: int, categorical: NDArray[np.bool_], seed: int, seconds: float
) -> tuple[Predict, int]:
    """Return scikit-learn's histogram gradient boosting with its defaults, and how many rounds it made: fewer than `ROUNDS` where its own
    early stopping (above 10,000 rows) does not end it and the seconds were over. In stretches it comes to what it does in one go.

    Features `[rows, columns]` hold NaN for what is missing; `categorical` `[columns]` says which hold numbers of categories, 0 to 254.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    filled = np.isfinite(features).any(0)  # scikit-learn cannot bin a column without any value
    kept = np.flatnonzero(filled)
    features = features[:, kept]
    given: dict[str, Any] = {"warm_start": True, "max_iter": max(1, FIRST_TREES // max(1, classes)), "random_state": seed}
    given["categorical_features"] = categorical[kept] if categorical[kept].any() else None
    if classes and np.bincount(truth)[np.unique(truth)].min() < 2:
        given["early_stopping"] = False  # it divides every class in two
    model = (HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor)(**given)
    began, done = time.perf_counter(), 0
    while True:
        last = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what a target with many classes may be
            model.fit(features, truth)
        a_round, left = (time.perf_counter() - last) / (model.max_iter - done), seconds - (time.perf_counter() - began)
        done = model.max_iter
        more = int(min(ROUNDS - done, GROWTH * done, left / a_round))
        if model.n_iter_ < done or more < 1:
            break
        model.set_params(max_iter=done + more)
    predict = _of_all_classes(model, classes) if classes else lambda rows: model.predict(rows)[:, None]
    return lambda rows: predict(rows[:, kept]), ROUNDS if model.n_iter_ < done else done


def last_known(
    times: NDArray[Any],
    groups: NDArray[np.int64],
    truth: NDArray[Any],
    wanted: NDArray[np.int64],
    embargo: float,
    classes: int,
    moments_apart: int = 1,
) -> NDArray[Any]:
    """Return, for the `wanted` ones of these rows, the target at the last earlier moment of the same group, more than `embargo` before and
    so many `moments_apart`, in which a target comes to be known:
    the mean where it has several rows; of classes, that of its last row. NaN, or -1 for classes, where there is none."""
    moments, number = np.unique(times, return_inverse=True)
    span = len(moments) + 1
    keys, place = np.unique(groups * span + number, return_inverse=True)
    if classes:
        last = np.zeros(len(keys), np.int64)
        last[place] = np.arange(len(place))
        values = truth[last].astype(np.float64)
    else:
        values = np.bincount(place, weights=truth) / np.bincount(place)
    own = groups[wanted] * span
    before = np.searchsorted(keys, own + np.searchsorted(moments, times[wanted] - embargo) - moments_apart + 1) - 1
    found = np.where((before >= 0) & (keys[before] >= own), values[before], -1.0 if classes else math.nan)
    return found.astype(np.int64) if classes else found


def after_each(last: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> Numbers:
    """Return the shares of the classes that followed each last known one `[classes + 1, classes]`, the last row where none was known; the
    shares of all rows count as one more row of each, so that nothing is impossible."""
    counts = np.zeros((classes + 1, classes))
    np.add.at(counts, (last, truth), 1.0)  # -1, where none is known, is the last row
    counts += constant(truth, classes)
    return np.asarray(counts / counts.sum(1, keepdims=True))


def difference(yardstick: Yardstick, losses: Numbers, portions: Numbers, divided: bool) -> Difference:
    """Return a yardstick's mean test loss over that of trainings with these losses `[draws]` and `[draws, portions]` of the same rows, less
    1. It is uncertain by draws and rows; where each draw has training rows of its own (`divided`), the yardstick's one fit is taken to
    scatter as much as one training does. Unknown, with fewer than two draws or a loss of nothing."""
    mean, count, pieces = float(losses.mean()), len(losses), portions.shape[1]
    if count < 2 or pieces < 2 or not mean > 0 or not np.isfinite([mean, yardstick.test_loss]).all():
        return Difference(yardstick.test_loss / mean - 1 if mean > 0 else math.nan, math.inf, 1.0)
    ratio = yardstick.test_loss / mean
    if not ratio > 0:
        return Difference(ratio - 1, 0.0, math.inf)
    over_draws = float((losses / mean).var(ddof=1)) * (1 / count + divided)
    over_rows = float((yardstick.portions / yardstick.test_loss - portions.mean(0) / mean).var(ddof=1)) / pieces
    total, lost = over_draws + over_rows, over_draws**2 / (count - 1) + over_rows**2 / (pieces - 1)
    return Difference(ratio - 1, total, total**2 / lost if lost > 0 else math.inf)
