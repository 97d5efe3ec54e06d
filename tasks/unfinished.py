"""Comparisons that did not come to their end: what each knew, and which of them one of the same data, settings and code takes up."""

import functools
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import batchlab
from batchlab.config import Profile
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.records import Record
from batchlab.search.known import Known
from batchlab.search.saving import load, save
from tasks import progress, store
from tasks.provenance import owner, owner_is_gone


class ComparisonRun(Record):
    """The comparison that a task works for: what it compares, where it is recorded, and whether it takes up one that was ended.

    `store` is MLflow's address; `prefect` that of Prefect's server, None for one of this process alone. `of_its_own` says that the flow run
    is the comparison's, and not a retraining's.
    """

    profile: Profile
    table: Path
    split: Path
    experiment_id: str
    run_id: str
    links: dict[str, str]
    store: str = ""
    prefect: str | None = None
    flow_run_id: str | None = None
    of_its_own: bool = False
    taken_up: bool = False


KEPT_SECONDS = 14 * 86_400
"""What nobody has taken up for so long is removed."""


class Unfinished(Record):
    """A comparison that has begun: what it compares, the run that records it, and the process that works on it."""

    key: str
    run_id: str
    owner: str
    store: str = ""


def key_of(experiment: Experiment) -> str:
    """Return what two comparisons share that may go on from each other: rows, split, every setting, device and code."""
    parts = [
        experiment.table.schema.digest,
        experiment.split.digest,
        experiment.profile.model_dump_json(),
        str(experiment.device),
        _code(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@functools.cache
def _code() -> str:
    """Return a digest of the library's sources."""
    found, root = hashlib.sha256(), Path(str(batchlab.__file__)).parent
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()


def begin(key: str, run_id: str) -> None:
    """Note that this process works on the comparison now."""
    path = _folder() / f"{run_id}.json"
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(Unfinished(key=key, run_id=run_id, owner=owner(), store=store.tracking_uri()).model_dump_json())
    beside.replace(path)


def keep(known: Known, run_id: str) -> None:
    """Write what the run's search knows; what it knew before stays beside it."""
    latest, before = _states(run_id)
    if latest.exists():
        latest.replace(before)
    save(known, latest)


def left_by(key: str) -> str | None:
    """Return the run, in this store, of the latest comparison of this key that no process works on and that has left what it knew."""
    for item in _all():
        if item.store != store.tracking_uri():
            continue
        ours = item.owner == owner()  # an earlier attempt of this process
        if item.key == key and (ours or owner_is_gone(item.owner)) and any(path.exists() for path in _states(item.run_id)):
            return item.run_id
    return None


def known_of(run_id: str) -> Known | None:
    """Return what the run's search knew last, or before that where the last file is damaged; None where neither can be read."""
    for path in _states(run_id):
        try:
            return load(path)
        except BadInput as error:
            progress.announce(f"{error}")
    return None


def forget(run_id: str) -> None:
    """Remove what was kept of a comparison that has come to its end."""
    for path in (*_states(run_id), _folder() / f"{run_id}.json"):
        path.unlink(missing_ok=True)


def _all() -> Iterator[Unfinished]:
    """Yield the comparisons that have not come to their end, the latest first; remove what has lain there for long."""
    for path in sorted(_folder().glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        if time.time() - path.stat().st_mtime > KEPT_SECONDS:
            forget(path.stem)
            continue
        try:
            yield Unfinished.model_validate_json(path.read_text())
        except ValueError:
            path.unlink(missing_ok=True)


def _states(run_id: str) -> tuple[Path, Path]:
    """Return the files of what was known last, and before that."""
    return _folder() / f"{run_id}.npz", _folder() / f"{run_id}.before.npz"


def _folder() -> Path:
    folder = store.folder() / "unfinished"
    folder.mkdir(exist_ok=True)
    return folder
