"""How a packed table gets onto the disk: into a draft folder, synced, then renamed; a killed pass leaves nothing like a table."""

import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from batchlab.errors import BadInput
from batchlab.files.sealing import LAST_BYTES, Digest, seal
from batchlab.serving.batchlab_serving import shown

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX, LOCK = ".packing-", ".lock"
MOST_WAITING = 10_000
LONGEST_TEXT, FIRST_ROWS = 2000, 3
"""A quarantined row's text is cut after so many characters."""


class RowsFile:
    """A `.npy` file that rows are appended to."""

    def __init__(self, path: Path, dtype: Any, width: int | None = None) -> None:
        self.path, self.dtype, self.width, self.rows = path, np.dtype(dtype), width, 0
        self.file, self.digest = path.open("wb", buffering=0), Digest()
        self._header()

    def add(self, rows: NDArray[Any]) -> None:
        """Append rows `[rows]`, or `[rows, width]`."""
        data = memoryview(np.ascontiguousarray(rows, self.dtype).data).cast("B")
        self.digest.add(data)
        while len(data):
            data = data[self.file.write(data) :]
        self.rows += len(rows)

    def close(self) -> None:
        """Write how many rows there are, and wait until all of it is on the disk."""
        self.file.seek(0)
        self._header()
        os.fsync(self.file.fileno())
        self.file.close()

    def sealed(self) -> str:
        """Return the digest of the file, which is closed."""
        with self.path.open("rb") as file:
            return self.digest.finished(file.read(LAST_BYTES))

    def _header(self) -> None:
        # numpy leaves room in the header for the first number to grow
        shape = (self.rows,) if self.width is None else (self.rows, self.width)
        described = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, described)
        assert self.file.tell() == LAST_BYTES, "the digest leaves out the header, and takes it in when it is final"


class Quarantine:
    """Collects rows that cannot be used, in a Parquet file: `line` or `row` number in the source, `column`, `reason` and the raw `text`."""

    def __init__(self, path: Path) -> None:
        self.path, self.counts = path, Counter[str]()
        self.waiting: list[dict[str, Any]] = []
        self.writer: Any = None
        self.lock = threading.Lock()

    def add(
        self, reason: str, detail: str, text: str, *, line: int | None = None, row: int | None = None, column: str | None = None
    ) -> None:
        """Take in one row: `reason` is what rows are counted by, `detail` says it of this one."""
        with self.lock:  # bad lines come from the thread that reads ahead
            self.counts[reason] += 1
            self.waiting.append({"line": line, "row": row, "column": column, "reason": detail, "text": text[:LONGEST_TEXT]})
            if len(self.waiting) >= MOST_WAITING:
                self._write()

    def close(self) -> None:
        """Write what is waiting."""
        if self.waiting:
            self._write()
        if self.writer is not None:
            self.writer.close()

    def _write(self) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        kinds = [("line", pa.int64()), ("row", pa.int64()), ("column", pa.string()), ("reason", pa.string()), ("text", pa.string())]
        table = pa.Table.from_pylist(self.waiting, pa.schema(kinds))
        self.writer = self.writer or parquet.ParquetWriter(self.path, table.schema)
        self.writer.write_table(table)
        self.waiting = []


class TooManyBadRows(BadInput):
    """More rows cannot be used than may be; they are in the file `kept`."""

    def __init__(self, text: str, kept: Path | None) -> None:
        super().__init__(text)
        self.kept = kept


def first_of(kept: Path | None) -> str:
    """Say what is wrong with the first rows in a file of quarantined ones, and where they are."""
    from pyarrow import parquet

    if kept is None or not kept.exists():
        return ""
    with parquet.ParquetFile(kept) as file:
        rows = next(file.iter_batches(batch_size=FIRST_ROWS), None)
    found = [] if rows is None else rows.to_pylist()
    said = [f"line {row['line']}: {row['reason']}" if row["row"] is None else f"row {row['row']}: {row['reason']}" for row in found]
    return f" The first: {'; '.join(said)}." if said else ""


class Draft:
    """A folder that becomes a table when all is written, or vanishes. Drafts of processes that were killed are removed first.

    Its own lock says that its process lives. The folder's lock is held while drafts come, go or change their name, so that nobody takes
    one for abandoned in between.
    """

    def __init__(self, tables: Path) -> None:
        tables.mkdir(parents=True, exist_ok=True)
        self.tables = tables
        with FileLock(tables / LOCK):
            remove_abandoned(tables)
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=tables))
            self.lock = FileLock(self.path / LOCK)
            self.lock.acquire()

    def __enter__(self) -> "Draft":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.lock.release()
        shutil.rmtree(self.path, ignore_errors=True)

    def become(self, name: str, written: Iterable[RowsFile] = ()) -> Path:
        """Make this the table `name`, unless another process was first; return its folder. The digests of what was `written` just now
        need not be made by reading it."""
        final = self.tables / name
        seal(self.path, {file.path.name: file.sealed() for file in written})
        for path in self.path.iterdir():
            sync(path)
        self.path.chmod(0o755)
        with FileLock(self.tables / LOCK):
            self.lock.release()
            (self.path / LOCK).unlink(missing_ok=True)
            sync(self.path)
            with contextlib.suppress(OSError):
                os.replace(self.path, final)
        if not (final / "schema.json").exists():
            raise BadInput(f"'{final}' is in the way and is no packed table; remove it.")
        sync(self.tables)
        return final


@contextlib.contextmanager
def writing_under(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into BadInput."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"the packed table cannot be written under '{folder}': {error.strerror or error}.") from error


def remove_abandoned(tables: Path) -> None:
    """Remove drafts whose process is gone: their lock can be taken."""
    for path in tables.glob(f"{PREFIX}*"):
        if path.is_symlink():  # its lock would be made, and its files lie, elsewhere
            continue
        lock = FileLock(path / LOCK)
        with contextlib.suppress(Timeout, OSError):
            lock.acquire(timeout=0)
            lock.release()
            shutil.rmtree(path, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def text_of(batch: "pa.RecordBatch", row: int) -> str:
    """Return one row as JSON; what Python has no words for is said to be out of range."""
    return json.dumps({name: _plain(batch.column(name)[row]) for name in batch.schema.names}, default=str, ensure_ascii=False)


def _plain(value: "pa.Scalar") -> Any:
    try:
        return value.as_py()
    except (ValueError, OverflowError, KeyError):
        return shown(value)


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise BadInput unless the disk has room for `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BadInput(
            f"{what} needs about {needed / 1e9:.1f} GB under '{folder}', where {free / 1e9:.1f} GB are free; "
            "make room, or set BATCHLAB_MLRUNS to a larger disk."
        )
