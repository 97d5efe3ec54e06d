"""In which encoding a text file is written, and its content as UTF-8."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow import NativeFile

BLOCK_BYTES = 1 << 21
ENOUGH_BROKEN_LINES = 10_000
SAMPLE_BYTES = 1 << 14
CANDIDATES = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "koi8_r", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"]
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_UNDEFINED_IN_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_LIKE_TEXT = re.compile(rb"(?<![0-9.+-])[\x8a\x8c\x8e\x9a\x9c\x9e\x9f\xc0-\xff](?![0-9.+-])|[\x80\x91-\x97\xa0-\xbf]")
"""In cp1252: letters that are no part of a number, and the signs for money, quotation, dashes and units."""
_SIGN = re.compile(rb"(?<=[0-9])[\x80\xa0-\xbf](?![\x80-\xff])|(?<![\x80-\xff])[\x80\xa0-\xbf](?=[0-9])")
"""In cp1252: a sign for money or a unit beside a number, where other encodings have letters."""


@dataclass
class Utf8Check:
    """A count of what in a file is valid UTF-8 beyond ASCII and of the lines that are not, block by block."""

    valid: int = 0
    broken: int = 0
    samples: bytearray = field(default_factory=bytearray)
    _tail: bytes = b""

    def add(self, block: bytes) -> None:
        """Take the next block into account."""
        if self.broken >= ENOUGH_BROKEN_LINES or (block.isascii() and self._tail.isascii()):
            self._tail = b""
            return
        whole = self._tail + block
        end = whole.rfind(b"\n") + 1 or len(whole)
        self._tail = whole[end:]
        self._count(whole[:end])

    def finish(self) -> None:
        """Take the last line into account."""
        self._count(self._tail)

    def _count(self, lines: bytes) -> None:
        characters = _utf8_length(lines)
        if characters is not None:
            self.valid += len(lines) - characters
            return
        for line in lines.split(b"\n"):
            if line.isascii():
                continue
            if (characters := _utf8_length(line)) is not None:
                self.valid += len(line) - characters
            else:
                self.broken += 1
                self.samples += (line + b"\n")[: max(0, SAMPLE_BYTES - len(self.samples))]

    def encoding(self, beginning: bytes) -> str:
        """Return the encoding of the file that begins so.

        A file that is mostly UTF-8 stays UTF-8, and its broken lines are bad ones. One without any valid character beyond ASCII is
        of an older encoding if its bytes make text there; else they are damage.
        """
        marked = next((name for mark, name in _BOMS if beginning.startswith(mark)), None) or _utf16_without_mark(beginning)
        if marked is not None:
            return marked
        if self.broken == 0 or self.valid > self.broken / 10:
            return "utf-8"
        high = sum(byte > 127 for byte in self.samples)
        if len(_LIKE_TEXT.findall(self.samples)) * 2 <= high:
            return _guessed(bytes(self.samples)) or "utf-8"
        return _guessed(bytes(self.samples)) or ("latin-1" if _UNDEFINED_IN_CP1252.search(self.samples) else "cp1252")


def utf8_blocks(stream: "NativeFile", encoding: str, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yield the text as UTF-8 in blocks, without a byte order mark and with `\\n` where lines ended in `\\r` alone.

    A character that cannot be decoded becomes the byte 0xFF, which no UTF-8 text holds, so that its line can be told.
    """
    only_returns: bool | None = None
    for block in _decoded(stream, encoding, block_bytes):
        if only_returns is None:
            only_returns = b"\n" not in block and b"\r" in block[:-1]
        yield block.replace(b"\r", b"\n") if only_returns else block


def _decoded(stream: "NativeFile", encoding: str, block_bytes: int) -> Iterator[bytes]:
    name = codecs.lookup(encoding).name
    decoder = None if name in {"utf-8", "utf-8-sig", "ascii"} else codecs.getincrementaldecoder(name)("replace")
    first = True
    while True:
        block = stream.read(block_bytes)
        if decoder is not None:
            text = decoder.decode(block, final=not block)
            content = text.removeprefix("\ufeff" if first else "").encode("utf-8", "replace").replace(b"\xef\xbf\xbd", b"\xff")
        else:
            content = block.removeprefix(codecs.BOM_UTF8) if first else block
        if content:
            yield content
        if not block:
            return
        first = False


def _utf8_length(content: bytes) -> int | None:
    try:
        return len(content.decode())
    except UnicodeDecodeError:
        return None


def _utf16_without_mark(beginning: bytes) -> str | None:
    """Text in which every other byte is zero is UTF-16, as Windows writes it, its mark lost."""
    pairs = len(beginning) // 2
    if pairs < 4:
        return None
    even, odd = beginning[0 : 2 * pairs : 2].count(0), beginning[1 : 2 * pairs : 2].count(0)
    if odd > 0.6 * pairs and even == 0:
        return "utf-16-le"
    return "utf-16-be" if even > 0.6 * pairs and odd == 0 else None


def _guessed(samples: bytes) -> str | None:
    """Return the encoding that charset-normalizer finds where there is enough text to tell, else None.

    Of several that read equally well it names any; where the most common one, cp1252, is among them, it is that.
    """
    from charset_normalizer import from_bytes

    high = sum(byte > 127 for byte in samples)
    if high < 200 or len(_SIGN.findall(samples)) * 2 > high:
        return None
    found = from_bytes(samples, cp_isolation=CANDIDATES, threshold=0.3)
    best = found.best()
    if best is None:
        return None
    western = any(CANDIDATES[0] in match.could_be_from_charset and match.chaos <= best.chaos for match in found)
    return CANDIDATES[0] if western else best.encoding
