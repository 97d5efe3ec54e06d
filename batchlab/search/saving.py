"""What is known, and where trainings stand, written to files and read back: arrays as they are, all else as JSON beside them, behind a
digest of both. Nothing is run when they are read."""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from batchlab.engine.halts import Halt
from batchlab.errors import BadInput
from batchlab.files.received import UNREADABLE, check_entries, check_plain
from batchlab.search.findings import Findings
from batchlab.search.known import Known
from batchlab.search.plain import Arrays, plain, restored

FORMAT = 2
DIGEST = hashlib.sha256().digest_size
State = TypeVar("State", Known, Halt)


def save(state: Known | Halt, path: Path) -> None:
    """Write the state to the file; it is there whole, or as it was before. What was in it before stays in a second file beside it."""
    beside = _written(state, path, Arrays())
    latest, before = both(path)
    if latest.exists():
        latest.replace(before)
    beside.replace(latest)


def both(path: Path) -> tuple[Path, Path]:
    """Return the files of a state: the latest one, and the one before."""
    return path, path.with_suffix(f".before{path.suffix}")


def save_verdict(found: Findings, known: Known, path: Path) -> None:
    """Write what a search that has ended found and knew to the file, without what trials could go on from."""
    _written((found, known), path, Arrays(states=False)).replace(path)


def _written(value: Any, path: Path, store: "Arrays") -> Path:
    """Write the value to a file beside the path and return that; a disk that is full keeps nothing of it."""
    text = json.dumps({"format": FORMAT, "state": plain(value, store)})
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
                return restored(whole["state"], {name: arrays[name] for name in arrays.files})
    except UNREADABLE as error:
        raise BadInput(f"{path} holds nothing that can be taken up: {error}. It is started again.") from error
