"""What was known of a source the last time it was read, and what is new since."""

import os
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, ValidationError

from batchlab.errors import BadInput
from batchlab.files.mapped import release
from batchlab.files.received import text_of
from batchlab.records import Record
from batchlab.table.schema import PackedTable


class Known(Record):
    """A source as it was when it was read: `newest` is the latest of its time column, as packed; None without one."""

    source: str
    digest: str
    rows: int
    newest: float | None = None
    noticed: AwareDatetime

    @classmethod
    def of(cls, table: PackedTable) -> "Known":
        """Return what there is to know of a packed table now."""
        times = table.side_column("time")
        newest = float(times.max()) if times is not None and len(times) else None
        if times is not None:
            release(times)
        return cls(source=table.schema.source, digest=table.schema.digest, rows=table.schema.rows, newest=newest, noticed=datetime.now(UTC))

    @classmethod
    def read(cls, path: Path) -> "Known | None":
        """Return what the file says; None when there is none, or none that can be read: the source then counts as new."""
        try:
            return cls.model_validate_json(text_of(path))
        except (BadInput, ValidationError):
            return None

    def write(self, path: Path) -> None:
        """Replace the file at once, that a kill leaves the old one or the new one."""
        draft = path.with_suffix(f".{os.getpid()}.part")
        draft.write_text(self.model_dump_json(indent=2) + "\n")
        draft.replace(path)

    def grew_since(self, before: "Known | None") -> bool:
        """Whether there are more rows than before, or later ones: a window that moves on may hold as many rows as ever."""
        if before is None or self.rows > before.rows:
            return True
        return self.newest is not None and before.newest is not None and self.newest > before.newest

    def compared_with(self, before: "Known | None") -> str:
        """Say what is new, with the numbers."""
        if before is None:
            return f"{self.source} is new here: {self.rows:,} rows."
        if self.rows > before.rows:
            return f"{self.source} grew by {self.rows - before.rows:,} to {self.rows:,} rows."
        if self.grew_since(before):
            return f"{self.source} holds later rows than before: {self.rows:,}, after {before.rows:,}."
        if self.digest == before.digest:
            return f"{self.source}: nothing new, {self.rows:,} rows as on {before.noticed:%Y-%m-%d %H:%M} UTC."
        return f"{self.source} changed but did not grow: {self.rows:,} rows, {before.rows:,} before."
