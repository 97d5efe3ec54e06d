"""Arrays in files: NumPy's `.npy` and `.npz`, and safetensors. An array `[rows]` is a column of its name, one `[rows, …]` a column for each
number of a row."""

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from batchlab.errors import BadInput
from batchlab.sources.base import OnBadLine
from batchlab.sources.digests import Memory
from batchlab.sources.files import FileReading, FileSource
from batchlab.sources.places import FoundFile, Place

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_NUMBERS = 1 << 22
MOST_COLUMNS = 2**14
"""An array's numbers are columns of a table, whose files and facts are made for thousands of them, not for millions."""
ALONE = "x"
"""The name of the array of a `.npy` file."""
MOST_HEADER = 1 << 24
"""A safetensors header is no longer; the format allows 100 MB."""
SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "U16": "<u2",
    "U32": "<u4",
    "BOOL": "|b1",
}


class Arrays(FileSource):
    """Array files whose arrays have one row for each row of the table."""

    kind: Literal["arrays"] = "arrays"

    endings: ClassVar[tuple[str, ...]] = (".npy", ".npz", ".safetensors")
    format: ClassVar[str] = "array"

    def read_at(self, place: Place, memory: Memory) -> "ArraysReading":
        return ArraysReading(self, place, self.files(place), memory)

    def columns(self, place: Place, files: list[FoundFile]) -> "pa.Schema":
        return _schema_of(place, files)[0]


class ArraysReading(FileReading):
    """Array files read one after another, mapped where they are neither compressed nor in an object store."""

    def __init__(self, source: Arrays, place: Place, files: list[FoundFile], memory: Memory) -> None:
        super().__init__(source, place, files, memory)
        self._schema, self._rows = _schema_of(place, files)

    @property
    def schema(self) -> "pa.Schema":
        return self._schema

    @property
    def row_count(self) -> int:
        return self._rows

    def batches_of(self, file: FoundFile, on_bad_line: OnBadLine) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        held = _arrays(self.place, file)
        count, each = _rows(held), block_rows(len(self._schema))
        for start in range(0, count, each):
            columns = list(columns_of_arrays(held, slice(start, start + each)).values())
            yield pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=self._schema)


def _schema_of(place: Place, files: list[FoundFile]) -> "tuple[pa.Schema, int]":
    """Return the columns, the same in every file, and all rows."""
    import pyarrow as pa

    schemas, rows = [], 0
    for file in files:
        with place.readable("arrays", file.path):
            held = _arrays(place, file)
            rows += _rows(held)
            schemas.append(pa.schema([(name, pa.array(values).type) for name, values in columns_of_arrays(held, slice(0, 1)).items()]))
    other = next((file for file, schema in zip(files, schemas, strict=True) if schema != schemas[0]), None)
    if other is not None:
        first, shown = place.shown_path(files[0].path), place.shown_path(other.path)
        raise BadInput(f"'{shown}' holds other arrays than '{first}'; all files need the same names, shapes and types.")
    return schemas[0], rows


def columns_of_arrays(arrays: Mapping[str, NDArray[Any]], rows: slice) -> dict[str, NDArray[Any]]:
    """Return columns of these rows by name: an array's own, or its name and a number's place in its row."""
    found = {}
    for name, values in arrays.items():
        if values.ndim == 1:
            found[name] = _plain(values[rows])
        else:
            part = values[rows]
            flat = part.reshape(len(part), -1).T
            found |= {f"{name}{place}": _plain(column) for place, column in enumerate(flat)}
    return found


