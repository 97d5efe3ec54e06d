"""Whether one feature alone tells the target: by being it, by determining it, or by being missing."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchlab.serving.batchlab_serving import PackedColumn

Numbers = NDArray[np.float64]
SCREENED = 0.05
"""Only a feature that leaves so small a share of the target's variation to its neighbours is looked at closely."""
SAME, SAME_ORDER = 0.9999, 0.999
"""A correlation above the first, and one of ranks above the second (no single far value makes it), says that a feature is the target."""
DETERMINED = 0.999
"""A feature that explains more of unseen rows alone gives the target away; honest strong ones stay below (0.97, say)."""
LARGEST_ERROR_SHARE = 0.01
"""For classes a feature must also err on so small a share of the rows on which the most frequent class errs: 99.95% may be its share."""
FEWEST, FEWEST_FOR_TREE, FEWEST_CASES = 20, 150, 10
"""Fewer rows prove nothing: a clean cut between classes happens honestly in a small table."""


@dataclass(frozen=True)
class Truth:
    """The sampled rows' targets `[rows]` (class numbers where there are classes), and their ranks, or classes again."""

    name: str
    values: NDArray[np.generic]
    classes: tuple[str, ...]

    @property
    def ordered(self) -> Numbers:
        """What is explained: class numbers, or ranks, that far values do not decide."""
        return np.asarray(self.values, np.float64) if self.classes else ranks(np.asarray(self.values, np.float64))


def ranks(values: Numbers) -> Numbers:
    """Return the rank of each value, equal ones sharing their mean rank."""
    return np.asarray(pd.Series(values).rank(), np.float64)


def unexplained(features: NDArray[np.float32], truth: Truth) -> Numbers:
    """Return the share `[columns]` of the target's variation that each packed column alone leaves, about 1 for one that says nothing.

    Rows must be in random order; those that miss the value are left out.
    """
    ordered, found = truth.ordered, np.ones(features.shape[1])
    for place in range(features.shape[1]):
        known = ~np.isnan(features[:, place])
        if known.sum() >= FEWEST:
            found[place] = min(_left(features[known, place], ordered[known], bool(truth.classes)))
    return found


def _left(feature: NDArray[np.float32], values: Numbers, classes: bool) -> tuple[float, float]:
    """Return the share of variation between neighbours in the feature's order (von Neumann 1941, Chatterjee 2021), and between rows of the
    same value among those whose value repeats (1 where fewer than half do)."""
    order = np.argsort(feature, kind="stable")
    feature, values = feature[order], values[order]
    apart = values[1:] != values[:-1] if classes else (values[1:] - values[:-1]) ** 2 / 2
    tied = feature[1:] == feature[:-1]
    repeated = np.append(tied, False) | np.append(False, tied)
    whole = _variation(values, classes), _variation(values[repeated], classes) if repeated.mean() >= 0.5 else 0.0
    return (float(apart.mean()) / whole[0] if whole[0] else 1.0), (float(apart[tied].mean()) / whole[1] if whole[1] else 1.0)


def _variation(values: Numbers, classes: bool) -> float:
    """Return the variance, or how probably two rows are of different classes."""
    if not classes:
        return float(values.var())
    return 1 - float(np.sum((np.bincount(values.astype(np.int64)) / len(values)) ** 2))


def determined(column: PackedColumn, features: NDArray[np.float32], truth: Truth) -> str | None:
    """Say how a column (packed `[rows, parts]`) gives the target away where it is known; None when it does not."""
    known = ~np.isnan(features[:, 0])
    if known.sum() < FEWEST:
        return None
    said = (_of_classes if truth.classes else _of_numbers)(column, features[known], Truth(truth.name, truth.values[known], truth.classes))
    share = float(known.mean())
    return said if said is None or share == 1 else f"{said}, in the {share:.0%} of rows that have it"


