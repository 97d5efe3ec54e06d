"""CSV text cut into records: exactly the ones that pyarrow sees in it, and apart from them the lines that are none."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from batchlab.sources.dialect import Dialect
from batchlab.sources.places import NoTable

LONGEST_RECORD = 1 << 24
"""Bytes after which a quote that is still open counts as never closed."""
LONGEST_LINE = 1 << 26


@dataclass(frozen=True)
class Run:
    """Whole records in a row, or one line with a problem; `line` is the number of the first of them in the file."""

    line: int
    text: bytes
    problem: str = ""


@dataclass(frozen=True)
class Piece:
    """Bytes `start` to `end` of a block: whole records, or one line with a problem."""

    start: int
    end: int
    problem: str = ""


class Cutter:
    """Cuts text as RFC 4180 has it: a value may be quoted, and then hold delimiters, line ends and doubled quotes.

    A quote within an unquoted value is a sign like any other; text after a closing quote, or a quote that is never closed, makes the
    line a bad one, and the next line is read as if it began a record. So a lost quote costs a line and never the rest of the file.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.delimiter, self.quote = dialect.delimiter.encode(), dialect.quote.encode()
        d, q = re.escape(self.delimiter), re.escape(self.quote)
        inner = rb"%b[^%b]*+(?:%b%b[^%b]*+)*+" % (q, q, q, q, q)
        plain = rb"[^%b%b\r\n][^%b\r\n]*+|" % (q, d, d)
        value = rb"(?:%b%b *+|%b)" % (inner, q, plain) if q else rb"[^%b\r\n]*+" % d
        record = rb"%b(?:%b%b)*+" % (value, d, value)
        self._inside = re.compile(rb"(?:%b(?:\r\n|\n|\r(?!\Z)))*+" % record)
        self._final = re.compile(rb"(?:(?!\Z)%b(?:\r\n|\n|\r|\Z))*+" % record)
        self._record = re.compile(rb"(?!\Z)%b(?:\r\n|\n|\r|\Z)" % record)
        self._unclosed = re.compile(rb"(?:%b%b)*+%b\Z" % (value, d, inner)) if q else None
        self._quoted = re.compile(rb"(?:(?<=%b)|^)%b%b" % (d, inner, q)) if q else None

    def runs(self, blocks: Iterable[bytes]) -> Iterator[list[Run]]:
        """Yield the text in runs, a list for each block; every byte is in exactly one run."""
        parts, size, line = list[bytes](), 0, 1
        for block, final in _last_marked(blocks):
            parts.append(block)
            size += len(block)
            if size > LONGEST_LINE:
                raise NoTable(f"line {line} does not end within {LONGEST_LINE:,} bytes; this is no table of lines.")
            if not final and b"\n" not in block and b"\r" not in block:
                yield []  # a long line is looked at when it may end, and not for every block of it
                continue
            pending, runs, end = b"".join(parts), [], 0
            for piece in self.pieces(pending, final):
                text, end = pending[piece.start : piece.end], piece.end
                runs.append(Run(line, text, piece.problem))
                line += text.count(b"\n")
            parts, size = [pending[end:]], len(pending) - end
            yield runs

    def pieces(self, block: bytes, final: bool) -> Iterator[Piece]:
        """Yield the pieces of the block in order, up to a last record that may go on in the next block unless this is the final one."""
        position = 0
        while position < len(block):
            end = self._run_end(block, position, final)
            if end > position:
                yield Piece(position, end)
                position = end
            if position == len(block) or (problem := self._problem(block, position, final)) is None:
                return
            end = block.find(b"\n", position) + 1 or len(block)
            yield Piece(position, end, problem)
            position = end

    def records(self, run: bytes) -> Iterator[bytes]:
        """Yield the records of a run one by one, with their line ends."""
        return (found[0] for found in self._record.finditer(run))

    def column_count(self, record: bytes) -> int:
        """Return the number of values of a record."""
        bare = self._quoted.sub(b"", record) if self._quoted is not None and self.quote in record else record
        return bare.count(self.delimiter) + 1

    def _run_end(self, block: bytes, position: int, final: bool) -> int:
        if not self.quote or block.find(self.quote, position) < 0:
            return len(block) if final else block.rfind(b"\n", position) + 1 or position
        found = (self._final if final else self._inside).match(block, position)
        assert found is not None, "the pattern matches nothing at least"
        return found.end()

    def _problem(self, block: bytes, position: int, final: bool) -> str | None:
        """Return what is wrong with the line at `position`, or None when its record may just not be complete."""
        unclosed = self._unclosed is not None and self._unclosed.match(block, position)
        line_complete = final or block.find(b"\n", position) >= 0
        if unclosed:
            lost = final or len(block) - position > LONGEST_RECORD
            return "a quote opens and is not closed" if lost and line_complete else None
        whole = self._record.match(block, position)
        return None if whole or not line_complete else "text follows a closing quote"


def _last_marked(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    held = None
    for block in blocks:
        if held is not None:
            yield held, False
        held = block
    if held is not None:
        yield held, True
