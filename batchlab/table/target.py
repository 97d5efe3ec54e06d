"""The task: what the target column asks for, inferred from its values or forced by the user."""

from typing import Literal

from batchlab.errors import BadInput
from batchlab.records import Record

Task = Literal["regression", "binary", "multiclass"]
TargetKind = Literal["integer", "real", "words"]
TargetScale = Literal["linear", "log"]
TaskChoice = Literal["auto", "regression", "binary", "multiclass"]

MOST_INTEGER_CLASSES = 20
MOST_CLASSES = 1000


class Target(Record):
    """The target column, the task it asks for, and its classes in order (empty for regression)."""

    name: str
    task: Task
    classes: tuple[str, ...] = ()


def examined(name: str, classes: tuple[str, ...], rows: int, kind: TargetKind, choice: TaskChoice) -> Target:
    """Return the target with its task; raise BadInput for a target that cannot be learnt or does not fit a forced task.

    `classes` are its different values in order, of which no more than `MOST_CLASSES` + 1 need be given.
    """
    if rows == 0:
        raise BadInput(f"there are no rows, so target '{name}' has no values.")
    if len(classes) == 1:
        raise BadInput(f"target '{name}' is constant: all {rows} rows hold {classes[0]}; there is nothing to learn.")
    task = choice if choice != "auto" else _inferred_task(classes, rows, kind)
    if task == "regression" and kind == "words":
        raise BadInput(f"target '{name}' holds text, which regression cannot use; use --task binary or multiclass, or a numeric target.")
    if task == "binary" and len(classes) != 2:
        raise BadInput(
            f"task binary needs a target with 2 values, but '{name}' has {_count(classes)}; use --task multiclass or regression."
        )
    if task == "multiclass" and len(classes) > MOST_CLASSES:
        raise BadInput(f"target '{name}' has {_count(classes)} different values, more than {MOST_CLASSES} classes; try --task regression.")
    return Target(name=name, task=task, classes=() if task == "regression" else classes)


def _count(classes: tuple[str, ...]) -> str:
    return f"more than {MOST_CLASSES}" if len(classes) > MOST_CLASSES else str(len(classes))


def _inferred_task(classes: tuple[str, ...], rows: int, kind: str) -> Task:
    """Two values are binary; text, and integers of at most 20 values each seen 5 times on average, are classes; else regression."""
    if len(classes) == 2:
        return "binary"
    if kind == "words" or (kind == "integer" and len(classes) <= MOST_INTEGER_CLASSES and rows >= 5 * len(classes)):
        return "multiclass"
    return "regression"
