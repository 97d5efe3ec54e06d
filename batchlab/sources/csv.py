from pathlib import Path
from typing import TYPE_CHECKING, Literal

from batchlab.errors import BadInput
from batchlab.sources.base import Source, existing

if TYPE_CHECKING:
    import pyarrow as pa


class Csv(Source):
    """One CSV file with a header line; column types are inferred by pyarrow."""

    kind: Literal["csv"] = "csv"
    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    def read(self, seed: int) -> "pa.Table":
        import pyarrow as pa
        from pyarrow import csv

        try:
            return csv.read_csv(existing(self.path))
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(f"'{self.path}' cannot be read as CSV: {error}") from error

    def peek(self) -> "pa.Schema":
        import pyarrow as pa
        from pyarrow import csv

        try:
            with csv.open_csv(existing(self.path)) as reader:
                return reader.schema
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(f"'{self.path}' cannot be read as CSV: {error}") from error
