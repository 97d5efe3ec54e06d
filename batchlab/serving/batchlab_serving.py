"""Raw columns → packed columns → prediction. This file travels inside every saved model, so it needs numpy, pandas, pyarrow and torch only.

Packing a table and reading rows for a prediction go through the same functions here, so that both make the same numbers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["number", "boolean", "datetime", "category"]
Packed = NDArray[np.float32]
Flags = NDArray[np.bool_]

MISSING_WORDS = (
    *("", "#N/A", "#NA", "-nan", "-NaN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "?"),
    *("NAN", "none", "NONE", "#N/A N/A"),
)
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(?i:inf|infinity)$"
COMMA_NUMBER = r"^[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+)(,[0-9]+)?$"
DAY, WEEK, YEAR = 86_400e6, 7.0, 365.2425
"""A day in microseconds; a week and a year in days."""
DATE_PARTS = ("days", "year_sin", "year_cos", "week_sin", "week_cos")
TIME_PARTS = ("day_sin", "day_cos")
WHOLE = 2.0**53
ROWS_AT_ONCE = 8192


class UnusableRows(ValueError):
    """The rows do not fit the model: a column is missing or holds what it did not hold in training."""


@dataclass(frozen=True)
class PackedColumn:
    """How one raw column becomes packed ones.

    `text` says that the values came as text (CSV) and are read from it: numbers with `decimal` as their point, dates in the first of
    `formats` that fits (strptime's, or ISO8601). `parts` are those of a date (`days` since 1970 and phases of the year, week and day);
    `vocabulary` holds a category's values, the position being the packed code. `offset` is subtracted from numbers, which float32 could
    not tell apart otherwise (times in seconds since 1970, say); `integer` says that their type was one of whole numbers.
    """

    name: str
    kind: Kind
    text: bool = False
    integer: bool = False
    offset: float = 0.0
    decimal: Literal[".", ","] = "."
    formats: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()

    @property
    def packed_names(self) -> tuple[str, ...]:
        """The names of its packed columns."""
        return tuple(f"{self.name}.{part}" for part in self.parts) or (self.name,)


def packed(values: Any, column: PackedColumn) -> tuple[Packed, Flags]:
    """Return an Arrow array as packed columns `[rows, parts]`, and a flag `[rows]` for values that cannot be read.

    Missing and infinite values are NaN; a category outside the vocabulary has the code that follows the last.
    """
    found, unreadable = exact(values, column)
    return narrowed(found, column.offset), unreadable


def exact(values: Any, column: PackedColumn) -> tuple[NDArray[np.float64], Flags]:
    """Return an Arrow array as exact numbers `[rows, parts]`, before the offset, and a flag `[rows]` for values that cannot be read."""
    return {"number": _numbers, "boolean": _booleans, "datetime": _dates, "category": _codes}[column.kind](values, column)


def narrowed(found: NDArray[np.float64], offset: float | NDArray[np.float64]) -> Packed:
    """Return exact numbers less their offset in float32, NaN where they are not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.isfinite(found), np.asarray(found, np.float64) - offset, np.nan).astype(np.float32)


