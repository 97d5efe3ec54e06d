"""The slices of a holdout on which a challenger must not be much worse: stretches of time, and the values of columns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.retraining.improvement import Numbers, chance_of_no_harm, holm
from batchlab.retraining.promotion import Slice

FEWEST_ROWS, MOST_VALUES = 30, 100
"""A value with fewer rows is no slice of its own; of a column's values the most frequent so many are."""


def slices(champion: Numbers, challenger: Numbers, periods: int, labels: Mapping[str, Sequence[Any]]) -> tuple[Slice, ...]:
    """Return both sides' mean losses on `periods` equal stretches of the rows and on the frequent values of every column of `labels`."""
    parts = [*_periods(len(champion), periods), *(part for column, values in labels.items() for part in _values(column, values))]
    p_values = holm([chance_of_no_harm(champion[rows], challenger[rows]) for _, rows in parts])
    return tuple(
        Slice(
            name=name,
            rows=len(rows),
            champion_loss=float(champion[rows].mean()),
            challenger_loss=float(challenger[rows].mean()),
            p_value=float(p_value),
        )
        for (name, rows), p_value in zip(parts, p_values, strict=True)
    )


def _periods(count: int, periods: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
    for number, rows in enumerate(np.array_split(np.arange(count), periods), start=1):
        if len(rows):
            yield f"period {number} of {periods}", rows


def _values(column: str, values: Sequence[Any]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each frequent value's rows in their order; missing values are in no slice."""
    import pandas as pd

    codes, names = pd.factorize(pd.Series(list(values), dtype="object").replace("", None), use_na_sentinel=True)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    for code in np.argsort(-counts, kind="stable")[:MOST_VALUES]:
        if counts[code] >= FEWEST_ROWS:
            yield f"{column} = {names[code]}", np.flatnonzero(codes == code)
