"""Rows in files: mapped into memory for who looks at them anywhere, and read plainly for who knows which come next."""

import mmap
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.allowance import memory_limit
from batchlab.errors import BadInput, BatchlabError
from batchlab.files.mapped import gathered
from batchlab.strategies import Indices

SEEN_ROWS = 64
"""So many rows in their order tell that all are."""
ADVISES = hasattr(os, "posix_fadvise")


@dataclass(frozen=True)
class StoredRows:
    """Prepared training rows in files, too many for memory: `.npy`, row-major, features `[rows, inputs]` and target `[rows]`."""

    features: Path
    target: Path

    @cached_property
    def arrays(self) -> "tuple[np.memmap[Any, Any], np.memmap[Any, Any]]":
        """Memory maps of both files: nothing is read before somebody looks at it. Raises BadInput for files that do not belong together."""
        features, target = (_mapped(path) for path in (self.features, self.target))
        if features.ndim != 2 or target.shape != features.shape[:1] or not features.flags.c_contiguous:
            raise BadInput(
                f"{self.features} has shape {features.shape} and {self.target} has {target.shape}; "
                "features must be [rows, inputs], row after row, and the target [rows]. Prepare them again."
            )
        return features, target

    def release(self) -> None:
        """Give back the memory of mapped rows that were looked at; they are read again when somebody looks again."""
        self._advise("MADV_DONTNEED")

    def expect(self, rows: Indices) -> None:
        """Prepare the maps for somebody who looks at these rows next: one after the other, or anywhere.

        Rows anywhere come without their neighbours; of a table that no cache can hold, they are asked for all at once.
        """
        if np.array_equal(np.diff(rows[:SEEN_ROWS]), np.ones(len(rows[:SEEN_ROWS]) - 1)):
            self._advise("MADV_NORMAL")
            return
        self._advise("MADV_RANDOM")
        if sum(array.nbytes for array in self.arrays) > memory_limit():
            for path, mapped in zip((self.features, self.target), self.arrays, strict=True):
                with closing(RowFile(path, mapped)) as file:
                    file.expect(np.sort(rows).tolist(), 1)

    def _advise(self, advice: str) -> None:
        if hasattr(mmap, advice):
            for array in self.arrays:
                array._mmap.madvise(getattr(mmap, advice))  # type: ignore[attr-defined]

    def taken(self, rows: Indices) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return some rows from anywhere, as copies: mapped ones would bring their neighbours into memory."""
        for path, mapped in zip((self.features, self.target), self.arrays, strict=True):
            with closing(RowFile(path, mapped)) as file:
                file.expect(rows.tolist(), 1)
        features, target = (gathered(array, rows) for array in self.arrays)
        return features, target

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredRows, (self.features, self.target)  # a map would be pickled with all its rows


def _mapped(path: Path) -> "np.memmap[Any, Any]":
    try:
        # "c": what is written stays in memory; torch warns of arrays that cannot be written to
        rows = np.load(path, mmap_mode="c")
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as rows in .npy form ({error}); remove it, so that it is prepared again.") from error
    if not isinstance(rows, np.memmap):
        raise BadInput(f"{path} holds no array that can be mapped into memory; remove it, so that it is prepared again.")
    return rows


class RowFile:
    """Rows of an `.npy` file, by plain reads."""

    def __init__(self, path: Path, mapped: "np.memmap[Any, Any]") -> None:
        self.path, self.first_byte, self.row_bytes = path, int(mapped.offset), mapped[:1].nbytes
        self.descriptor = os.open(path, os.O_RDONLY)
        if ADVISES:
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # blocks are read whole; what follows them is not needed

    def expect(self, first_rows: Sequence[int], row_count: int) -> None:
        """Tell the system which rows will be read next, so that the disk has many reads to do at a time."""
        for first in first_rows if ADVISES else ():
            place = self.first_byte + first * self.row_bytes
            os.posix_fadvise(self.descriptor, place, row_count * self.row_bytes, os.POSIX_FADV_WILLNEED)

    def read(self, first_row: int, goal: NDArray[Any]) -> None:
        """Fill `goal` with the rows from `first_row` on; raise BatchlabError where the file ends before."""
        left, place = goal.data.cast("B"), self.first_byte + first_row * self.row_bytes
        while len(left):
            got = os.preadv(self.descriptor, [left], place)
            if not got:
                last, size = first_row + len(goal) - 1, os.fstat(self.descriptor).st_size
                raise BatchlabError(
                    f"{self.path} ends at byte {size}, but its rows {first_row} to {last} end at byte {place + len(left)}: "
                    "it was cut while it was read. Remove it, so that it is prepared again."
                )
            left, place = left[got:], place + got

    def close(self) -> None:
        os.close(self.descriptor)
