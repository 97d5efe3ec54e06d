"""What is known, and where trainings stand, written to files and read back: arrays as they are, all else as JSON beside them, behind a
digest of both. Nothing is run when they are read."""

import dataclasses
import hashlib
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from batchlab.analysis.estimates import Estimate
from batchlab.analysis.frontier import Frontier
from batchlab.analysis.verdict import Choice, Outcome, Pair
from batchlab.analysis.yardsticks import Yardstick
from batchlab.engine.halts import Halt
from batchlab.engine.optimizers import OPTIMIZERS
from batchlab.engine.records import Curve, Trial, TrialResult, TrialState
from batchlab.errors import BadInput
from batchlab.received import UNREADABLE, check_entries, check_plain
from batchlab.records import Record
from batchlab.results import Period, TrainingFacts, YardstickResult
from batchlab.search.findings import Finding, Findings, RateSummary
from batchlab.search.fitting import checked
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
            Halt,
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
FORMAT = 2
DIGEST = hashlib.sha256().digest_size
State = TypeVar("State", Known, Halt)


def save(state: Known | Halt, path: Path) -> None:
    """Write the state to the file; it is there whole, or as it was before. What was in it before stays in a second file beside it."""
    beside = _written(state, path, _Arrays())
    latest, before = both(path)
    if latest.exists():
        latest.replace(before)
    beside.replace(latest)


def both(path: Path) -> tuple[Path, Path]:
    """Return the files of a state: the latest one, and the one before."""
    return path, path.with_suffix(f".before{path.suffix}")


def save_verdict(found: Findings, known: Known, path: Path) -> None:
    """Write what a search that has ended found and knew to the file, without what trials could go on from."""
    _written((found, known), path, _Arrays(states=False)).replace(path)


def _written(value: Any, path: Path, store: "_Arrays") -> Path:
    """Write the value to a file beside the path and return that; a disk that is full keeps nothing of it."""
    text = json.dumps({"format": FORMAT, "state": _plain(value, store)})
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w+b") as file:
            file.write(bytes(DIGEST))
            np.savez(file, allow_pickle=False, text=np.frombuffer(text.encode(), np.uint8), **store.joined())
            digest = _digest(file)
            file.seek(0)
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside


def _digest(file: BinaryIO) -> bytes:
    """Return the digest of what the file holds after its own."""
    found = hashlib.sha256()
    file.seek(DIGEST)
    while portion := file.read(2**20):
        found.update(portion)
    return found.digest()


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


def load(path: Path, kind: type[State]) -> State:
    """Return the state that was written to the file; raises BadInput for a damaged file, and one of another kind or version."""
    state = _read(path)
    if not isinstance(state, kind):
        raise BadInput(f"{path} holds nothing that can be taken up: it is no {kind.__name__}. It is started again.")
    return state


def latest_of(path: Path, kind: type[State]) -> Iterator[State | BadInput]:
    """Yield the states that the files hold, the latest first, and for a damaged one what is wrong with it."""
    for one in both(path):
        if one.exists():
            try:
                yield load(one, kind)
            except BadInput as error:
                yield error


def load_verdict(path: Path) -> tuple[Findings, Known]:
    """Return what `save_verdict` wrote; raises BadInput for a damaged file, and one of another kind or version."""
    match _read(path):
        case (Findings() as found, Known() as known):
            return found, known
    raise BadInput(f"{path} does not hold a verdict.")


def _read(path: Path) -> Any:
    check_plain(path)
    try:
        with path.open("rb") as file:
            if file.read(DIGEST) != _digest(file):
                raise ValueError("its digest is not that of its content, so it was cut or changed")
            with zipfile.ZipFile(file) as archive:
                check_entries(archive)
            file.seek(DIGEST)
            with np.load(file, allow_pickle=False) as arrays:
                whole = json.loads(arrays["text"].tobytes())
                if whole.get("format") != FORMAT:
                    raise ValueError(f"it has format {whole.get('format')}; this version reads {FORMAT}")
                return _restored(whole["state"], {name: arrays[name] for name in arrays.files})
    except UNREADABLE as error:
        raise BadInput(f"{path} holds nothing that can be taken up: {error}. It is started again.") from error


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
    """Return what `_plain` took apart; raises one of UNREADABLE for what it cannot have made."""
    if isinstance(value, list):
        return [_restored(item, arrays) for item in value]
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
        return tuple(_restored(item, arrays) for item in inner)
    if name == "pairs":
        return {_restored(key, arrays): _restored(item, arrays) for key, item in inner}
    raise ValueError(f"an object has the key '{name}'")


def _record(kind: Any, fields: Mapping[str, Any], arrays: Mapping[str, "np.ndarray[Any, Any]"]) -> Any:
    if issubclass(kind, Record):
        return kind(**fields)
    return checked(kind(**{key: _restored(item, arrays) for key, item in fields.items()}))


def _taken(place: Any, arrays: Mapping[str, "np.ndarray[Any, Any]"]) -> "np.ndarray[Any, Any]":
    """Return the array at a place: all of it lies within those of its kind."""
    kind, start, shape = place
    whole = arrays[kind]
    if not all(type(number) is int and number >= 0 for number in (start, *shape)) or start + math.prod(shape) > whole.size:
        raise ValueError(f"an array of {whole.size} numbers has no {shape} from {start} on")
    if whole.dtype.str != kind or whole.ndim != 1 or whole.dtype.kind not in "biuf":
        raise ValueError(f"an array of {whole.dtype} goes by the name '{kind}'")
    return whole[start : start + math.prod(shape)].reshape(shape)
