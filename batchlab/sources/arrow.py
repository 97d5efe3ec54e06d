from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar, Literal

from batchlab.errors import BadInput
from batchlab.sources.base import OnBadLine
from batchlab.sources.digests import Memory
from batchlab.sources.files import FileReading, FileSource
from batchlab.sources.formats import beginning
from batchlab.sources.places import FoundFile, Place
from batchlab.sources.schemas import aligned, decoded, unified

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1 << 17
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class Arrow(FileSource):
    """Arrow IPC files, in the file format (also Feather) or the stream format."""

    kind: Literal["arrow"] = "arrow"

    endings: ClassVar[tuple[str, ...]] = (".arrow", ".feather", ".ipc", ".arrows")
    format: ClassVar[str] = "Arrow"

    def read_at(self, place: Place, memory: Memory) -> "ArrowReading":
        return ArrowReading(self, place, self.files(place), memory)

    def columns(self, place: Place, files: list[FoundFile]) -> "pa.Schema":
        schemas = []
        for file in files:
            with place.readable(self.format, file.path), closing(_Ipc(place, file)) as held:
                schemas.append((place.shown_path(file.path), decoded(held.schema)))
        return unified(schemas)


class ArrowReading(FileReading):
    """Arrow IPC files read one after another, a batch at a time as it was written; memory is that of the largest batch."""

    def __init__(self, source: Arrow, place: Place, files: list[FoundFile], memory: Memory) -> None:
        super().__init__(source, place, files, memory)
        self._schema = source.columns(place, files)
        self._held: _Ipc | None = None

    @property
    def schema(self) -> "pa.Schema":
        return self._schema

    def batches_of(self, file: FoundFile, on_bad_line: OnBadLine) -> "Iterator[pa.RecordBatch]":
        with closing(_Ipc(self.place, file)) as self._held:
            for batch in self._held.batches():
                batch.validate(full=True)  # a flipped bit in an offset would be read as an address
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield aligned(batch.slice(start, BATCH_ROWS), self._schema, {})

    def bytes_of_file(self) -> int:
        return self._held.tell() if self._held is not None else 0


class _Ipc:
    """An open file of either format."""

    def __init__(self, place: Place, file: FoundFile) -> None:
        from pyarrow import ipc

        self._source = place.filesystem.open_input_file(file.path)
        self._is_file = beginning(place, file).startswith(b"ARROW1")
        if not self._is_file:
            self._check_end(place, file)
        self._reader = ipc.open_file(self._source) if self._is_file else ipc.open_stream(self._source)

    @property
    def schema(self) -> "pa.Schema":
        return self._reader.schema

    def batches(self) -> "Iterator[pa.RecordBatch]":
        """Yield the batches in their order."""
        if not self._is_file:
            yield from self._reader
            return
        for number in range(self._reader.num_record_batches):
            yield self._reader.get_batch(number)

    def tell(self) -> int:
        return 0 if self._source.closed else int(self._source.tell())

    def close(self) -> None:
        self._source.close()

    def _check_end(self, place: Place, file: FoundFile) -> None:
        """Raise BadInput for a stream that was cut off between two batches, which a reader takes for its end."""
        self._source.seek(max(0, file.size - len(END_OF_STREAM)))
        if self._source.read() != END_OF_STREAM:
            raise BadInput(f"'{place.shown_path(file.path)}' is an Arrow stream without its end mark; it was cut off or is still written.")
        self._source.seek(0)
