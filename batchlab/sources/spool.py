"""Rows of Python values kept as Arrow on disk, in types that grow while they are written and are the same at every read."""

import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from batchlab.errors import BadInput
from batchlab.sources.base import OnBadLine, Reading
from batchlab.sources.digests import content_digest, joint_digest
from batchlab.sources.places import Place

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_INTEGER = 2**63 - 1
_NUMBERS = ("bool", "int64", "double")


class Spool:
    """Takes chunks of rows and writes each with the types that fit all chunks so far; where a type grows, a new file begins."""

    def __init__(self, names: Sequence[str], folder: "TemporaryDirectory[str]") -> None:
        import pyarrow as pa

        self._names, self._folder = list(names), folder
        self._types: list[pa.DataType] = [pa.null()] * len(self._names)
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._parts: list[Path] = []
        self._rows = 0

    @property
    def schema(self) -> "pa.Schema":
        """The columns as known from the chunks so far."""
        import pyarrow as pa

        return pa.schema([pa.field(name, kind) for name, kind in zip(self._names, self._types, strict=True)])

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write a chunk."""
        import pyarrow as pa

        columns = list(zip(*rows, strict=True))
        types = [_wider(held, type_of(values)) for held, values in zip(self._types, columns, strict=True)]
        writer = self._writer
        if writer is None or types != self._types:
            self._types = types
            writer = self._writer = self._new_part()
        arrays = [array_of(values, kind) for values, kind in zip(columns, types, strict=True)]
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        self._rows += len(rows)

    def finished(self) -> "SpoolReading":
        """Close the files and return them, opened for reading."""
        if self._writer is not None:
            self._writer.close()
        return SpoolReading(self.schema, self._parts, self._rows, self._folder)

    def _new_part(self) -> "pa.ipc.RecordBatchFileWriter":
        from pyarrow import ipc

        if self._writer is not None:
            self._writer.close()
        self._parts.append(Path(self._folder.name) / f"{len(self._parts):06}.arrow")
        return ipc.new_file(self._parts[-1], self.schema, options=ipc.IpcWriteOptions(compression="lz4"))


class SpoolReading(Reading):
    """Spooled rows; the files go when this does."""

    def __init__(self, schema: "pa.Schema", parts: list[Path], rows: int, folder: "TemporaryDirectory[str]") -> None:
        self._schema, self._parts, self._rows, self._folder = schema, parts, rows, folder
        self._rows_done = 0
        self._fingerprint: str | None = None

    @property
    def schema(self) -> "pa.Schema":
        return self._schema

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            places = [Place.of(str(part)) for part in self._parts]
            self._fingerprint = joint_digest(str(self._schema), [content_digest(place, place.found(())[0]) for place in places])
        return self._fingerprint

    @property
    def row_count(self) -> int:
        return self._rows

    @property
    def size_bytes(self) -> int:
        return sum(part.stat().st_size for part in self._parts)

    @property
    def share_read(self) -> float:
        return self._rows_done / max(self._rows, 1)

    def batches(self, on_bad_line: OnBadLine) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa
        from pyarrow import ipc

        self._rows_done = 0
        for part in self._parts:
            with ipc.open_file(part) as held:
                for number in range(held.num_record_batches):
                    batch = held.get_batch(number)
                    columns = [_cast(column, field) for column, field in zip(batch.columns, self._schema, strict=True)]
                    yield pa.RecordBatch.from_arrays(columns, schema=self._schema)
                    self._rows_done += batch.num_rows


def type_of(values: Sequence[Any]) -> "pa.DataType":
    """Return the Arrow type that holds the values: Decimals and intervals (in seconds) as floats, what has no type of its own as text."""
    import pyarrow as pa

    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pa.null()
    if kinds <= {bool, int}:
        if int in kinds and max(abs(value) for value in values if value is not None) > LARGEST_INTEGER:
            return pa.float64()
        return pa.int64() if int in kinds else pa.bool_()
    if kinds <= {bool, int, float, Decimal} or kinds == {timedelta}:
        return pa.float64()
    if kinds <= {date, datetime}:
        zoned = {value.tzinfo is not None for value in values if isinstance(value, datetime)}
        known = {(): pa.date32(), (False,): pa.timestamp("us"), (True,): pa.timestamp("us", "UTC")}
        return known.get(tuple(zoned), pa.string())
    others = {frozenset({time}): pa.time64("us"), frozenset({bytes}): pa.binary()}
    return others.get(frozenset(kinds), pa.string())


def array_of(values: Sequence[Any], kind: "pa.DataType") -> "pa.Array":
    """Return the values as an array of the type, which is at least as wide as theirs."""
    import pyarrow as pa

    if pa.types.is_float64(kind):
        return pa.array([None if value is None else _number(value) for value in values], kind)
    if pa.types.is_string(kind):
        return pa.array([None if value is None else _text(value) for value in values], kind)
    return pa.array(values, kind)


def _wider(held: "pa.DataType", here: "pa.DataType") -> "pa.DataType":
    """Return the type that holds both: numbers make wider numbers, dates timestamps, and what goes together in no other way text."""
    import pyarrow as pa

    if held == here or pa.types.is_null(here):
        return held
    if pa.types.is_null(held):
        return here
    if str(held) in _NUMBERS and str(here) in _NUMBERS:
        return max(held, here, key=lambda kind: _NUMBERS.index(str(kind)))
    if {str(held), str(here)} == {"date32[day]", "timestamp[us]"}:
        return pa.timestamp("us")
    return pa.string()


def _cast(column: "pa.Array", field: "pa.Field") -> "pa.Array":
    import pyarrow as pa

    try:
        return column if column.type == field.type else column.cast(field.type, safe=False)
    except pa.ArrowException as error:
        raise BadInput(f"column '{field.name}' holds {column.type} in some rows and other values in others: {error}") from error


def _number(value: Any) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return json.dumps(value, default=str, sort_keys=True) if isinstance(value, dict | list) else str(value)
