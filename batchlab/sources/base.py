"""What every source is: a name, a schema that is cheap to read, and a table."""

from abc import ABC, abstractmethod
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


def existing(path: Path) -> Path:
    """Return `path` if something is there, else raise BadInput with what would be right."""
    if not path.exists():
        raise BadInput(f"'{path}' does not exist (looked in {Path.cwd()}); give a file, a folder, or the name of a bundled data set.")
    return path