def block_rows(columns: int) -> int:
    """Return how many rows of so many columns are read at once."""
    return max(1, BATCH_NUMBERS // max(columns, 1))


def check_width(what: str, shape: tuple[int, ...]) -> None:
    """Raise BadInput for a row of this shape that has more numbers than can be columns of a table."""
    if (width := math.prod(shape)) > MOST_COLUMNS:
        raise BadInput(f"{what} has {width:,} numbers {shape}; at most {MOST_COLUMNS:,} can be columns of a table.")


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers end to end in this machine's order of bytes, half precision as single."""
    dtype = np.dtype(np.float32) if column.dtype == np.float16 else column.dtype.newbyteorder("=")
    return np.ascontiguousarray(column, dtype)


def _rows(arrays: Mapping[str, NDArray[Any]]) -> int:
    return len(next(iter(arrays.values())))


def _arrays(place: Place, file: FoundFile) -> dict[str, NDArray[Any]]:
    """Return the file's arrays by name; raises BadInput for what is no table of rows."""
    shown, lower = place.shown_path(file.path), file.path.lower()
    with _unread(shown):
        if lower.endswith(".npz"):
            held = _of_npz(place, file)
        elif lower.endswith(".npy"):
            held = {ALONE: _npy(place, file)}
        else:
            held = _of_safetensors(place, file)
    shapes = ", ".join(f"{name} {values.shape}" for name, values in held.items())
    if not held or any(values.ndim == 0 for values in held.values()) or len({len(values) for values in held.values()}) > 1:
        raise BadInput(f"'{shown}' holds {shapes or 'no arrays'}; every array must have one row for each row of the table.")
    odd = [f"{name} ({values.dtype})" for name, values in held.items() if values.dtype.kind not in "biufUM"]
    if odd:
        raise BadInput(f"'{shown}' holds {', '.join(odd)}; arrays of numbers, text or dates are read.")
    if (width := sum(math.prod(values.shape[1:]) for values in held.values())) > MOST_COLUMNS:
        raise BadInput(f"a row of '{shown}' has {width:,} numbers ({shapes}); at most {MOST_COLUMNS:,} can be columns of a table.")
    return held


@contextmanager
def _unread(shown: str) -> Iterator[None]:
    """Turn what NumPy raises about a file that is no array file, or is cut off, into BadInput."""
    try:
        yield
    except (ValueError, EOFError, OSError, MemoryError, OverflowError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise BadInput(f"'{shown}' cannot be read as arrays: {(str(error).splitlines() or [type(error).__name__])[0][:200]}") from error


def _npy(place: Place, file: FoundFile) -> NDArray[Any]:
    """Return the one array, mapped where it is on a disk."""
    if place.is_local:
        found: NDArray[Any] = np.load(file.path, mmap_mode="r", allow_pickle=False)
        return found
    with place.filesystem.open_input_file(file.path) as source:
        loaded: NDArray[Any] = np.load(source, allow_pickle=False)
        return loaded


def _of_npz(place: Place, file: FoundFile) -> dict[str, NDArray[Any]]:
    with place.filesystem.open_input_file(file.path) as source, np.load(source, allow_pickle=False) as held:
        for member in held.zip.infolist():
            with held.zip.open(member) as opened:
                _check_size(member.filename, *_header(opened), member.file_size)
        return {name: held[name] for name in held.files}


def _header(opened: Any) -> tuple[tuple[int, ...], "np.dtype[Any]"]:
    """Return the shape and type that an array's header states."""
    version = np.lib.format.read_magic(opened)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(opened)
    return shape, dtype


def _check_size(name: str, shape: tuple[int, ...], dtype: "np.dtype[Any]", size: int) -> None:
    """Raise ValueError for an array that states more than its file holds: nothing is allocated for it."""
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"array '{name}' states {shape} of {dtype}, {math.prod(shape) * dtype.itemsize:,} bytes, and holds {size:,}")


def _of_safetensors(place: Place, file: FoundFile) -> dict[str, NDArray[Any]]:
    """Return the tensors: eight bytes of a length, a JSON header of so many bytes, and the tensors' bytes end to end."""
    with place.filesystem.open_input_file(file.path) as source:
        length = int.from_bytes(source.read(8), "little")
        if not 2 <= length <= min(file.size - 8, MOST_HEADER):
            raise ValueError(f"its header would have {length:,} bytes")
        header = json.loads(source.read(length))
        whole = (
            np.memmap(file.path, np.uint8, "r", 8 + length)
            if place.is_local and file.size > 8 + length
            else np.frombuffer(source.read(), np.uint8)
        )
    return {name: _tensor(name, facts, whole) for name, facts in header.items() if name != "__metadata__"}


def _tensor(name: str, facts: Any, whole: NDArray[np.uint8]) -> NDArray[Any]:
    kind, shape, (start, end) = facts["dtype"], tuple(facts["shape"]), facts["data_offsets"]
    if kind not in SAFETENSORS:
        raise ValueError(f"tensor '{name}' holds {kind}; {', '.join(SAFETENSORS)} are read")
    dtype = np.dtype(SAFETENSORS[kind])
    numbers = (*shape, start, end)
    if not all(type(number) is int and number >= 0 for number in numbers) or not start <= end <= len(whole):
        raise ValueError(f"tensor '{name}' states the bytes {start} to {end} of {len(whole):,}")
    if math.prod(shape) * dtype.itemsize != end - start:
        raise ValueError(f"tensor '{name}' states {shape} of {kind}, and {end - start:,} bytes")
    return whole[start:end].view(dtype).reshape(shape)
