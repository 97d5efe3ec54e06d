"""What every source of files shares: a place, the files found there, their digest, and that they stay as they were."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BeforeValidator, Field, field_serializer

from batchlab.errors import BadInput
from batchlab.sources.base import OnBadLine, Reading, Source
from batchlab.sources.digests import Findings, Memory, content_digest, joint_digest
from batchlab.sources.formats import check_beginning
from batchlab.sources.places import FoundFile, Place, scheme, without_password

if TYPE_CHECKING:
    import pyarrow as pa

Location = Annotated[str, BeforeValidator(lambda path: str(path) if isinstance(path, Path) else path), Field(min_length=1, repr=False)]
"""A path, a pattern such as `data/*.parquet`, or a URL (`s3://…`); a Path is taken too."""


class FileSource(Source, ABC):
    """A file, a folder of files, or a pattern; on a disk or in an object store."""

    path: Location
    endings: ClassVar[tuple[str, ...]]
    format: ClassVar[str]
    """What people call the format: 'Parquet'."""

    @field_serializer("path")
    def _path_without_password(self, path: str) -> str:
        return without_password(path)

    @property
    def name(self) -> str:
        last = PurePosixPath(without_password(self.path)).name
        ending = next((ending for ending in sorted(self.endings, key=len, reverse=True) if last.lower().endswith(ending)), "")
        return (last[: len(last) - len(ending)] if ending else last).strip("*?. ") or self.kind

    @property
    def identity(self) -> str:
        return f"{self.kind} {self.location}"

    @property
    def location(self) -> str:
        return without_password(self.path) if scheme(self.path) else str(Path(self.path).absolute())

    def opened(self, seed: int, scratch: Path) -> "FileReading":
        return self.read_at(Place.of(self.path), Memory(scratch))

    def peek(self) -> "pa.Schema":
        place = Place.of(self.path)
        return self.columns(place, self.files(place))

    def files(self, place: Place) -> list[FoundFile]:
        """Return the files to read, in their order; raises BadInput for one that is empty or plainly of another format."""
        files = place.found(self.endings)
        for file in files:
            if not file.size:
                raise BadInput(f"'{place.shown_path(file.path)}' is empty (0 bytes); a {self.format} file is expected.")
            with place.readable(self.format, file.path):
                check_beginning(place, file, self.kind)
        return files

    @abstractmethod
    def read_at(self, place: Place, memory: Memory) -> "FileReading":
        """Open the files of a place for reading."""

    @abstractmethod
    def columns(self, place: Place, files: list[FoundFile]) -> "pa.Schema":
        """Return the columns and their types without reading all rows."""


class FileReading(Reading):
    """Files opened for reading. A pass that meets a file that is not the one that was opened raises BadInput."""

    def __init__(self, source: FileSource, place: Place, files: list[FoundFile], memory: Memory) -> None:
        self.place = place
        self.files = files
        self._source = source
        self._memory = memory
        self._bytes_done = 0
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            held = [(file.name, self.findings(file)["digest"]) for file in self.files]
            self._memory.keep()
            self._fingerprint = joint_digest(self._source.model_dump(exclude={"path"}), held)
        return self._fingerprint

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def share_read(self) -> float:
        return min(1.0, (self._bytes_done + self.bytes_of_file()) / self.size_bytes)

    def batches(self, on_bad_line: OnBadLine) -> Iterator["pa.RecordBatch"]:
        self._bytes_done = 0
        for file in self.files:
            self._check_same(file)
            with self.place.readable(self._source.format, file.path):
                rows = self.batches_of(file, on_bad_line)
            while True:
                with self.reading(file):
                    batch = next(rows, None)
                if batch is None:
                    break
                yield batch
            self._check_same(file)
            self._bytes_done += file.size

    @abstractmethod
    def batches_of(self, file: FoundFile, on_bad_line: OnBadLine) -> Iterator["pa.RecordBatch"]:
        """Yield the rows of one file; what pyarrow raises becomes BadInput."""

    def bytes_of_file(self) -> int:
        """How much of the file at hand is read."""
        return 0

    def findings(self, file: FoundFile) -> Findings:
        """Return what is known about a file's whole content, its digest at least: from memory, else by reading it."""

        def find_out() -> Findings:
            with self.reading(file):
                found = self.found_out(file)
            self._check_same(file)
            return found

        return self._memory.recalled(self.place, file, self._source.kind, find_out)

    def found_out(self, file: FoundFile) -> Findings:
        """Read the whole file to find out what `findings` returns."""
        return {"digest": content_digest(self.place, file)}

    @contextmanager
    def reading(self, file: FoundFile) -> Iterator[None]:
        """Turn what pyarrow raises into BadInput, and say so when the reason is that the file was changed meanwhile."""
        try:
            with self.place.readable(self._source.format, file.path):
                yield
        except BadInput:
            self._check_same(file)
            raise

    def _check_same(self, file: FoundFile) -> None:
        now = self.place.stamp(file.path)
        if now != file.stamp:
            became = f"it had {file.size} bytes and has {now[0]}" if now else "it is gone"
            raise BadInput(f"'{self.place.shown_path(file.path)}' changed while it was read ({became}); try again when nobody writes it.")
