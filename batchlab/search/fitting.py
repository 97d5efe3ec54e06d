"""Whether what a file of what is known holds can have been written by a search: values of the types that records say, that go together."""

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from batchlab.engine.halts import Halt
from batchlab.engine.records import Curve, TrialResult, TrialState
from batchlab.strategies import Strategy


def checked(record: Any) -> Any:
    """Return a dataclass whose fields hold what their types say; raises ValueError for another, and for parts that do not go together."""
    for name, hint in _hints(record.__class__).items():
        if not fits(getattr(record, name), hint):
            raise ValueError(f"{type(record).__name__}.{name} holds {type(getattr(record, name)).__name__} where it may not")
    problem = _problem(record)
    if problem:
        raise ValueError(f"{type(record).__name__}: {problem}")
    return record


def fits(value: Any, hint: Any) -> bool:
    """Whether the value is of the type that the hint names, with all that it holds."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(fits(value, choice) for choice in inner)
    if kind is Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if kind is np.ndarray:
        return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    if kind in (list, Sequence) or (kind is tuple and inner[-1] is Ellipsis):
        return isinstance(value, tuple if kind is tuple else list | tuple) and _all_fit(value, inner[0])
    if kind is tuple:
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(fits, value, inner))
    if kind in (dict, Mapping):
        return isinstance(value, dict) and _all_fit(list(value), inner[0]) and _all_fit(list(value.values()), inner[1])
    if hint in (int, float):
        return type(value) is int or type(value) is hint
    return isinstance(value, NoneType if hint is None else hint)


def _all_fit(values: Sequence[Any], hint: Any) -> bool:
    if hint in (int, float):  # curves: by the thousand
        return {type(value) for value in values} <= {int, hint}
    return all(fits(value, hint) for value in values)


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind, localns={"Strategy": Strategy})


def _problem(record: Any) -> str | None:
    """Say what of a training does not go together; None for nothing."""
    if isinstance(record, Curve):
        lengths = {len(values) for values in vars(record).values()}
        return None if len(lengths) == 1 else f"its columns have {sorted(lengths)} points"
    if isinstance(record, TrialState):
        weights, average, memory = record.weights, record.average, record.memory
        if weights.ndim != 1 or average.shape != weights.shape or memory.ndim != 2 or memory.shape[1:] != weights.shape:
            return f"weights, average and memory have shapes {weights.shape}, {average.shape} and {memory.shape}"
        if {array.dtype.str for array in (weights, average, memory)} - {"<f4", "<f8"}:
            return "weights, average and memory are no floating-point numbers"
        return None if min(record.steps, record.rows_seen) >= 0 else "steps or rows are below 0"
    if isinstance(record, Halt):
        beside = (len(record.kept), len(record.kept_loss), *record.latest_losses.shape[1:], *record.latest_weights.shape[1:2])
        return None if {*beside} == {len(record.states)} else f"it has {len(record.states)} trials, and beside them {beside}"
    if isinstance(record, TrialResult):
        return None if 0 <= record.kept < len(record.curve.step) else f"its curve has no point {record.kept}"
    return None
