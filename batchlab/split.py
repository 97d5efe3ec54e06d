"""The split: train, validation and test rows, drawn reproducibly and identified by a digest."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batchlab.errors import BadInput
from batchlab.packing import PackedTable
from batchlab.records import Record

Rows = NDArray[np.int64]
SMALLEST_PART = 2


class SplitRule(Record):
    """How rows are divided: `random` (seeded), `chronological` (by `column`, or by row order), or `in_sample`.

    `in_sample` trains, validates and tests on all rows, as the notebook does; its scores say nothing about new rows.
    """

    kind: Literal["random", "chronological", "in_sample"] = "random"
    validation: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.15, gt=0, lt=1)
    column: str | None = None


@dataclass(frozen=True)
class Split:
    """Row numbers of the three parts, each `[rows]`, and the digest that identifies them."""

    train: Rows
    validation: Rows
    test: Rows
    digest: str

    def sizes(self) -> dict[str, int]:
        """Return the number of rows of each part."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def split(table: PackedTable, rule: SplitRule, seed: int) -> Split:
    """Divide the table's rows by `rule`; the same table, rule and seed give the same split.

    Raises BadInput when a part would have fewer than 2 rows or the training rows lack a class.
    """
    count = table.schema.rows
    if rule.kind == "in_sample":
        everything = np.arange(count)
        parts = [everything, everything, everything]
    elif rule.kind == "chronological":
        parts = _cut(*_chronological_order(table, rule), rule)
    else:
        order = np.random.default_rng(seed).permutation(count)
        parts = [np.sort(part) for part in _cut(order, np.arange(count, dtype=np.float64), rule)]
    _check(parts, table, rule)
    digest = hashlib.sha256(table.schema.digest.encode())
    for part in parts:
        digest.update(np.int64(len(part)).tobytes() + part.astype(np.int64).tobytes())
    return Split(parts[0], parts[1], parts[2], digest.hexdigest()[:16])


def _chronological_order(table: PackedTable, rule: SplitRule) -> tuple[Rows, NDArray[np.float64]]:
    """Return the rows in the order of time, and their times."""
    time = table.side_column("time") if rule.column else np.arange(table.schema.rows, dtype=np.float64)
    if time is None:
        raise BadInput(f"the packed table has no time column; pack it with '{rule.column}' as its time column.")
    order = np.argsort(time, kind="stable")
    return order, time[order]


def _cut(order: Rows, times: NDArray[np.float64], rule: SplitRule) -> list[Rows]:
    """Cut `order` at the rule's shares, moving each cut back to the first row of its time, so that no time is divided."""
    if rule.validation + rule.test >= 1:
        raise BadInput(f"split.validation {rule.validation} and split.test {rule.test} leave no training rows; their sum must be below 1.")
    held = [round(len(order) * (rule.validation + rule.test)), round(len(order) * rule.test)]
    bounds = np.append(times, np.inf)
    cuts = [int(np.searchsorted(times, bounds[len(order) - rows])) for rows in held]
    return list(np.split(order, cuts))


def _check(parts: list[Rows], table: PackedTable, rule: SplitRule) -> None:
    sizes = [len(part) for part in parts]
    if min(sizes) < SMALLEST_PART:
        raise BadInput(
            f"{table.schema.rows} rows split {sizes[0]} / {sizes[1]} / {sizes[2]} into train / validation / test, but each part needs "
            f"at least {SMALLEST_PART} rows; bring more rows, or change split.validation ({rule.validation}) and split.test ({rule.test})."
        )
    classes = table.schema.target.classes
    absent = sorted(set(range(len(classes))) - set(np.unique(table.target[parts[0]]).tolist())) if classes else []
    if absent:
        names = ", ".join(f"'{classes[label]}' ({int((table.target == label).sum())} rows in all)" for label in absent[:5])
        names += f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise BadInput(f"the training split has no row of class {names}; bring more rows of it, remove it, or use another --seed.")
