"""Files that anybody may have written: read as plain, bounded files of their folder, refused as BadInput that names them, never run."""

import json
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.errors import BadInput

LARGEST_TEXT = 2**26
"""Bytes of text that are read at most; the largest that is written, of a table with thousands of columns, has a few million."""
UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, OverflowError),
    *(MemoryError, RecursionError, NotImplementedError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error),
)
"""What parsers raise for content that they do not expect."""


@contextmanager
def refusing(path: Path, what: str, way_out: str = "") -> Iterator[None]:
    """Raise BadInput, naming the file, for whatever is raised about its content: it is no `what`. `way_out` says what to do."""
    try:
        yield
    except BadInput:
        raise
    except UNREADABLE as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(". ")
        raise BadInput(f"'{path}' is no {what} that can be used: {first}{f'; {way_out}' if way_out else ''}.") from error


def check_plain(path: Path) -> None:
    """Raise BadInput unless the path is a file: no link, whose target may lie anywhere, no pipe and no device, which may never end."""
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise BadInput(f"'{path}' cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise BadInput(f"'{path}' is {kind}; it must be a file.")


def text_of(path: Path) -> str:
    """Return the UTF-8 text of a plain file; raises BadInput for what is none or is larger than 64 MiB."""
    check_plain(path)
    with refusing(path, "text"):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(handle, "rb") as file:
            held = file.read(LARGEST_TEXT + 1)
        if len(held) > LARGEST_TEXT:
            raise ValueError(f"it has more than {LARGEST_TEXT:,} bytes")
        return held.decode()


def json_of(path: Path) -> Any:
    """Return what a plain file of JSON holds; raises BadInput for anything else, nested too deeply included."""
    text = text_of(path)
    with refusing(path, "JSON"):
        return json.loads(text)


def check_entries(file: zipfile.ZipFile) -> None:
    """Raise ValueError for an archive that can hold more than its own bytes, or two files of one name: none is written like that here."""
    entries = file.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise ValueError("its entries are compressed, which none that is written here is")
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("it holds two entries of one name")


def arrays_of(path: Path, what: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of numbers in a plain, uncompressed `.npz` file by their names; raises BadInput for a file that is no `what`."""
    check_plain(path)
    with refusing(path, what):
        with zipfile.ZipFile(path) as file:
            check_entries(file)
            size = sum(entry.file_size for entry in file.infolist())
        with np.load(path, allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in file.files}
        if sum(array.nbytes for array in found.values()) > size or any(array.dtype.kind not in "biuf" for array in found.values()):
            raise ValueError("it holds something else than arrays of numbers")
        return found


def array_of(path: Path, what: str) -> NDArray[Any]:
    """Return the array of numbers in a plain `.npy` file, mapped into memory; raises BadInput for a file that is no `what`."""
    check_plain(path)
    with refusing(path, what):
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.memmap) or found.dtype.kind not in "biuf" or not found.flags.c_contiguous:
            raise ValueError("it holds something else than rows of numbers")
        if found.offset + found.nbytes != path.stat().st_size:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, and its header speaks of {found.offset + found.nbytes:,}")
        return np.asarray(found)
