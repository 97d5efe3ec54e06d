"""How much one column's values changed between two samples, and whether that can be chance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
SHARES = np.arange(1, 10) / 10
FREQUENT = 0.05
"""A number with this share of the old rows has a bin of its own."""
FEWEST_EXPECTED = 5
"""Values expected less often than this in the smaller sample are pooled: the chi-squared approximation needs as much (Cochran 1954)."""
EMPTY = 0.5
"""Is counted into every bin, that an empty one has a logarithm."""


class Shift(NamedTuple):
    """The p value before any correction, the population stability index, the shares of missing values, and the change in words."""

    p_value: float
    psi: float
    missing_before: float
    missing_now: float
    change: str


def shift_of_numbers(before: Numbers, now: Numbers) -> Shift:
    """Compare numbers, not finite where missing: Kolmogorov-Smirnov on those known, Fisher's exact test on the shares of missing ones."""
    from scipy import stats

    known = [values[np.isfinite(values)] for values in (before, now)]
    missing = [len(values) - len(found) for values, found in zip((before, now), known, strict=True)]
    p_values = [_kolmogorov_smirnov(*known)] if all(map(len, known)) else []
    if any(missing):
        p_values.append(float(stats.fisher_exact([missing, [len(found) for found in known]]).pvalue))
    edges = _edges(known[0])
    binned = [np.bincount(np.searchsorted(edges, found), minlength=len(edges) + 1) for found in known]
    counts = [np.append(some, gone) for some, gone in zip(binned, missing, strict=True)]
    shares = missing[0] / len(before), missing[1] / len(now)
    change = [_spread_said(*known)] if all(map(len, known)) else []
    change += [_shares_said("missing", *shares)] if any(missing) else []
    return Shift(min(1.0, len(p_values) * min(p_values)), psi(*counts), *shares, ", ".join(change))


def shift_of_codes(before: Numbers, now: Numbers, names: Sequence[str]) -> Shift:
    """Compare codes, NaN where missing, that stand for `names` and the one after the last for all others: chi-squared, rare ones pooled."""
    from scipy import stats

    counts = [
        np.bincount(np.where(np.isnan(codes), len(names) + 1, codes).astype(np.int64), minlength=len(names) + 2) for codes in (before, now)
    ]
    shares = [count / count.sum() for count in counts]
    moved = int((shares[1] - shares[0]).argmax())
    name = [*(f"'{name}'" for name in names), "other values", "missing"][moved]
    pooled = _pooled(np.stack(counts), keep=())
    p_value = float(stats.chi2_contingency(pooled).pvalue) if pooled.shape[1] > 1 else 1.0
    binned = _pooled(np.stack(counts), keep=(len(names) + 1,))
    return Shift(p_value, psi(*binned), shares[0][-1], shares[1][-1], _shares_said(name, shares[0][moved], shares[1][moved]))


def psi(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Return the population stability index of counts in the same bins, less what chance alone adds on average.

    Two samples of n and m rows from one distribution have about (bins − 1)(1/n + 1/m) (Yurdakul 2018): without taking that off, few rows
    would always look drifted.
    """
    used = before + now > 0
    bins, rows = int(used.sum()), (before.sum(), now.sum())
    shares = [(counts[used] + EMPTY) / (total + bins * EMPTY) for counts, total in zip((before, now), rows, strict=True)]
    found = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    return max(0.0, found - (bins - 1) * float(1 / rows[0] + 1 / rows[1]))


def _kolmogorov_smirnov(before: Numbers, now: Numbers) -> float:
    from scipy import stats

    return float(stats.ks_2samp(before, now, method="asymp").pvalue)  # the exact one takes seconds of thousands of rows


def _edges(known: Numbers) -> Numbers:
    """Return where bins end, ends included: the deciles, and about every frequent number, so that a constant's change is seen too."""
    if not len(known):
        return np.empty(0)
    values, counts = np.unique(known, return_counts=True)
    frequent = values[counts >= FREQUENT * len(known)]
    return np.unique(np.concatenate([np.quantile(known, SHARES, method="inverted_cdf"), frequent, np.nextafter(frequent, -np.inf)]))


def _pooled(counts: NDArray[np.int64], keep: Sequence[int]) -> NDArray[np.int64]:
    """Return counts `[2, values]` with the rare values added up in one column, those to `keep` left out of that."""
    totals = counts.sum(axis=0)
    rare = totals * (counts.sum(axis=1).min() / totals.sum()) < FEWEST_EXPECTED
    rare[list(keep)] = False
    found = np.concatenate([counts[:, ~rare], counts[:, rare].sum(axis=1, keepdims=True)], axis=1)
    return np.asarray(found[:, found.sum(axis=0) > 0])


def _spread_said(before: Numbers, now: Numbers) -> str:
    """Say where the middle of the values was and is."""
    (low, middle, high), (low_now, middle_now, high_now) = (np.quantile(values, (0.25, 0.5, 0.75)) for values in (before, now))
    return f"median {middle:.4g} ({low:.4g} to {high:.4g}) → {middle_now:.4g} ({low_now:.4g} to {high_now:.4g})"


def _shares_said(name: str, before: float, now: float) -> str:
    return f"{name} {before:.1%} → {now:.1%}"
