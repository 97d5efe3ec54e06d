"""Rows that are in memory already."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from batchlab.sources.base import OnBadLine, Reading

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1 << 17


class TableReading(Reading):
    """A table in memory, opened for reading."""

    def __init__(self, table: "pa.Table") -> None:
        self._table = table
        self._rows_done = 0

    @property
    def schema(self) -> "pa.Schema":
        return self._table.schema

    @property
    def fingerprint(self) -> str:
        """A digest of the schema and of the values, however they are cut into batches."""
        import pyarrow as pa
        import xxhash

        digest = xxhash.xxh3_128()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema) as writer:
            writer.write_table(self._table.combine_chunks(), max_chunksize=BATCH_ROWS)
        digest.update(sink.getvalue())
        return digest.hexdigest()

    @property
    def row_count(self) -> int:
        return int(self._table.num_rows)

    @property
    def size_bytes(self) -> int:
        return int(self._table.nbytes)

    @property
    def share_read(self) -> float:
        return self._rows_done / max(self.row_count, 1)

    def batches(self, on_bad_line: OnBadLine) -> "Iterator[pa.RecordBatch]":
        self._rows_done = 0
        for batch in self._table.to_batches(max_chunksize=BATCH_ROWS):
            yield batch
            self._rows_done += batch.num_rows