def numbers(values: Any, column: PackedColumn) -> tuple[NDArray[np.float64], Flags]:
    """Return an Arrow array as exact numbers `[rows]`, NaN for missing, and a flag for values that are no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not is_text(values.type):
        if pa.types.is_boolean(values.type):
            values = values.cast("int8")
        if not pa.types.is_floating(values.type) or values.null_count:
            values = values.cast("float64", safe=False)
        return np.asarray(values.to_numpy(zero_copy_only=False)), np.zeros(len(values), bool)
    words = without_missing(values)
    if column.decimal == ",":
        fits = pc.fill_null(pc.match_substring_regex(words, COMMA_NUMBER), False)
        words = pc.replace_substring(pc.replace_substring(words, ".", ""), ",", ".")
    else:
        try:
            return np.asarray(words.cast("float64").to_numpy(zero_copy_only=False)), np.zeros(len(values), bool)
        except pa.ArrowInvalid:
            fits = pc.fill_null(pc.match_substring_regex(words, NUMBER), False)
    readable = pc.utf8_ltrim(pc.if_else(fits, words, pa.scalar(None, words.type)), characters="+")
    found = np.asarray(readable.cast("float64").to_numpy(zero_copy_only=False))
    unreadable = pc.and_(pc.is_valid(words), pc.invert(fits))
    return found, np.asarray(unreadable.to_numpy(zero_copy_only=False), bool)


def _numbers(values: Any, column: PackedColumn) -> tuple[NDArray[np.float64], Flags]:
    found, unreadable = numbers(values, column)
    return found[:, None], unreadable


def _booleans(values: Any, column: PackedColumn) -> tuple[NDArray[np.float64], Flags]:
    import pyarrow.compute as pc

    if not is_text(values.type):
        return _numbers(values, column)
    words = pc.utf8_lower(without_missing(values))
    found = np.full(len(values), np.nan)
    for word, value in (("true", 1.0), ("false", 0.0)):
        found[np.asarray(pc.fill_null(pc.equal(words, word), False).to_numpy(zero_copy_only=False), bool)] = value
    known = np.asarray(pc.is_valid(words).to_numpy(zero_copy_only=False), bool)
    return found[:, None], known & np.isnan(found)


def _dates(values: Any, column: PackedColumn) -> tuple[NDArray[np.float64], Flags]:
    micros, unreadable = instants(values, column.formats)
    days = np.where(micros == np.iinfo(np.int64).min, np.nan, micros / DAY)
    phases = {"year": 2 * np.pi * days / YEAR, "week": 2 * np.pi * days / WEEK, "day": 2 * np.pi * (days % 1.0)}
    found = {"days": days}
    for name, phase in phases.items():
        found |= {f"{name}_sin": np.sin(phase), f"{name}_cos": np.cos(phase)}
    return np.stack([found[part] for part in column.parts], axis=1), unreadable


def instants(values: Any, formats: Sequence[str] = ()) -> tuple[NDArray[np.int64], Flags]:
    """Return an Arrow array of dates as microseconds since 1970 in UTC `[rows]`, int64's least for missing, and a flag for what is no date.

    A time of day counts from 1970-01-01. Text is read in the first of the `formats` that fits.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    missing = np.iinfo(np.int64).min
    if is_text(values.type):
        return _instants_of_text(without_missing(values), formats)
    if pa.types.is_time(values.type):
        values = values.cast(pa.time64("us"), safe=False).cast("int64")
    else:
        values = values.cast(pa.timestamp("us", getattr(values.type, "tz", None)), safe=False).cast("int64")
    return np.asarray(pc.fill_null(values, missing).to_numpy(zero_copy_only=False)), np.zeros(len(values), bool)


def _instants_of_text(words: Any, formats: Sequence[str]) -> tuple[NDArray[np.int64], Flags]:
    import pandas as pd

    series = words.to_pandas().astype("object")
    known = series.notna().to_numpy()
    found = np.full(len(series), np.iinfo(np.int64).min)
    waiting = known.copy()
    for style in formats:
        if not waiting.any():
            break
        read = pd.to_datetime(series[waiting], format=style, errors="coerce", utc=True)
        fits = read.notna().to_numpy()
        places = np.flatnonzero(waiting)[fits]
        found[places] = read[fits].dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
        waiting[places] = False
    return found, waiting


def _codes(values: Any, column: PackedColumn) -> tuple[NDArray[np.float64], Flags]:
    import pyarrow as pa
    import pyarrow.compute as pc

    words = without_missing(as_words(values))
    codes = pc.index_in(words, value_set=pa.array(column.vocabulary, words.type))
    found = pc.fill_null(codes, len(column.vocabulary)).cast("float64").to_numpy(zero_copy_only=False)
    missing = np.asarray(pc.is_null(words).to_numpy(zero_copy_only=False), bool)
    return np.where(missing, np.nan, found)[:, None], np.zeros(len(values), bool)


