"""Records of a CSV file as Arrow columns of text."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from batchlab.sources.base import BadLine, OnBadLine
from batchlab.sources.dialect import Dialect
from batchlab.sources.lines import Cutter, Run
from batchlab.sources.places import NoTable

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST_TEXT = 10_000
"""Characters of a bad line that are reported."""
MOST_COLUMNS = 1 << 18


def header_taken(runs: list[Run], cutter: Cutter) -> tuple[Run, list[Run]] | None:
    """Return the first record that is not blank, and the runs after it; None when all are blank. Raises NoTable for a broken one."""
    for place, run in enumerate(runs):
        if run.problem:
            raise NoTable(f"line {run.line}, the header, cannot be cut into column names: {run.problem}.")
        line, start = run.line, 0
        for record in cutter.records(run.text):
            start += len(record)
            after = line + record.count(b"\n")
            if record.strip():
                return Run(line, record), [Run(after, run.text[start:]), *runs[place + 1 :]]
            line = after
    return None


def column_names(header: Run, dialect: Dialect, encoding: str) -> list[str]:
    """Return the names in the header line; raises NoTable when it is no text."""
    count, problem = Cutter(dialect).column_count(header.text), undecodable(header.text, encoding)
    if count > MOST_COLUMNS:
        raise NoTable(f"line {header.line}, the header, has {count:,} names, more than {MOST_COLUMNS:,}.")
    if problem:
        raise NoTable(f"line {header.line}, the header, holds {problem}; set source.encoding to the file's.")
    from pyarrow import csv

    names = csv.read_csv(
        _buffer(header.text.rstrip(b"\r\n") + b"\n"),
        csv.ReadOptions(autogenerate_column_names=True),
        _parsing(dialect),
        _as_text(header, dialect),
    )
    return [column[0].as_py() for column in names.columns]


class Cells:
    """Turns runs of records into batches of one schema, all of text."""

    def __init__(self, schema: "pa.Schema", dialect: Dialect, encoding: str, cutter: Cutter) -> None:
        import pyarrow as pa
        from pyarrow import csv

        self._schema, self._encoding, self._cutter = schema, encoding, cutter
        self._names = [f"f{place}" for place in range(len(schema))]  # a header may repeat names
        self._parsing = _parsing(dialect)
        self._text = csv.ConvertOptions(column_types=dict.fromkeys(self._names, pa.string()))

    def batches(self, runs: list[Run], report: Callable[[BadLine], None]) -> "Iterator[pa.RecordBatch]":
        """Yield the good records of the runs as at most one batch, and report the bad ones in the order of their lines.

        All records are parsed at once; only where that fails is each of them looked at.
        """
        import pyarrow as pa

        content = b"".join(run.text for run in runs if not run.problem)
        try:
            batch = None if b"\0" in content else self._parsed(content)
        except pa.ArrowInvalid:
            batch = None
        if batch is None:
            batch = self._parsed(b"".join(self._checked(runs, report)))
        else:
            for run in runs:
                if run.problem:
                    report(self._bad(run.line, run.problem, run.text))
        if batch.num_rows:
            yield batch

    def _checked(self, runs: list[Run], report: OnBadLine) -> Iterator[bytes]:
        """Yield the records that have the right number of values, all of them text, and report the others."""
        for run in runs:
            line = run.line
            for record in [run.text] if run.problem else self._cutter.records(run.text):
                problem = run.problem or self._problem(record)
                if problem:
                    report(self._bad(line, problem, record))
                elif not self._blank(record):
                    yield record
                line += record.count(b"\n")

    def _problem(self, record: bytes) -> str:
        found, wanted = self._cutter.column_count(record), len(self._schema)
        unreadable = undecodable(record, self._encoding)
        if unreadable or found == wanted or self._blank(record):
            return unreadable
        return f"{found} column{'s' * (found > 1)} where the header has {wanted}"

    def _blank(self, record: bytes) -> bool:
        """Whether a line is empty, or of spaces only where a row would have delimiters."""
        return not record.strip(b"\r\n" if len(self._schema) == 1 else b" \r\n")

    def _parsed(self, content: bytes) -> "pa.RecordBatch":
        import pyarrow as pa
        from pyarrow import csv

        if not content.strip(b"\r\n"):
            return pa.RecordBatch.from_arrays([pa.array([], pa.string())] * len(self._schema), schema=self._schema)
        reading = csv.ReadOptions(column_names=self._names, block_size=len(content) + 1)
        table = csv.read_csv(_buffer(content), reading, self._parsing, self._text)
        return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=self._schema)

    def _bad(self, line: int, problem: str, text: bytes) -> BadLine:
        return BadLine(line, problem, text.decode("utf-8", "replace").rstrip("\r\n")[:LONGEST_TEXT])


def undecodable(text: bytes, encoding: str) -> str:
    """Return what keeps the bytes from being text, or nothing."""
    if b"\0" in text:
        return "a NUL byte"
    try:
        text.decode()
    except UnicodeDecodeError as error:
        if encoding.startswith("utf-8"):
            return f"byte 0x{text[error.start]:02X}, which is not UTF-8"
        return f"bytes that are not {encoding}"
    return ""


def _buffer(content: bytes) -> "pa.BufferReader":
    import pyarrow as pa

    return pa.BufferReader(content)


def _parsing(dialect: Dialect) -> "pa.csv.ParseOptions":
    from pyarrow import csv

    return csv.ParseOptions(delimiter=dialect.delimiter, quote_char=dialect.quote or False, newlines_in_values=True)


def _as_text(header: Run, dialect: Dialect) -> "pa.csv.ConvertOptions":
    import pyarrow as pa
    from pyarrow import csv

    count = Cutter(dialect).column_count(header.text)
    return csv.ConvertOptions(column_types={f"f{place}": pa.string() for place in range(count)})
