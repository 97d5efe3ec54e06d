"""What is known, written to one file and read back: arrays as they are, all else as JSON beside them. Nothing is run when it is read."""

import dataclasses
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from batchlab.analysis.estimates import Estimate
from batchlab.analysis.frontier import Frontier
from batchlab.analysis.verdict import Choice, Outcome, Pair
from batchlab.analysis.yardsticks import Yardstick
from batchlab.engine.optimizers import OPTIMIZERS
from batchlab.engine.records import Curve, Trial, TrialResult, TrialState
from batchlab.errors import BadInput
from batchlab.records import Record
from batchlab.results import Period, TrainingFacts, YardstickResult
from batchlab.search.findings import Finding, Findings, RateSummary
from batchlab.search.known import Known
from batchlab.search.loaders import Delivery
from batchlab.search.noise import NoisePoint
from batchlab.search.space import Candidate, Setting
from batchlab.search.standings import Entry, Left, Standings
from batchlab.search.timings import Timings
from batchlab.strategies import STRATEGIES

KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(
            Known,
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
FORMAT = 1


def save(known: Known, path: Path) -> None:
    """Write what is known to the file; it is there whole, or as it was before."""
    _write(known, path, _Arrays())


def save_verdict(found: Findings, known: Known, path: Path) -> None:
    """Write what a search that has ended found and knew to the file, without what trials could go on from."""
    _write((found, known), path, _Arrays(states=False))


def _write(value: Any, path: Path, store: "_Arrays") -> None:
    text = json.dumps({"format": FORMAT, "known": _plain(value, store)})
    beside = path.with_name(f"{path.name}.part")
    with beside.open("wb") as file:
        np.savez(file, text=np.frombuffer(text.encode(), np.uint8), **store.joined())  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def state_bytes(known: Known) -> int:
    """Return the bytes of what trials can go on from: most of what is written."""
    states = [trial.state for entry in known.standings.entries.values() for trial in entry.trials if trial.state is not None]
    return sum(4 * state.weights.nbytes + state.memory.nbytes for state in states)


class _Arrays:
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


def load(path: Path) -> Known:
    """Return what was known when the file was written; raises BadInput for a file of another kind or version."""
    known = _read(path)
    if not isinstance(known, Known):
        raise BadInput(f"{path} does not hold a search that can be taken up.")
    return known


def load_verdict(path: Path) -> tuple[Findings, Known]:
    """Return what `save_verdict` wrote; raises BadInput for a file of another kind or version."""
    match _read(path):
        case (Findings() as found, Known() as known):
            return found, known
    raise BadInput(f"{path} does not hold a verdict.")


def _read(path: Path) -> Any:
    try:
        with np.load(path, allow_pickle=False) as file:
            whole = json.loads(file["text"].tobytes())
            if whole.get("format") != FORMAT:
                raise BadInput(f"{path} has format {whole.get('format')}; this version reads {FORMAT}. Start the comparison again.")
            return _restored(whole["known"], {name: file[name] for name in file.files})
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"{path} does not hold a search that can be taken up: {error}") from error


def _plain(value: Any, store: _Arrays) -> Any:
    """Return the value as JSON takes it; arrays and lists of numbers are put aside."""
    if isinstance(value, TrialState) and not store.states:
        return None
    if isinstance(value, np.ndarray):
        return {"array": store.added(value)}
    if isinstance(value, Record):
        return {"kind": type(value).__name__, "fields": value.model_dump()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name), store) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__, "fields": fields}
    if isinstance(value, Mapping):
        return {"pairs": [[_plain(key, store), _plain(item, store)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_plain(item, store) for item in value]}
    if isinstance(value, list):
        return _plain_list(value, store)
    return value.item() if isinstance(value, np.generic) else value


def _plain_list(values: list[Any], store: _Arrays) -> Any:
    """Put a list of numbers, or of arrays of one shape, aside as one array."""
    kinds = {type(item) for item in values}
    if kinds in ({int}, {float}):
        return {"numbers": store.added(np.array(values))}
    if kinds == {np.ndarray} and len({(item.shape, item.dtype) for item in values}) == 1:
        return {"rows": store.added(np.array(values))}
    return [_plain(item, store) for item in values]


def _restored(value: Any, arrays: Mapping[str, "np.ndarray[Any, Any]"]) -> Any:
    """Return what `_plain` took apart."""
    if isinstance(value, list):
        return [_restored(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    (name, inner), *others = value.items()
    if name in ("array", "numbers", "rows"):
        kind, start, shape = inner
        found = arrays[kind][start : start + math.prod(shape)].reshape(shape)
        return found if name == "array" else found.tolist() if name == "numbers" else list(found)
    if name == "tuple":
        return tuple(_restored(item, arrays) for item in inner)
    if name == "pairs":
        return {_restored(key, arrays): _restored(item, arrays) for key, item in inner}
    kind, fields = KINDS[inner], others[0][1]
    if issubclass(kind, Record):
        return kind(**fields)
    return kind(**{key: _restored(item, arrays) for key, item in fields.items()})
