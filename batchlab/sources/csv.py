from typing import TYPE_CHECKING, Literal

from batchlab.sources.base import FileSource

if TYPE_CHECKING:
    import pyarrow as pa


class Csv(FileSource):
    """One CSV file with a header line; column types are inferred by pyarrow."""

    kind: Literal["csv"] = "csv"

    def whole(self) -> "pa.Table":
        from pyarrow import csv

        return csv.read_csv(self.path)

    def columns(self) -> "pa.Schema":
        from pyarrow import csv

        with csv.open_csv(self.path) as reader:
            return reader.schema
