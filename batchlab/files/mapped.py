"""Arrays in files that are larger than what a process may hold: they are mapped, but read plainly where it matters.

A page that was looked at counts as the process's memory, and the system maps its neighbours too: 64 KiB for one row, or 2 MiB where the
file lies in large folios.
"""

import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.errors import BatchlabError

LARGE_BYTES = 2**26
"""From so many bytes on a file that is mapped is read plainly."""
FAR_BYTES, ADVISES = 2**16, hasattr(os, "posix_fadvise")


def gathered(array: NDArray[Any], rows: NDArray[np.integer]) -> NDArray[Any]:
    """Return `array[rows]`; of a large array in a file by plain reads, so that no page of it comes into this process's memory.

    Raises BatchlabError where the file has been cut short.
    """
    mapped = _large_map(array)
    row = array[:1]
    if mapped is None or not row[0].flags.c_contiguous:
        return np.asarray(array[rows])
    from batchlab.files.plain_reads import read_rows

    found = np.empty((len(rows), *array.shape[1:]), array.dtype)
    numbers = np.asarray(rows, np.int64)
    numbers = np.where(numbers < 0, numbers + len(array), numbers)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(array):
        raise IndexError(f"rows {numbers.min()} to {numbers.max()} are not all in an array of {len(array)} rows.")
    with open(_path(mapped), "rb", buffering=0) as file:
        if ADVISES and len(rows) and int(np.ptp(numbers)) * array.strides[0] > FAR_BYTES * len(rows):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # what follows a row is not needed
        done = read_rows(file.fileno(), _first_byte(array, mapped), array.strides[0], row.nbytes, numbers, found.view(np.uint8).reshape(-1))
    if done < len(rows):
        raise BatchlabError(f"{mapped.filename} ends before its row {numbers[done]}: it was cut while it was read.")
    return found


def portion(array: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    """Return `array[start:stop]`; of a large array in a file as a copy, by plain reads."""
    mapped, wanted = _large_map(array), array[start:stop]
    if mapped is None or not wanted.flags.c_contiguous:
        return wanted
    with open(_path(mapped), "rb") as file:
        file.seek(_first_byte(wanted, mapped))
        found = np.fromfile(file, array.dtype, wanted.size)
    if len(found) < wanted.size:
        raise BatchlabError(f"{mapped.filename} ends before its row {min(stop, len(array))}: it was cut while it was read.")
    return found.reshape(wanted.shape)


def release(array: NDArray[Any]) -> None:
    """Give back the pages of a mapped array that were looked at; they are read again when somebody looks again."""
    mapped = _map_of(array)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def _large_map(array: NDArray[Any]) -> "np.memmap[Any, Any] | None":
    mapped = _map_of(array)
    return mapped if mapped is not None and mapped.nbytes >= LARGE_BYTES else None


def _map_of(array: NDArray[Any]) -> "np.memmap[Any, Any] | None":
    owner: Any = array
    while isinstance(owner, np.ndarray) and not (isinstance(owner, np.memmap) and isinstance(owner.base, mmap.mmap)):
        owner = owner.base
    return owner if isinstance(owner, np.memmap) else None


def _path(mapped: "np.memmap[Any, Any]") -> str:
    assert mapped.filename is not None
    return os.fspath(mapped.filename)


def _first_byte(array: NDArray[Any], mapped: "np.memmap[Any, Any]") -> int:
    """Return where in the file the array begins."""
    return int(mapped.offset) + array.ctypes.data - mapped.ctypes.data
