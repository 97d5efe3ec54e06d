"""What every source is: a name, a schema that is cheap to read, and rows in Arrow batches, the same ones at every pass."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchlab.records import Record

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True)
class BadLine:
    """A line that could not be cut into the table's columns: its number in the file (from 1), why, its text, and the file of several."""

    line: int
    reason: str
    text: str
    file: str = ""


OnBadLine = Callable[[BadLine], None]


class Reading(ABC):
    """A source opened for reading: its content does not change from here on, however often it is read."""

    @property
    @abstractmethod
    def schema(self) -> "pa.Schema":
        """The columns and types that every batch has."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the content, in hex: another one whenever a row is another."""

    @property
    def row_count(self) -> int | None:
        """The number of rows where it is known before reading, bad lines included; else None."""
        return None

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """About how many bytes a pass reads."""

    @property
    def is_text(self) -> bool:
        """Whether every column is text whose type is still to be found out (CSV)."""
        return False

    @property
    def description(self) -> str:
        """What was found out about the format, for people: `delimiter ';', encoding cp1252`; empty where nothing had to be."""
        return ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What else people should know of the rows, in sentences."""
        return ()

    @property
    def versions(self) -> "NDArray[Any] | None":
        """`[versions, rows, …]`: other ones of all rows, which trainings see in turn; None where rows are always the same."""
        return None

    @abstractmethod
    def batches(self, on_bad_line: OnBadLine) -> Iterator["pa.RecordBatch"]:
        """Yield all rows in their order, in bounded memory; raises BadInput for what cannot be read. May be called again."""

    @property
    @abstractmethod
    def share_read(self) -> float:
        """How much of the running pass is done, from 0 to 1."""


class Source(Record, ABC):
    """Where rows come from."""

    kind: str

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name for people, used in run names and reports."""

    @property
    def location(self) -> str | None:
        """Where the rows are: an absolute path, or a URL without its password; None where they are made or shipped."""
        return None

    @property
    def default_target(self) -> str | None:
        """The target column when the user names none; None where only the user can know."""
        return None

    @property
    def identity(self) -> str | None:
        """What stays the same while the source's rows change (its place), so that a contract can be kept for it; None where they cannot."""
        return None

    @abstractmethod
    def opened(self, seed: int, scratch: Path) -> Reading:
        """Return the rows; `seed` matters only where rows are generated, and `scratch` is a folder for what must be kept to be read again.

        Raises BadInput for what cannot be read.
        """

    def newest(self, column: str) -> float | None:
        """Return the largest value of a column (microseconds since 1970 for dates) where the source can tell without reading all rows;
        else None."""
        return None

    def peek(self) -> "pa.Schema | None":
        """Return the columns and their types when they are cheap to know before reading, else None."""
        return None
