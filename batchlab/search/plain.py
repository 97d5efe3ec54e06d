"""Values that a search knows as JSON and arrays beside it, and back: by their kinds' names, held to their types. Nothing is run."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from batchlab.analysis.estimates import Estimate
from batchlab.analysis.frontier import Frontier
from batchlab.analysis.verdict import Choice, Outcome, Pair
from batchlab.analysis.yardsticks import Yardstick
from batchlab.engine.halts import Halt
from batchlab.engine.optimizers import OPTIMIZERS
from batchlab.engine.records import Curve, Trial, TrialResult, TrialState
from batchlab.records import Record
from batchlab.results import Fetching, OverProcesses, Period, TrainingFacts, YardstickResult
from batchlab.search.findings import Finding, Findings, RateSummary
from batchlab.search.fitting import checked
from batchlab.search.known import Known, Start
from batchlab.search.noise import NoisePoint
from batchlab.search.space import Candidate, Setting
from batchlab.search.standings import Entry, Left, Standings
from batchlab.search.timings import Delivery, Timings
from batchlab.strategies import STRATEGIES

KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(
            Known,
            Halt,
            Start,
            Standings,
            Entry,
            Left,
            Setting,
            Candidate,
            TrialResult,
            TrialState,
            Trial,
            Curve,
            Timings,
            NoisePoint,
            Delivery,
            Fetching,
            OverProcesses,
            Estimate,
            Yardstick,
            Finding,
            Findings,
            RateSummary,
            Outcome,
            Choice,
            Pair,
            Frontier,
            Period,
            YardstickResult,
            TrainingFacts,
        ),
        *STRATEGIES.values(),
        *OPTIMIZERS.values(),
    )
}
"""What a file may hold, by name."""


class Arrays:
    """Arrays end to end, those of one kind in one: files of thousands of small ones are slow. `states`: what trials can go on from, too."""

    def __init__(self, states: bool = True) -> None:
        self.states = states
        self.parts: dict[str, list[np.ndarray[Any, Any]]] = {}
        self.sizes: dict[str, int] = {}

    def added(self, value: "np.ndarray[Any, Any]") -> list[Any]:
        """Keep the array and return where: its kind, its place, its shape."""
        kind = value.dtype.str
        start = self.sizes.get(kind, 0)
        self.parts.setdefault(kind, []).append(value.ravel())
        self.sizes[kind] = start + value.size
        return [kind, start, list(value.shape)]

    def joined(self) -> dict[str, "np.ndarray[Any, Any]"]:
        """Return one array for each kind."""
        return {kind: np.concatenate(parts) for kind, parts in self.parts.items()}


def plain(value: Any, store: Arrays) -> Any:
    """Return the value as JSON takes it; arrays and lists of numbers are put aside."""
    if isinstance(value, TrialState) and not store.states:
        return None
    if isinstance(value, np.ndarray):
        return {"array": store.added(value)}
    if isinstance(value, Record):
        return {"kind": type(value).__name__, "fields": value.model_dump()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name), store) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__, "fields": fields}
    if isinstance(value, Mapping):
        return {"pairs": [[plain(key, store), plain(item, store)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [plain(item, store) for item in value]}
    if isinstance(value, list):
        return _plain_list(value, store)
    return value.item() if isinstance(value, np.generic) else value


def _plain_list(values: list[Any], store: Arrays) -> Any:
    """Put a list of numbers, or of arrays of one shape, aside as one array."""
    kinds = {type(item) for item in values}
    if kinds in ({int}, {float}):
        return {"numbers": store.added(np.array(values))}
    if kinds == {np.ndarray} and len({(item.shape, item.dtype) for item in values}) == 1:
        return {"rows": store.added(np.array(values))}
    return [plain(item, store) for item in values]


def restored(value: Any, arrays: Mapping[str, "np.ndarray[Any, Any]"]) -> Any:
    """Return what `plain` took apart; raises one of UNREADABLE for what it cannot have made."""
    if isinstance(value, list):
        return [restored(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    names = tuple(value)
    if names == ("kind", "fields"):
        return _record(KINDS[value["kind"]], value["fields"], arrays)
    if len(names) != 1:
        raise ValueError(f"an object has the keys {names}")
    (name, inner) = names[0], value[names[0]]
    if name in ("array", "numbers", "rows"):
        found = _taken(inner, arrays)
        return found if name == "array" else found.tolist() if name == "numbers" else list(found)
    if name == "tuple":
        return tuple(restored(item, arrays) for item in inner)
    if name == "pairs":
        return {restored(key, arrays): restored(item, arrays) for key, item in inner}
    raise ValueError(f"an object has the key '{name}'")


def _record(kind: Any, fields: Mapping[str, Any], arrays: Mapping[str, "np.ndarray[Any, Any]"]) -> Any:
    if issubclass(kind, Record):
        return kind(**fields)
    return checked(kind(**{key: restored(item, arrays) for key, item in fields.items()}))


def _taken(place: Any, arrays: Mapping[str, "np.ndarray[Any, Any]"]) -> "np.ndarray[Any, Any]":
    """Return the array at a place: all of it lies within those of its kind."""
    kind, start, shape = place
    whole = arrays[kind]
    if not all(type(number) is int and number >= 0 for number in (start, *shape)) or start + math.prod(shape) > whole.size:
        raise ValueError(f"an array of {whole.size} numbers has no {shape} from {start} on")
    if whole.dtype.str != kind or whole.ndim != 1 or whole.dtype.kind not in "biuf":
        raise ValueError(f"an array of {whole.dtype} goes by the name '{kind}'")
    return whole[start : start + math.prod(shape)].reshape(shape)
