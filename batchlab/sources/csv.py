from typing import TYPE_CHECKING, Literal

from batchlab.errors import BadInput
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
            schema = reader.schema
        separator = next((sign for sign in ";\t|" if len(schema.names) == 1 and sign in schema.names[0]), None)
        if separator is not None:
            raise BadInput(
                f"'{self.path}' has one column, '{schema.names[0]}': its values are separated by {separator!r}; separate them by commas."
            )
        return schema
