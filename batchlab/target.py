"""The task: what the target column asks for, inferred from its values or forced by the user."""

from typing import TYPE_CHECKING, Any, Literal

from batchlab.errors import BadInput
from batchlab.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

Task = Literal["regression", "binary", "multiclass"]
TaskChoice = Literal["auto", "regression", "binary", "multiclass"]

MOST_INTEGER_CLASSES = 20
MOST_CLASSES = 1000


class Target(Record):
    """The target column, the task it asks for, and its classes in order (empty for regression)."""

    name: str
    task: Task
    classes: tuple[str, ...] = ()


def examined(name: str, values: "pa.ChunkedArray", choice: TaskChoice) -> Target:
    """Return the target with its task; raise BadInput for a target that cannot be learnt or does not fit a forced task."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not _can_be_learnt(values.type):
        hint = "save the file as UTF-8" if pa.types.is_binary(values.type) else "use numbers, text or booleans"
        raise BadInput(f"target '{name}' holds {values.type}, which cannot be learnt; {hint}.")
    if len(values) == 0:
        raise BadInput(f"there are no rows, so target '{name}' has no values.")
    if values.null_count == len(values):
        raise BadInput(f"target '{name}' is missing in all {len(values)} rows; name another column with --target.")
    unique = pc.unique(values.drop_null()).sort().to_pylist()
    if len(unique) == 1:
        raise BadInput(f"target '{name}' is constant: all {len(values)} rows hold {unique[0]!r}; there is nothing to learn.")
    task = choice if choice != "auto" else _inferred_task(values, unique)
    _check_fits(name, task, values, unique)
    classes = () if task == "regression" else tuple(str(value) for value in unique)
    return Target(name=name, task=task, classes=classes)


def _inferred_task(values: "pa.ChunkedArray", unique: list[Any]) -> Task:
    """Two values are binary; text, and integers of at most 20 values each seen 5 times on average, are classes; else regression."""
    import pyarrow as pa

    if len(unique) == 2:
        return "binary"
    integer = pa.types.is_integer(values.type)
    if not _is_number(values.type) or (integer and len(unique) <= MOST_INTEGER_CLASSES and len(values) >= 5 * len(unique)):
        return "multiclass"
    return "regression"


def _check_fits(name: str, task: Task, values: "pa.ChunkedArray", unique: list[Any]) -> None:
    if task == "regression" and not _is_number(values.type):
        raise BadInput(
            f"target '{name}' holds {values.type}, which regression cannot use; use --task binary or multiclass, or a numeric target."
        )
    if task == "binary" and len(unique) != 2:
        raise BadInput(f"task binary needs a target with 2 values, but '{name}' has {len(unique)}; use --task multiclass or regression.")
    if task == "multiclass" and len(unique) > MOST_CLASSES:
        raise BadInput(f"target '{name}' has {len(unique)} different values, more than {MOST_CLASSES} classes; try --task regression.")


def _can_be_learnt(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(_is_number(kind) or text or pa.types.is_boolean(kind) or pa.types.is_null(kind))


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
