"""Comparisons and retrainings that did not come to their end: what each knew, and which of them one of the same data, settings and code
takes up."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from batchlab.cluster.nodes import code_digest
from batchlab.config import Profile
from batchlab.errors import BadInput
from batchlab.files.received import text_of
from batchlab.imported import source_of
from batchlab.records import Record
from tasks import progress, store
from tasks.provenance import owner, owner_is_gone

if TYPE_CHECKING:
    from batchlab.experiment import Experiment
    from batchlab.search.keeping import Kept


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


def key_of(experiment: "Experiment") -> str:
    """Return what two comparisons share that may go on from each other: rows, split, every setting, device and code, the user's too."""
    table, split, profile = experiment.table.schema.digest, experiment.split.digest, experiment.profile
    return digest_of(table, split, *settings_of(profile), str(experiment.device))


def settings_of(profile: Profile) -> tuple[str, ...]:
    """Return all settings but where trainings run, and the code of the user's own that they name: from another network or loss nothing
    goes on."""
    named = {"model.factory": getattr(profile.model, "factory", None), "train.loss": profile.train.loss}
    sources = (source_of(name, key) for key, name in named.items() if name is not None and ":" in name)
    return profile.model_dump_json(exclude={"run"}), *sources


def digest_of(*parts: object) -> str:
    """Return a digest of these parts (as JSON has them) and of the code."""
    return hashlib.sha256(json.dumps([*parts, code_digest()]).encode()).hexdigest()[:32]


def begin(key: str, run_id: str) -> None:
    """Note that this process works on the comparison now."""
    path = _folder() / f"{run_id}.json"
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(Unfinished(key=key, run_id=run_id, owner=owner(), store=store.tracking_uri()).model_dump_json())
    beside.replace(path)


def kept(run_id: str) -> "Kept":
    """Return what keeps the state of the run's search, or of a retraining."""
    from batchlab.search.keeping import Kept

    return Kept(_folder() / run_id, progress.announce)


def left_by(key: str) -> str | None:
    """Return the run, in this store, of the latest comparison of this key that no process works on and that has left what it knew."""
    for item in _all():
        if item.store != store.tracking_uri():
            continue
        ours = item.owner == owner()  # an earlier attempt of this process
        if item.key == key and (ours or owner_is_gone(item.owner)) and (_folder() / item.run_id).exists():
            return item.run_id
    return None


def forget(run_id: str) -> None:
    """Remove what was kept of work that has come to its end."""
    kept(run_id).forget()
    (_folder() / f"{run_id}.json").unlink(missing_ok=True)


def _all() -> Iterator[Unfinished]:
    """Yield the comparisons that have not come to their end, the latest first; remove what has lain there for long."""
    for path in list(_folder().iterdir()):
        if path.exists() and time.time() - path.stat().st_mtime > KEPT_SECONDS:
            forget(path.stem)
    for path in sorted(_folder().glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            item = Unfinished.model_validate_json(text_of(path))
        except (BadInput, ValueError):
            path.unlink(missing_ok=True)
            continue
        if item.run_id == path.stem:  # another name would lead to files elsewhere
            yield item


def _folder() -> Path:
    folder = store.folder() / "unfinished"
    folder.mkdir(exist_ok=True)
    return folder