def _of_numbers(column: PackedColumn, features: NDArray[np.float32], truth: Truth) -> str | None:
    first, target = features[:, 0].astype(np.float64), np.asarray(truth.values, np.float64)
    if column.kind != "category" and first.std() > 0 and target.std() > 0:
        straight, in_order = _correlation(first, target), _correlation(ranks(first), truth.ordered)
        if straight > SAME and in_order > SAME_ORDER:
            if np.abs(first + column.offset - target).max() <= 1e-5 * np.abs(target).max():
                return f"'{column.name}' equals the target '{truth.name}'"
            return f"'{column.name}' is the target '{truth.name}' up to a constant factor and offset (correlation {_cut(straight)})"
        if in_order > SAME:
            return f"'{column.name}' puts the rows in the order of the target '{truth.name}' (rank correlation {_cut(in_order)})"
    if len(first) < FEWEST_FOR_TREE:
        return None
    if features.shape[1] == 1 and (within := _left(features[:, 0], truth.ordered, classes=False)[1]) < 1 - DETERMINED:
        between = f"{_percent(1 - within)} of the variance of its ranks lies between values"
        return f"rows of one '{column.name}' have the same target '{truth.name}': {between}"
    guess = _guessed(features, truth)
    left = float(np.mean((guess - truth.ordered) ** 2)) / float(truth.ordered.var())
    if left >= 1 - DETERMINED:
        return None
    return (
        f"'{column.name}' alone almost determines the target '{truth.name}': it explains {_percent(1 - left)} of the variance of its ranks"
    )


def _of_classes(column: PackedColumn, features: NDArray[np.float32], truth: Truth) -> str | None:
    first, target = features[:, 0], np.asarray(truth.values, np.int64)
    pairs = len(np.unique(np.stack([first.astype(np.float64), target], axis=1), axis=0))
    counts = np.bincount(target)
    if pairs == len(np.unique(first)) == np.count_nonzero(counts) > 1:
        return f"'{column.name}' has one value for each class of the target '{truth.name}'"
    by_constant = len(target) - int(counts.max())
    if len(target) < FEWEST_FOR_TREE or by_constant < FEWEST_CASES:
        return None
    wrong = int(np.count_nonzero(_guessed(features, truth) != target))
    if wrong / len(target) >= 1 - DETERMINED or wrong > LARGEST_ERROR_SHARE * by_constant:
        return None
    right, usual = _percent(1 - wrong / len(target)), f"{counts.max() / len(target):.1%}"
    said = f"'{column.name}' alone almost determines the target '{truth.name}'"
    return f"{said}: it tells the class of {right} of rows (the most frequent class is {usual})"


def _guessed(features: NDArray[np.float32], truth: Truth) -> Numbers:
    """Return what a decision tree of the features says of rows that it was not grown on."""
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    made = DecisionTreeClassifier if truth.classes else DecisionTreeRegressor
    tree = made(min_samples_leaf=max(1, len(features) // 4000), random_state=0)
    return np.asarray(cross_val_predict(tree, features, truth.ordered, cv=KFold(3, shuffle=True, random_state=0)), np.float64)


def missing_tells(column: PackedColumn, features: NDArray[np.float32], truth: Truth) -> str | None:
    """Say that a column is missing where the target has one value, and hardly anywhere else; None when it is not so."""
    gaps = np.isnan(features[:, 0])
    if not FEWEST_CASES <= gaps.sum() <= len(gaps) - FEWEST_CASES:
        return None
    values, counts = np.unique(truth.values[gaps], return_counts=True)
    usual = values[np.argmax(counts)]
    same = np.asarray(truth.values == usual)
    cases = min(gaps.sum(), same.sum(), (~same).sum())
    if np.count_nonzero(gaps != same) > LARGEST_ERROR_SHARE * cases:
        return None
    named = f"'{truth.classes[int(usual)]}'" if truth.classes else f"{usual:g}"
    there, elsewhere = _percent(float(gaps[same].mean())), _percent(float(gaps[~same].mean()))
    return (
        f"whether '{column.name}' is missing determines the target '{truth.name}': it is missing in {there} of rows whose target is "
        f"{named} and in {elsewhere} of the others"
    )


def _correlation(first: Numbers, second: Numbers) -> float:
    return abs(float(np.corrcoef(first, second)[0, 1]))


def _cut(value: float) -> str:
    return f"{np.floor(value * 1e6) / 1e6:.6f}".rstrip("0").rstrip(".")


def _percent(share: float) -> str:
    """Return a share with two decimals where it is close to all or nothing; only all is 100%."""
    return f"{np.floor(share * 1e4) / 100:g}%"
