from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from batchlab.sources.base import OnBadLine
from batchlab.sources.digests import Memory
from batchlab.sources.files import FileReading, FileSource
from batchlab.sources.places import FoundFile, Place
from batchlab.sources.schemas import Partitions, aligned, decoded, unified

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

BATCH_BYTES = 1 << 25
BATCH_ROWS = 1 << 17
BUFFER_BYTES = 1 << 20


class Parquet(FileSource):
    """Parquet files; those of a folder are one table, and the folders' names `key=value` are columns of it."""

    kind: Literal["parquet"] = "parquet"

    endings: ClassVar[tuple[str, ...]] = (".parquet", ".pq", ".parq")
    format: ClassVar[str] = "Parquet"

    def read_at(self, place: Place, memory: Memory) -> "ParquetReading":
        return ParquetReading(self, place, self.files(place), memory)

    def columns(self, place: Place, files: list[FoundFile]) -> "pa.Schema":
        return ParquetReading.schema_of(place, files)[0]


class ParquetReading(FileReading):
    """Parquet files read one after another, row group by row group, in pieces of a column: never a whole row group at once."""

    def __init__(self, source: Parquet, place: Place, files: list[FoundFile], memory: Memory) -> None:
        super().__init__(source, place, files, memory)
        self._schema, self._rows = self.schema_of(place, files)
        self._partitions = Partitions.of([file.name for file in files])
        self._rows_done, self._file_rows, self._file_bytes = 0, 1, 0

    @staticmethod
    def schema_of(place: Place, files: list[FoundFile]) -> "tuple[pa.Schema, int]":
        """Return the columns that all files together have, and their rows, from their footers."""
        partitions, schemas, rows = Partitions.of([file.name for file in files]), [], 0
        for file in files:
            with place.readable("Parquet", file.path), opened(place, file) as footer:
                schemas.append((place.shown_path(file.path), decoded(footer.schema_arrow)))
                rows += footer.metadata.num_rows
        return partitions.added_to(unified(schemas)), rows

    @property
    def schema(self) -> "pa.Schema":
        return self._schema

    @property
    def row_count(self) -> int:
        return self._rows

    def batches_of(self, file: FoundFile, on_bad_line: OnBadLine) -> "Iterator[pa.RecordBatch]":
        constants = self._partitions.values_of(file.name)
        with opened(self.place, file) as held:
            self._rows_done, self._file_rows, self._file_bytes = 0, max(held.metadata.num_rows, 1), file.size
            for batch in held.iter_batches(batch_size=_batch_rows(held.metadata)):
                yield aligned(batch, self._schema, constants)
                self._rows_done += batch.num_rows

    def bytes_of_file(self) -> int:
        return self._file_bytes * self._rows_done // self._file_rows


def opened(place: Place, file: FoundFile) -> "parquet.ParquetFile":
    """Open a file so that a pass holds a buffer a column and not the row group, which may be the whole file."""
    from pyarrow import parquet

    source = place.filesystem.open_input_file(file.path)
    return parquet.ParquetFile(source, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)


def _batch_rows(metadata: "parquet.FileMetaData") -> int:
    """Return how many rows of these columns make a batch of a bounded size."""
    held = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    row_bytes = max(held / max(metadata.num_rows, 1), 8 * metadata.num_columns, 1)
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / row_bytes)))