def as_words(values: Any) -> Any:
    """Return an Arrow array of any plain type as text, whole numbers without a decimal point."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type):
        exact = np.asarray(values.cast("float64").to_numpy(zero_copy_only=False))
        whole = pa.array(np.isfinite(exact) & (np.floor(exact) == exact) & (np.abs(exact) < WHOLE))
        texts = pa.array(np.where(np.asarray(whole), exact, 0).astype(np.int64)).cast("string")
        return pc.if_else(whole, texts, values.cast("float64").cast("string"))
    return values if is_text(values.type) else values.cast("string")


def without_missing(words: Any) -> Any:
    """Return text without blanks around it, and null where it stands for a missing value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(words)
    missing = pc.is_in(trimmed, value_set=pa.array(MISSING_WORDS, trimmed.type))
    return pc.if_else(missing, pa.scalar(None, trimmed.type), trimmed)


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is text."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def frame_packed(frame: Any, columns: Sequence[PackedColumn]) -> Packed:
    """Return a data frame's rows `[rows, packed columns]`, whatever the order of its columns.

    Raises UnusableRows that names every column that is missing, of another type than in training, or holds what cannot be read.
    """
    absent = [f"'{column.name}'" for column in columns if column.name not in frame.columns]
    if absent:
        raise UnusableRows(f"the rows lack column {', '.join(absent)}; the model was trained on {', '.join(c.name for c in columns)}.")
    found, problems = [], []
    for column in columns:
        values = _arrow(frame[column.name])
        problem = _problem(values.type, column)
        if problem is None:
            part, unreadable = packed(values, column)
            found.append(part)
            problem = _unread(values, unreadable, column) if unreadable.any() else None
        problems += [f"column '{column.name}' {problem}"] if problem else []
    if problems:
        raise UnusableRows("; ".join(problems) + ".")
    return np.concatenate(found, axis=1) if found else np.zeros((len(frame), 0), np.float32)


def _arrow(series: Any) -> Any:
    """Return a column of a data frame as an Arrow array; one of objects of several types as text."""
    import pyarrow as pa

    try:
        values = pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        values = pa.array([None if value is None or value != value else str(value) for value in series], pa.string())
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _problem(kind: Any, column: PackedColumn) -> str | None:
    """Say what is wrong with a column of that Arrow type; None for nothing."""
    import pyarrow as pa

    if pa.types.is_null(kind):
        return None
    is_date = pa.types.is_temporal(kind)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)
    fits = {
        "number": is_number or (column.text and is_text(kind)),
        "boolean": is_number or (column.text and is_text(kind)),
        "datetime": is_date or (column.text and is_text(kind)),
        "category": is_text(kind) or is_number,
    }
    wanted = {"number": "numbers", "boolean": "true and false", "datetime": "dates", "category": "categories"}[column.kind]
    return None if fits[column.kind] else f"holds {kind}, but the model was trained on {wanted}"


def _unread(values: Any, unreadable: Flags, column: PackedColumn) -> str:
    places = np.flatnonzero(unreadable)
    shown = ", ".join(repr(values[int(place)].as_py()) for place in places[:3])
    what = {"number": "a number", "boolean": "true or false", "datetime": f"a date like {', '.join(column.formats)}"}[column.kind]
    return f"holds {len(places)} values that are not {what}: {shown} (row {places[0]} first)"


class Served:
    """A saved model: raw rows in, predictions out."""

    def __init__(self, columns: Sequence[PackedColumn], graph: Any) -> None:
        self.columns, self.graph = tuple(columns), graph

    def predict(self, frame: Any, params: dict[str, Any] | None = None) -> NDArray[np.float64]:
        """Return predictions `[rows, 1]` in the target's unit, or probabilities `[rows, classes]`, in portions: memory stays bounded."""
        import torch

        packed_rows = torch.from_numpy(frame_packed(frame, self.columns))
        with torch.no_grad():
            portions = [self.graph(part) for part in torch.split(packed_rows, ROWS_AT_ONCE)] if len(packed_rows) else []
        return torch.cat(portions).numpy() if portions else np.zeros((0, 1))

    def get_raw_model(self) -> Any:
        """Return the graph from packed columns to predictions; MLflow asks for it by this name."""
        return self.graph


def _load_pyfunc(path: str) -> Served:
    """Open the model in the folder `path`; MLflow calls this."""
    import torch

    folder = Path(path)
    described: list[dict[str, Any]] = json.loads((folder / "columns.json").read_text())
    tuples: list[dict[str, Any]] = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in one.items()} for one in described
    ]
    columns = [PackedColumn(**one) for one in tuples]
    return Served(columns, torch.export.load(folder / "model.pt2").module())
