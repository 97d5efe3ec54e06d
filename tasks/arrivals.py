"""The growth of a source, told to the Prefect server, and told once."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from prefect import task

from batchlab.config import Profile
from batchlab.files.naming import file_name
from batchlab.records import Record
from batchlab.sources.files import FileSource
from batchlab.sources.places import scheme
from batchlab.table import PackedTable
from batchlab.table.known import Known
from tasks import events, store
from tasks.retrying import RETRIES


class Request(Record):
    """What to read, in the user's words, which also start the retraining. `name` is the registered model's."""

    profile: str
    data: str | None = None
    overrides: tuple[str, ...] = ()
    name: str | None = None


class Arrival(Record):
    """What an ingestion found; `text` says it to people. `told` is whether the event of the growth was sent."""

    source: str
    rows: int
    rows_before: int
    grew: bool
    told: bool
    text: str


@contextmanager
def alone(settings: Profile, name: str | None) -> Iterator[None]:
    """Keep other ingestions of the same source, target and model waiting: of two that read it at once, one finds nothing new."""
    path = known_file(settings, name)
    store.check_writable()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        yield


def known_file(settings: Profile, name: str | None) -> Path:
    """Return the file that holds what is known of the source, for this target and registered model."""
    identity = settings.source.identity or settings.source.model_dump_json()
    digest = hashlib.sha256(f"{identity}\n{settings.named_columns().target}\n{name}".encode()).hexdigest()[:8]
    return store.tables() / "known" / f"{file_name(settings.source.name)}-{digest}.json"


@task(**RETRIES)
def notice(settings: Profile, table: Path, request: Request) -> Arrival:
    """Compare the packed table with what was known of its source, tell the Prefect server if it grew, and note what is known now.

    The event goes first: killed in between, the next ingestion tells it again, and a retraining without new rows does nothing.
    """
    path = known_file(settings, request.name)
    before, now = Known.read(path), Known.of(PackedTable.open(table))
    grew, rows_before, text = now.grew_since(before), before.rows if before else 0, now.compared_with(before)
    told = grew and tell(settings, now, rows_before, text, request)
    if told or not grew:
        now.write(path)
    else:
        text += " PREFECT_API_URL names no server, so nobody was told; the next ingestion with one tells it."
    return Arrival(source=now.source, rows=now.rows, rows_before=rows_before, grew=grew, told=told, text=text)


def tell(settings: Profile, now: Known, rows_before: int, text: str, request: Request) -> bool:
    """Send the event that the source grew, with all that a retraining on it needs; False where no Prefect server is configured."""
    is_file = request.profile.endswith(".toml")
    return events.emit(
        events.DATASET_GREW,
        "dataset",
        now.source,
        text,
        data=located(settings, request.data),
        target=settings.named_columns().target,
        rows=now.rows,
        rows_before=rows_before,
        digest=now.digest,
        profile=str(Path(request.profile).absolute()) if is_file else request.profile,
        overrides=list(request.overrides),
        model=request.name,
    )


def located(settings: Profile, data: str | None) -> str | None:
    """Return the user's `data` so that it means the same in another folder: the path of a file in full."""
    is_path = data is not None and isinstance(settings.source, FileSource) and not scheme(settings.source.path)
    return settings.source.location if is_path else data
