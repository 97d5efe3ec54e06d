"""What is settled when all rows are packed: the task, the class numbers, and the facts of every column."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.errors import BadInput
from batchlab.serving.batchlab_serving import DAY, WHOLE, PackedColumn
from batchlab.table.columns import Columns
from batchlab.table.measuring import Figures
from batchlab.table.portions import Packer
from batchlab.table.schema import ColumnFacts
from batchlab.table.target import MOST_CLASSES, Target, TargetKind, examined
from batchlab.table.writing import Draft, RowsFile

ROWS_AT_ONCE = 2**20


def settled_target(packer: Packer, columns: Columns, draft: Draft) -> Target:
    """Return the target with its task; write class numbers in place of the values where it has classes."""
    column = packer.plan.target
    if column.kind == "category":
        seen = np.zeros(0) if packer.target_values is None else packer.target_values
        names = tuple(column.vocabulary[int(code)] for code in seen)
    elif packer.target_values is None:
        names = ("",) * (MOST_CLASSES + 1)
    else:
        names = tuple(_class_name(value, column) for value in packer.target_values)
    kind: TargetKind = "words" if column.kind in ("category", "boolean") else ("integer" if column.integer else "real")
    target = examined(columns.target, names, packer.rows, kind, columns.task)
    if target.classes and column.integer and max(abs(packer.target_figures.minimum[0]), packer.target_figures.maximum[0]) >= WHOLE:
        raise BadInput(f"target '{column.name}' has classes beyond 2^53, which cannot be told apart as numbers; give them names as text.")
    if target.classes and packer.target_values is not None:
        _write_class_numbers(draft.path / "target.npy", packer.target_values)
    return target


def _class_name(value: float, column: PackedColumn) -> str:
    if column.kind == "boolean":
        return str(bool(value))
    return str(int(value)) if column.integer else str(float(value))


def _write_class_numbers(path: Path, values: NDArray[np.float64]) -> None:
    written = np.load(path, mmap_mode="r")
    file = RowsFile(path.with_name("classes.npy"), np.int64)
    for start in range(0, len(written), ROWS_AT_ONCE):
        file.add(np.searchsorted(values, written[start : start + ROWS_AT_ONCE]))
    file.close()
    file.path.replace(path)


def is_unique(path: Path) -> bool:
    """Whether no value of a `.npy` file occurs twice."""
    values = np.sort(np.load(path))
    return not bool((values[1:] == values[:-1]).any())


def facts_of(packer: Packer, target: Target) -> list[ColumnFacts]:
    """Return what was found in the target and every feature."""
    facts = [_of_column(packer.plan.target, packer.target_figures, 0)]
    place = 0
    for column in packer.features:
        facts.append(_of_column(column, packer.figures, place).model_copy(update={"ascending": place in packer.rising}))
        place += len(column.packed_names)
    if target.classes:
        facts[0] = facts[0].model_copy(update={"distinct": len(target.classes)})
    return facts


def _of_column(column: PackedColumn, figures: Figures, place: int) -> ColumnFacts:
    counts: dict[str, Any] = {"rows": figures.rows, "missing": int(figures.missing[place]), "infinite": int(figures.infinite[place])}
    if column.kind == "category":
        return ColumnFacts(name=column.name, kind=column.kind, distinct=len(column.vocabulary), **counts)
    if not figures.known[place] or (column.kind == "datetime" and column.parts[0] != "days"):
        return ColumnFacts(name=column.name, kind=column.kind, **counts)
    unit = DAY if column.kind == "datetime" else 1.0
    names = ("minimum", "maximum", "mean", "spread")
    ranges = {name: float(getattr(figures, name)[place]) * unit for name in names}
    return ColumnFacts(name=column.name, kind=column.kind, **counts, **ranges)
