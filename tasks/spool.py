"""Verdicts that are told and not yet recorded: kept under the store's folder until MLflow and Prefect have all of each, once.

`RUN.npz` is the evidence, `RUN.json` what it is of and how far its records are, `RUN.settings.jsonl` a line for every setting whose child
run is complete, `RUN.system.jsonl` a line for every sample of the machine during the search.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchlab.records import Record
from batchlab.results import Comparison, StrategyResult
from tasks import store
from tasks.provenance import owner, owner_is_gone
from tasks.unfinished import KEPT_SECONDS, ComparisonRun

if TYPE_CHECKING:
    from batchlab.search.findings import Findings
    from batchlab.search.known import Known


class Told(Record):
    """A comparison whose verdict is told, at `moment` (seconds since 1970), by which process, and what it took of memory. `result` is there
    once MLflow has all of it, and only Prefect lacks its part."""

    comparison: ComparisonRun
    moment: float
    peak_mib: float
    owner: str
    result: Comparison | None = None


def told(comparison: ComparisonRun) -> Told:
    """Return the record of a verdict that is told now, by this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Told(comparison=comparison, moment=time.time(), peak_mib=peak, owner=owner())


def keep(item: Told, found: "Findings", known: "Known") -> None:
    """Write the verdict with its evidence; raises OSError where the disk does not take it."""
    from batchlab.search.saving import save_verdict

    save_verdict(found, known, _path(item.comparison.run_id, "npz"))
    note(item)


def note(item: Told) -> None:
    """Write how far the records of a verdict are: the file is there whole, or as it was before."""
    path = _path(item.comparison.run_id, "json")
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(_json(item))
    beside.replace(path)


def waiting() -> list[Told]:
    """Return the verdicts that are not recorded yet and that no process works on, the earliest first; those of this store only."""
    found = []
    for path in _folder().glob("*.json"):
        try:
            item = of(path.stem)
        except (ValueError, FileNotFoundError):  # of another version, or recorded meanwhile
            continue
        if item.comparison.store == store.tracking_uri() and owner_is_gone(item.owner):
            found.append(item)
    return sorted(found, key=lambda item: item.moment)


def of(run_id: str) -> Told:
    """Return what is kept of the run's verdict; raises FileNotFoundError for none."""
    return Told.model_validate(json.loads(_path(run_id, "json").read_text()))


def holds(run_id: str) -> bool:
    """Whether the run's verdict is kept for being recorded later."""
    return (store.spool() / f"{run_id}.json").exists()


def evidence_of(item: Told) -> "tuple[Findings, Known]":
    """Return what was found and known; raises BadInput for a damaged file."""
    from batchlab.search.saving import load_verdict

    return load_verdict(_path(item.comparison.run_id, "npz"))


def note_setting(run_id: str, result: StrategyResult) -> None:
    """Take note that a setting's child run is complete."""
    _append(_path(run_id, "settings.jsonl"), _json(result))


def settings_of(run_id: str) -> dict[str, StrategyResult]:
    """Return the settings whose child runs are complete, by label."""
    found = [StrategyResult.model_validate(line) for line in _lines(_path(run_id, "settings.jsonl"))]
    return {item.label: item for item in found}


def begin_samples(run_id: str) -> None:
    """Begin with the samples of the machine, or go on with those of a comparison that is taken up."""
    for path in _folder().iterdir():  # of one that was killed, and that nobody took up
        if time.time() - path.stat().st_mtime > KEPT_SECONDS:
            path.unlink(missing_ok=True)
    _path(run_id, "system.jsonl").touch()


def note_sample(run_id: str, sample: Mapping[str, float]) -> None:
    """Keep a sample of the machine; raises FileNotFoundError once the run's records are made."""
    with os.fdopen(os.open(_path(run_id, "system.jsonl"), os.O_WRONLY | os.O_APPEND), "a") as file:
        file.write(json.dumps({"moment": int(time.time() * 1000), **sample}) + "\n")


def samples_of(run_id: str) -> list[dict[str, float]]:
    """Return the samples of the machine, in their order; `moment` is in milliseconds since 1970."""
    return _lines(_path(run_id, "system.jsonl"))


def forget(run_id: str) -> None:
    """Remove what was kept of a comparison."""
    for ending in ("json", "npz", "settings.jsonl", "system.jsonl"):  # the note first: without it the others are not looked at
        _path(run_id, ending).unlink(missing_ok=True)


def begin_again(run_id: str) -> None:
    """Forget the verdict of a comparison whose search goes on; what the machine did so far stays."""
    for ending in ("json", "npz", "settings.jsonl"):
        _path(run_id, ending).unlink(missing_ok=True)


def _json(item: Record) -> str:
    """Return the record as text that it can be read back from: pydantic's own JSON has no infinite numbers."""
    return json.dumps(item.model_dump(), default=str)


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines that are whole: a kill may leave the last one torn."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _path(run_id: str, ending: str) -> Path:
    return _folder() / f"{run_id}.{ending}"


def _folder() -> Path:
    folder = store.spool()
    folder.mkdir(exist_ok=True)
    return folder
