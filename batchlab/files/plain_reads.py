"""Rows from anywhere in a file, each by a plain read: compiled, since Python takes twice as long over it as the system."""

from typing import Any

from numba import njit, types

_pread: Any = types.ExternalFunction("pread", types.intp(types.intc, types.voidptr, types.uintp, types.int64))


@njit(cache=True, nogil=True)
def read_rows(file: Any, first: Any, stride: Any, size: Any, rows: Any, goal: Any) -> Any:  # pragma: no cover - compiled
    """Fill `goal`, bytes, with `size` bytes of each of the `rows`, which begin at byte `first` and lie `stride` bytes apart.

    Returns how many rows were read: fewer where the file ends before.
    """
    for number in range(len(rows)):
        done = 0
        while done < size:
            place = goal.ctypes.data + number * size + done
            got = _pread(file, place, size - done, first + rows[number] * stride + done)
            if got <= 0:
                return number
            done += got
    return len(rows)
