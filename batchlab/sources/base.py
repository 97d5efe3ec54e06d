"""What every source is: a name, a schema that is cheap to read, and a table."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from batchlab.errors import BadInput
from batchlab.records import Record

if TYPE_CHECKING:
    import pyarrow as pa


class Source(Record, ABC):
    """Where rows come from."""

    kind: str

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name for people, used in run names and reports."""

    @property
    def default_target(self) -> str | None:
        """The target column when the user names none; None where only the user can know."""
        return None

    @abstractmethod
    def read(self, seed: int) -> "pa.Table":
        """Return all rows; `seed` matters only where rows are generated. Raises BadInput for what cannot be read."""

    def peek(self) -> "pa.Schema | None":
        """Return the columns and their types when they are cheap to know before reading, else None."""
        return None


class FileSource(Source, ABC):
    """A file or folder, read through pyarrow."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    def read(self, seed: int) -> "pa.Table":
        with self._readable():
            return self.whole()

    def peek(self) -> "pa.Schema":
        with self._readable():
            return self.columns()

    @abstractmethod
    def whole(self) -> "pa.Table":
        """Return all rows."""

    @abstractmethod
    def columns(self) -> "pa.Schema":
        """Return the columns and their types without reading all rows."""

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Raise BadInput for a path where nothing is, and for content that pyarrow cannot read."""
        import pyarrow as pa

        if not self.path.exists():
            raise BadInput(
                f"'{self.path}' does not exist (looked in {Path.cwd()}); give a file, a folder, or the name of a bundled data set."
            )
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"'{self.path}' cannot be read as {self.kind}: {error}") from error
