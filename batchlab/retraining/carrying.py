"""A saved model on another table: its preparation told where, and in which codes, the new table holds what the model was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from batchlab.errors import BadInput
from batchlab.rows.preparation import Category, Preparation
from batchlab.serving.batchlab_serving import PackedColumn

ALIKE = {"boolean": "number"}
"""Kinds whose packed values mean the same."""


@dataclass(frozen=True)
class Layout:
    """Where a table's packed columns stand: by packed name, the place, and the raw column that each belongs to."""

    places: dict[str, int]
    columns: dict[str, PackedColumn]

    @classmethod
    def of(cls, columns: Sequence[PackedColumn]) -> "Layout":
        """Return the layout of these raw columns."""
        names = [(name, column) for column in columns for name in column.packed_names]
        return cls({name: place for place, (name, _) in enumerate(names)}, dict(names))


def carried(preparation: Preparation, old: Sequence[PackedColumn], new: Sequence[PackedColumn]) -> Preparation:
    """Return the preparation of a model trained on `old` columns, for a table of `new` ones: the same rows give the same inputs.

    Columns that the model does not know are left out; values outside its vocabulary are unknown to it. Raises BadInput where the new
    table lacks a column or holds something else in it.
    """
    before, now = Layout.of(old), Layout.of(new)
    _check(old, new)
    packed_names = list(before.places)
    names = [packed_names[number] for number in preparation.places]
    shifts = np.array([now.columns[name].offset - before.columns[name].offset for name in names])
    return replace(
        preparation,
        places=np.array([now.places[name] for name in names], np.int64),
        mean=preparation.mean - shifts,
        categories=tuple(_category(item, before.columns[item.name], now) for item in preparation.categories),
    )


def _check(old: Sequence[PackedColumn], new: Sequence[PackedColumn]) -> None:
    """Raise BadInput that names every column which the new table lacks or holds in another form."""
    present = {column.name: column for column in new}
    wrong = [f"column '{column.name}' is missing" for column in old if column.name not in present]
    for column in old:
        now = present.get(column.name)
        if now is not None and ALIKE.get(now.kind, now.kind) != ALIKE.get(column.kind, column.kind):
            wrong.append(f"column '{column.name}' holds {now.kind} values, the model was trained on {column.kind} ones")
        elif now is not None and not {*column.parts} <= {*now.parts}:
            wrong.append(
                f"column '{column.name}' has no {', '.join(sorted({*column.parts} - {*now.parts}))}, which the model was trained on"
            )
    if wrong:
        raise BadInput(f"the model cannot read this table: {'; '.join(wrong)}; keep that as it was, or train another model (--model).")


def _category(item: Category, old: PackedColumn, now: Layout) -> Category:
    """Return the category with a slot for every code of the new vocabulary; those of words that the model does not know are slot 0's."""
    slot_of: dict[str, int] = dict(zip(old.vocabulary, item.slots[:-2].tolist(), strict=True))
    words = now.columns[item.name].vocabulary
    slots: NDArray[np.int64] = np.array([*(slot_of.get(word, 0) for word in words), item.slots[-2], item.slots[-1]], np.int64)
    return replace(item, place=now.places[item.name], slots=slots)


def relaid(packed: NDArray[np.float32], old: Sequence[PackedColumn], new: Sequence[PackedColumn]) -> NDArray[np.float32]:
    """Return packed rows `[rows, columns]` of a table of `new` columns as a model trained on `old` ones takes them.

    Raises BadInput where the new table lacks a column or holds something else in it.
    """
    if tuple(old) == tuple(new):
        return packed
    _check(old, new)
    now, parts = Layout.of(new), []
    for column in old:
        for name in column.packed_names:
            values, held = packed[:, now.places[name]], now.columns[name]
            if column.kind == "category":
                values = _recoded(values, held.vocabulary, column.vocabulary)
            elif held.offset != column.offset:
                values = (values.astype(np.float64) + (held.offset - column.offset)).astype(np.float32)
            parts.append(values)
    return np.stack(parts, axis=1)


def _recoded(codes: NDArray[np.float32], now: Sequence[str], before: Sequence[str]) -> NDArray[np.float32]:
    """Return codes of one vocabulary as those of another; words that it lacks become unknown, missing ones stay so."""
    place = {word: code for code, word in enumerate(before)}
    table = np.array([*(place.get(word, len(before)) for word in now), len(before), np.nan], np.float32)
    return table[np.where(np.isnan(codes), len(now) + 1, np.minimum(codes, len(now))).astype(np.int64)]
