"""Arrays in files that are larger than what a process may hold: what is looked at does not stay in its memory.

A page that was looked at counts as the process's, and the system maps its neighbours too: 64 KiB for one row.
"""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGE_BYTES, GATHERED_ROWS = 2**26, 256
"""From so many bytes on, rows of a mapped array are gathered so many at a time (16 MiB of pages), which are given back in between."""
WALKED_BYTES = 2**23


def gathered(array: NDArray[Any], rows: NDArray[np.integer]) -> NDArray[Any]:
    """Return `array[rows]`; of a large array in a file no page stays in this process's memory."""
    if not _is_large(array):
        return np.asarray(array[rows])
    found = np.empty((len(rows), *array.shape[1:]), array.dtype)
    for start in range(0, len(rows), GATHERED_ROWS):
        found[start : start + GATHERED_ROWS] = array[rows[start : start + GATHERED_ROWS]]
        release(array)
    return found


def portion(array: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    """Return `array[start:stop]`; of a large array in a file as a copy, and no page stays in this process's memory."""
    if not _is_large(array):
        return array[start:stop]
    found = np.empty_like(array[start:stop], subok=False)
    for place, part in _pieces(array[start:stop]):
        found[place : place + len(part)] = part
        release(array)
    return found


def _pieces(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    rows = max(1, WALKED_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def release(array: NDArray[Any]) -> None:
    """Give back the pages of a mapped array; they are read again when somebody looks again. Other arrays are left alone."""
    handle = _map_of(array)
    if handle is not None and hasattr(mmap, "MADV_DONTNEED"):
        handle.madvise(mmap.MADV_DONTNEED)


def _is_large(array: NDArray[Any]) -> bool:
    return array.nbytes >= LARGE_BYTES and _map_of(array) is not None


def _map_of(array: NDArray[Any]) -> "mmap.mmap | None":
    mapped = array.base if isinstance(array.base, np.memmap) else array
    found: mmap.mmap | None = getattr(mapped, "_mmap", None)
    return found
