import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import field_validator

from batchlab.errors import BadInput
from batchlab.sources.base import OnBadLine
from batchlab.sources.cells import Cells, column_names, header_taken
from batchlab.sources.dialect import Dialect, detected
from batchlab.sources.digests import Findings, Memory
from batchlab.sources.encoding import BLOCK_BYTES, Utf8Check, utf8_blocks
from batchlab.sources.files import FileReading, FileSource
from batchlab.sources.formats import compression
from batchlab.sources.lines import Cutter
from batchlab.sources.places import FoundFile, Place

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_BYTES = 1 << 18
COLUMN_BYTES = 1 << 10
"""A block should give every column this much, or parsing is spent on starting columns."""
LARGEST_BLOCK = 1 << 24


class Csv(FileSource):
    """CSV files with a header line, also compressed; every column is text, whose type whoever reads it finds out."""

    kind: Literal["csv"] = "csv"
    delimiter: str | None = None
    """The sign between values; None: found out among `,`, `;`, tab and `|`."""
    quote: str | None = None
    """The sign around values; empty: none; None: found out."""
    encoding: str | None = None
    """As Python names it (`cp1252`); None: found out."""

    endings: ClassVar[tuple[str, ...]] = tuple(ending + packed for ending in (".csv", ".tsv", ".txt") for packed in ("", ".gz", ".zst"))
    format: ClassVar[str] = "CSV"

    @field_validator("delimiter", "quote")
    @classmethod
    def _one_sign(cls, sign: str | None) -> str | None:
        sign = {"\\t": "\t", "tab": "\t"}.get(sign or "", sign)
        if sign and (len(sign) > 1 or not sign.isascii() or sign in "\r\n\0"):
            raise ValueError("must be one ASCII sign, such as ';' or \\t")
        return sign

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str | None) -> str | None:
        try:
            if encoding is not None and not codecs.lookup(encoding)._is_text_encoding:
                raise LookupError
        except LookupError:
            raise ValueError("is no encoding that Python knows; utf-8, cp1252, latin-1 and utf-16 are some") from None
        return encoding

    def read_at(self, place: Place, memory: Memory) -> "CsvReading":
        return CsvReading(self, place, self.files(place), memory)

    def columns(self, place: Place, files: list[FoundFile]) -> "pa.Schema":
        with place.readable(self.format, files[0].path):
            return self.begun(place, files[0], self.encoding or _likely_encoding(place, files[0])).schema

    def begun(self, place: Place, file: FoundFile, encoding: str) -> "Beginning":
        """Return what the beginning of a file tells; raises BadInput when it has no header line."""
        import pyarrow as pa

        with _text_stream(place, file) as (_, stream):
            sample = next(utf8_blocks(stream, encoding), b"")[:SAMPLE_BYTES]
        lines = sample[: sample.rfind(b"\n") + 1] or sample
        dialect = detected(lines.decode("utf-8", "replace").replace("\0", " "), self.delimiter, self.quote)
        cutter = Cutter(dialect)
        with _text_stream(place, file) as (_, stream):
            taken = (header_taken(runs, cutter) for runs in cutter.runs(utf8_blocks(stream, encoding)))
            header = next((found[0] for found in taken if found is not None), None)
        if header is None:
            raise BadInput(f"'{place.shown_path(file.path)}' holds no line but blank ones; a CSV file begins with a line of column names.")
        names = column_names(header, dialect, encoding)
        return Beginning(dialect, encoding, pa.schema([(name, pa.string()) for name in names]))


@dataclass(frozen=True)
class Beginning:
    """What the beginning of a CSV file tells."""

    dialect: Dialect
    encoding: str
    schema: "pa.Schema"


class CsvReading(FileReading):
    """CSV files with one header and one dialect, each in its own encoding."""

    def __init__(self, source: Csv, place: Place, files: list[FoundFile], memory: Memory) -> None:
        super().__init__(source, place, files, memory)
        self._raw: pa.NativeFile | None = None
        self._begun: dict[str, Beginning] = {}
        for file in files:
            encoding = source.encoding or self.findings(file)["encoding"]
            like = source if not self._begun else source.model_copy(update=_chosen(self._first.dialect))
            with self.reading(file):
                self._begun[file.path] = like.begun(place, file, encoding)
            self._check_header(file)
        memory.keep()

    @property
    def schema(self) -> "pa.Schema":
        return self._first.schema

    @property
    def is_text(self) -> bool:
        return True

    @property
    def description(self) -> str:
        encodings = ", ".join(sorted({begun.encoding for begun in self._begun.values()}))
        return f"{self._first.dialect.description}, encoding {encodings}"

    def batches_of(self, file: FoundFile, on_bad_line: OnBadLine) -> "Iterator[pa.RecordBatch]":
        begun = self._begun[file.path]
        cutter = Cutter(begun.dialect)
        cells = Cells(self.schema, begun.dialect, begun.encoding, cutter)
        shown = self.place.shown_path(file.path) if len(self.files) > 1 else ""
        block_bytes = max(BLOCK_BYTES, min(LARGEST_BLOCK, COLUMN_BYTES * len(self.schema)))
        header_seen = False
        with _text_stream(self.place, file) as (self._raw, stream):
            for runs in cutter.runs(utf8_blocks(stream, begun.encoding, block_bytes)):
                if not header_seen and (taken := header_taken(runs, cutter)) is not None:
                    header_seen, runs = True, taken[1]
                if header_seen:
                    yield from cells.batches(runs, lambda bad: on_bad_line(replace(bad, file=shown)))

    def found_out(self, file: FoundFile) -> Findings:
        check = Utf8Check()
        with _text_stream(self.place, file) as (_, stream):
            first = block = stream.read(BLOCK_BYTES)
            while block:
                check.add(block)
                block = stream.read(BLOCK_BYTES)
        check.finish()
        return {**super().found_out(file), "encoding": check.encoding(first)}

    def bytes_of_file(self) -> int:
        return 0 if self._raw is None or self._raw.closed else int(self._raw.tell())

    @property
    def _first(self) -> Beginning:
        return self._begun[self.files[0].path]

    def _check_header(self, file: FoundFile) -> None:
        """Raise BadInput when the file's columns are not those of the first."""
        first, here = self.schema.names, self._begun[file.path].schema.names
        if here != first:
            place = next(
                (place for place, pair in enumerate(zip(first, here, strict=False)) if pair[0] != pair[1]), min(len(first), len(here))
            )
            wanted, found = (f"'{names[place]}'" if place < len(names) else "nothing" for names in (first, here))
            raise BadInput(
                f"'{self.place.shown_path(file.path)}' has other columns than '{self.place.shown_path(self.files[0].path)}': "
                f"column {place + 1} is {found}, not {wanted}; all files need the same header line."
            )


def _chosen(dialect: Dialect) -> dict[str, str]:
    return {"delimiter": dialect.delimiter, "quote": dialect.quote}


@contextmanager
def _text_stream(place: Place, file: FoundFile) -> "Iterator[tuple[pa.NativeFile, pa.NativeFile]]":
    """Open a file; yields it as it lies there, and decompressed."""
    import pyarrow as pa

    packed = compression(file.path)
    with place.filesystem.open_input_file(file.path) as raw:  # one that can tell how far it is read
        yield raw, (pa.CompressedInputStream(raw, packed) if packed else raw)


def _likely_encoding(place: Place, file: FoundFile) -> str:
    check = Utf8Check()
    with _text_stream(place, file) as (_, stream):
        first = stream.read(BLOCK_BYTES)
    check.add(first)
    return check.encoding(first)
