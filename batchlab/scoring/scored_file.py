"""How predictions get onto the disk: into a draft beside the file, synced, then renamed; a killed run leaves nothing like a result."""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from batchlab.errors import BadInput
from batchlab.sources.places import scheme, without_password
from batchlab.table.writing import sync

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = (".parquet", ".csv", ".csv.gz")
LOCK, DRAFT = "lock", ".part"
GROUP_ROWS, GROUP_BYTES = 2**18, 2**26
"""Rows are gathered up to one of these before they are written, as a row group where the format has them."""


def checked_place(out: str) -> Path:
    """Return where the file will be, links followed; raises BadInput for a place or an ending that it cannot have."""
    if scheme(out) is not None:
        raise BadInput(f"--out '{without_password(out)}' is a URL; name a file on this machine.")
    path = Path(out).resolve()
    if not path.name.lower().endswith(ENDINGS):
        raise BadInput(f"--out '{out}' ends in none of {', '.join(ENDINGS)}, which say what to write.")
    if not path.parent.is_dir():
        raise BadInput(f"--out: folder '{path.parent}' does not exist; make it first.")
    if path.is_dir():
        raise BadInput(f"--out: '{path}' is a folder; name a file in it.")
    if not os.access(path.parent, os.W_OK):
        raise BadInput(f"--out: folder '{path.parent}' cannot be written; name a file elsewhere.")
    return path


@contextlib.contextmanager
def written(out: Path, schema: "pa.Schema") -> "Iterator[Callable[[pa.RecordBatch], None]]":
    """Yield a function that writes a batch; when the block ends well, all of them are the file `out`, which is replaced in one step.

    Raises BadInput for what the disk or the format refuses. Drafts of processes that were killed are removed.
    """
    try:
        with _drafted(out) as draft:
            with _opened(draft, schema) as writer:
                groups = _Groups(writer)
                yield groups.add
                groups.write()
            sync(draft)
            draft.replace(out)
            sync(out.parent)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise BadInput(f"'{out}' cannot be written: {reason}; nothing is left of it.") from error


@contextlib.contextmanager
def _drafted(out: Path) -> Iterator[Path]:
    """Yield a path in a draft folder beside `out`. A lock in it says that its process lives: without one, who comes next removes it."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.*{DRAFT}"):
        if path.is_symlink():
            continue
        with contextlib.suppress(Timeout, OSError), FileLock(path / LOCK, timeout=0):
            shutil.rmtree(path, ignore_errors=True)
    held = False
    while not held:  # somebody may take the folder for abandoned before it is locked
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=DRAFT, dir=out.parent))
        lock = FileLock(folder / LOCK)
        with contextlib.suppress(FileNotFoundError):
            lock.acquire()
            held = (folder / LOCK).exists()
    try:
        yield folder / out.name
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened(path: Path, schema: "pa.Schema") -> Iterator[Any]:
    """Yield pyarrow's writer for the ending; raises BadInput for a column that the format cannot hold."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    name = path.name.lower()
    with contextlib.ExitStack() as stack:
        try:
            if name.endswith(".parquet"):
                repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]
                writer = stack.enter_context(parquet.ParquetWriter(path, schema, use_dictionary=repeating))
            else:
                stream = stack.enter_context(pa.output_stream(path, compression="gzip" if name.endswith(".gz") else None))
                writer = stack.enter_context(csv.CSVWriter(stream, schema))
                writer.write_table(schema.empty_table())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise BadInput(f"'{path.name}' cannot hold these columns: {error}; keep others, or choose another ending.") from error
        yield writer


class _Groups:
    """Gathers batches until they are worth a row group."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._waiting: list[pa.RecordBatch] = []

    def add(self, batch: "pa.RecordBatch") -> None:
        """Take in a batch, and write what is waiting if that is enough."""
        self._waiting.append(batch)
        if sum(held.num_rows for held in self._waiting) >= GROUP_ROWS or sum(held.nbytes for held in self._waiting) >= GROUP_BYTES:
            self.write()

    def write(self) -> None:
        """Write what is waiting."""
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting))
            self._waiting = []
