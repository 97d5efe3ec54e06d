"""Raw columns → packed columns → prediction. This file travels inside every saved model, so it needs numpy, pandas, pyarrow and torch only.

Packing a table and reading rows for a prediction go through the same functions here, so that both make the same numbers.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["number", "boolean", "datetime", "category"]
DecimalSign = Literal[".", ","]
Packed = NDArray[np.float32]
Flags = NDArray[np.bool_]

MISSING_WORDS = (
    *("", "#N/A", "#NA", "-nan", "-NaN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "?"),
    *("NAN", "none", "NONE", "#N/A N/A", "-", "--"),
)
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(?i:inf|infinity)$"
GROUPED_NUMBER = r"^[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?$"
COMMA_NUMBER = r"^[+-]?(([1-9][0-9]{0,2}(\.[0-9]{3})+|[0-9]+)(,[0-9]*)?|,[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(?i:inf|infinity)$"
GROUPINGS = {" ": r"[ \x{A0}\x{202F}\x{2009}]", "'": "['\u2019]"}
"""What separates thousands beside commas and points: blanks of any width, and apostrophes."""
DAY, WEEK, YEAR = 86_400e6, 7.0, 365.2425
"""A day in microseconds; a week and a year in days."""
DATE_PARTS = ("days", "year_sin", "year_cos", "week_sin", "week_cos")
TIME_PARTS = ("day_sin", "day_cos")
FARTHEST = 280_000 * YEAR * DAY
WHOLE = 2.0**53
PERIODS, CLOCKS = "pandas.period", ("h", "min", "s", "ms", "us", "ns")
"""The Arrow name of pandas periods, and those of their frequencies that divide a day."""
SEQUENCE = "sequence.json"
WANTED = {"number": "numbers", "boolean": "true and false", "datetime": "dates", "category": "categories"}
ROWS_AT_ONCE, PACKED_AT_ONCE = 4096, 16_384
"""So many rows go through the graph, and are packed, at once: what is made of them stays in the processor's cache."""


class UnusableRows(ValueError):
    """The rows do not fit the model: a column is missing or holds what it did not hold in training."""


@dataclass(frozen=True)
class PackedColumn:
    """How one raw column becomes packed ones.

    `text` says that the values came as text (CSV) and are read from it: numbers with `decimal` as their point, dates in the first of
    `formats` that fits (strptime's, or ISO8601). `parts` are those of a date (`days` since 1970 and phases of the year, week and day);
    `vocabulary` holds a category's values, the position being the packed code. `offset` is subtracted from numbers, which float32 could
    not tell apart otherwise (times in seconds since 1970, say); `integer` says that their type was one of whole numbers. What is written
    like one of `missing`, or is the same number, is missing. Text of numbers may carry `unit`, a currency's sign or % (which all
    must carry), and blanks or apostrophes for `grouping` thousands.
    """

    name: str
    kind: Kind
    text: bool = False
    integer: bool = False
    offset: float = 0.0
    decimal: DecimalSign = "."
    formats: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unit: str = ""
    grouping: str = ""

    @property
    def packed_names(self) -> tuple[str, ...]:
        """The names of its packed columns."""
        return tuple(f"{self.name}.{part}" for part in self.parts) or (self.name,)


@dataclass(frozen=True)
class InSequence:
    """How rows follow each other, for a model that sees several: its last `rows` of a `group` (a raw column), in the order of `time`, and
    predicts the target `horizon` rows later. A step in time beyond the `gap` ends a run of rows, and so does a row in which
    the target's `own_past`, a column, is missing; where a name or number is None, nothing tells groups, time or gaps."""

    rows: int
    horizon: int
    gap: float | None
    time: PackedColumn | None
    group: str | None
    own_past: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The raw columns that tell group and order."""
        return tuple(name for name in (self.group, self.time and self.time.name) if name)


def packed(values: Any, column: PackedColumn) -> tuple[Packed, Flags]:
    """Return an Arrow array as packed columns `[rows, parts]`, and a flag `[rows]` for values that cannot be read.

    Missing and infinite values are NaN; a category outside the vocabulary has the code that follows the last.
    """
    found, unreadable = exact(values, column)
    return narrowed(found, column.offset), unreadable


def exact(values: Any, column: PackedColumn) -> tuple[NDArray[np.float64], Flags]:
    """Return an Arrow array as exact numbers `[rows, parts]`, before the offset, and a flag `[rows]` for values that cannot be read."""
    if column.missing:
        values = without_given(values, column.missing)
    return {"number": _numbers, "boolean": _booleans, "datetime": _dates, "category": _codes}[column.kind](values, column)


def narrowed(found: NDArray[np.float64], offset: float | NDArray[np.float64]) -> Packed:
    """Return exact numbers less their offset in float32, NaN where they are not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        short = np.subtract(found, np.asarray(offset, np.float64), dtype=np.float64).astype(np.float32)
    short[~np.isfinite(found)] = np.nan
    return short


def numbers(values: Any, column: PackedColumn) -> tuple[NDArray[np.float64], Flags]:
    """Return an Arrow array as exact numbers `[rows]`, NaN for missing, and a flag for values that are no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not is_text(values.type):
        if pa.types.is_duration(values.type):
            return seconds(values), np.zeros(len(values), bool)
        if pa.types.is_boolean(values.type):
            values = values.cast("int8")
        if not pa.types.is_floating(values.type) or values.null_count:
            values = values.cast("float64", safe=False)
        return np.asarray(values.to_numpy(zero_copy_only=False)), np.zeros(len(values), bool)
    if column.unit or column.grouping:
        words = without_missing(values)
        bare, fits = undressed(words, column.unit, column.grouping)
        found, unread = numbers(bare, replace(column, unit="", grouping=""))
        return np.where(fits, found, np.nan), np.asarray(pc.is_valid(words).to_numpy(zero_copy_only=False), bool) & (unread | ~fits)
    words, plain = values, plain_numbers(values) if column.decimal == "." else None
    if plain is None:
        words = without_missing(values)
        plain = plain_numbers(words) if column.decimal == "." else None
    if plain is not None:
        return plain, np.zeros(len(values), bool)
    fits = matching(words, COMMA_NUMBER if column.decimal == "," else f"{NUMBER}|{GROUPED_NUMBER}")
    readable = pc.utf8_ltrim(pc.if_else(pa.array(fits), words, pa.scalar(None, words.type)), characters="+")
    readable = pc.replace_substring(readable, "." if column.decimal == "," else ",", "")
    if column.decimal == ",":
        readable = pc.replace_substring(readable, ",", ".")
    found = np.asarray(readable.cast("float64").to_numpy(zero_copy_only=False))
    return found, np.asarray(pc.is_valid(words).to_numpy(zero_copy_only=False), bool) & ~fits


def undressed(words: Any, unit: str, grouping: str) -> tuple[Any, Flags]:
    """Return text of numbers without the unit's sign and without what groups thousands, and a flag `[rows]` for what is such a number.

    An amount of money in brackets is negative; every percentage carries its sign, since 12 could be 12% or 1200%.
    """
    import pyarrow.compute as pc

    blank, number = f"{GROUPINGS[' ']}?", r"[0-9.,]+(?:[eE][+-]?[0-9]+)?"
    if grouping:
        number = f"[1-9][0-9]{{0,2}}(?:{GROUPINGS[grouping]}[0-9]{{3}})+(?:[.,][0-9]*)?|{number}"
    sign = re.escape(unit)
    if unit == "%":
        pattern = f"^([+-]?)()({number}){blank}%$"
    elif unit:
        words = pc.replace_substring_regex(words, r"^\(([^()+-]*)\)$", r"-\1")
        pattern = f"^([+-]?){blank}(?:{sign}{blank})?([+-]?)({number})(?:{blank}{sign})?$"
    else:
        pattern = f"^([+-]?)()({number})$"
    fits = matching(words, pattern)
    bare = pc.replace_substring_regex(words, pattern, r"\1\2\3")
    return (pc.replace_substring_regex(bare, GROUPINGS[grouping], "") if grouping else bare), fits


def number_words(column: PackedColumn) -> str:
    """Return what a column of numbers holds, for people."""
    return f"a number in {column.unit}" if column.unit else "a number"


def seconds(values: Any) -> NDArray[np.float64]:
    """Return durations as seconds `[rows]`, NaN for missing."""
    import pyarrow.compute as pc

    counts = pc.fill_null(values.cast("int64"), 0).to_numpy(zero_copy_only=False)
    known = np.asarray(pc.is_valid(values).to_numpy(zero_copy_only=False), bool)
    return np.where(known, counts / {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[values.type.unit], np.nan)


def plain_numbers(words: Any) -> NDArray[np.float64] | None:
    """Return text as numbers `[rows]`, NaN for null, where every other value is a number in plain writing without blanks; else None."""
    import pyarrow as pa

    try:
        found = np.asarray(words.cast("float64").to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        return None
    strange = np.count_nonzero(np.isnan(found)) > words.null_count  # Arrow reads "nAn" and "nan(1)", which nobody means as a number
    return None if strange else found


def matching(words: Any, pattern: str) -> Flags:
    """Return which values of text `[rows]` match the pattern; missing ones do not."""
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(pc.match_substring_regex(words, pattern), False).to_numpy(zero_copy_only=False), bool)


def _numbers(values: Any, column: PackedColumn) -> tuple[NDArray[np.float64], Flags]:
    found, unreadable = numbers(values, column)
    return found[:, None], unreadable


def _booleans(values: Any, column: PackedColumn) -> tuple[NDArray[np.float64], Flags]:
    import pyarrow.compute as pc

    if not is_text(values.type):
        given, _ = numbers(values, column)
        return given[:, None], ~np.isnan(given) & (given != 0) & (given != 1)
    words = pc.utf8_lower(without_missing(values))
    found = np.full(len(values), np.nan)
    for word, value in (("true", 1.0), ("false", 0.0)):
        found[np.asarray(pc.fill_null(pc.equal(words, word), False).to_numpy(zero_copy_only=False), bool)] = value
    known = np.asarray(pc.is_valid(words).to_numpy(zero_copy_only=False), bool)
    return found[:, None], known & np.isnan(found)


def _dates(values: Any, column: PackedColumn) -> tuple[NDArray[np.float64], Flags]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_text(values.type):  # pandas, and so JSON made by MLflow, writes a missing date as NaT
        values = pc.if_else(pc.equal(values, "NaT"), pa.scalar(None, values.type), values)
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
        values, too_far = values.cast(pa.time64("us"), safe=False), np.zeros(len(values), bool)
    else:
        too_far = _too_far(values)
        values = values.cast(pa.timestamp("us", getattr(values.type, "tz", None)), safe=False)
    found = np.asarray(pc.fill_null(values.cast("int64"), missing).to_numpy(zero_copy_only=False))
    return np.where(too_far, missing, found), too_far


def _too_far(values: Any) -> Flags:
    """Return which dates `[rows]` int64 may not hold in microseconds: a cast would make others of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_date32(values.type) or getattr(values.type, "unit", "ms") in ("s", "ms")):
        return np.zeros(len(values), bool)
    counts = pc.fill_null(values.cast("int32" if pa.types.is_date32(values.type) else "int64"), 0).to_numpy(zero_copy_only=False)
    step = DAY if pa.types.is_date32(values.type) else 1e6 if getattr(values.type, "unit", "ms") == "s" else 1e3
    return np.asarray(np.abs(counts.astype(np.float64)) * step > FARTHEST)


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

    words = without_missing(_spelled(values, column.vocabulary) if pa.types.is_boolean(values.type) else as_words(values))
    codes = pc.index_in(words, value_set=pa.array(column.vocabulary, words.type))
    found = pc.fill_null(codes, len(column.vocabulary)).cast("float64").to_numpy(zero_copy_only=False)
    missing = np.asarray(pc.is_null(words).to_numpy(zero_copy_only=False), bool)
    return np.where(missing, np.nan, found)[:, None], np.zeros(len(values), bool)


def _spelled(values: Any, vocabulary: Sequence[str]) -> Any:
    """Return booleans as text, spelled as in the vocabulary: a text file's may be `True` or `TRUE`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    yes, no = (next((held for held in vocabulary if held.lower() == word), word) for word in ("true", "false"))
    return pc.if_else(values, pa.scalar(yes), pa.scalar(no))


def as_words(values: Any) -> Any:
    """Return an Arrow array of any plain type as text: whole numbers without a decimal point, dates alike whatever their unit."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        texts = values.cast(pa.timestamp("us", getattr(values.type, "tz", None)), safe=False).cast(pa.timestamp("us")).cast("string")
        return pc.replace_substring_regex(texts, r"( 00:00:00)?\.000000$", "")
    if pa.types.is_duration(values.type):
        values = pa.array(seconds(values), from_pandas=True)
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


def without_given(values: Any, missing: Sequence[str]) -> Any:
    """Return an Arrow array with null for what is written like one of `missing`, or is the same number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = [float(word) for word in missing if re.match(NUMBER, word)]
    if is_text(values.type):
        trimmed = pc.utf8_trim_whitespace(values)
        given = pc.is_in(trimmed, value_set=pa.array(missing, trimmed.type))
        if numbers and bool(pc.any(alike := pc.match_substring_regex(trimmed, NUMBER)).as_py()):
            read = pc.if_else(alike, pc.utf8_ltrim(trimmed, characters="+"), pa.scalar(None, trimmed.type)).cast("float64")
            given = pc.or_(given, pc.is_in(read, value_set=pa.array(numbers)))
    elif numbers and (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)):
        kind = pa.float32() if pa.types.is_float32(values.type) else pa.float64()  # -999.9 in short is another number
        given = pc.is_in(values.cast(kind, safe=False), value_set=pa.array(np.array(numbers, kind.to_pandas_dtype())))
    else:
        return values
    return pc.if_else(pc.fill_null(given, False), pa.scalar(None, values.type), values)


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is text."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


@dataclass(frozen=True)
class _Rows:
    """Raw rows of any kind: their columns' names, how many rows there are, a column as an Arrow array, and the first row's number."""

    names: Sequence[str]
    count: int
    column: Callable[[str], Any]
    first: int = 0


def frame_packed(frame: Any, columns: Sequence[PackedColumn]) -> Packed:
    """Return a data frame's rows `[rows, packed columns]`, whatever the order of its columns.

    Raises UnusableRows that names every column that is missing, of another type than in training, or holds what cannot be read.
    """
    return _packed_rows(_of_frame(frame), columns)


def batch_packed(batch: Any, columns: Sequence[PackedColumn], first_row: int = 0) -> Packed:
    """Do as `frame_packed` does with an Arrow batch (or table), whose first row has the number `first_row`."""
    return _packed_rows(_of_batch(batch, first_row), columns)


def _of_frame(frame: Any) -> _Rows:
    return _Rows(list(frame.columns), len(frame), lambda name: _arrow(frame[name]))


def _of_batch(batch: Any, first_row: int) -> _Rows:
    return _Rows(batch.schema.names, batch.num_rows, lambda name: _plain(batch.column(name)), first_row)


def in_sequence(rows: _Rows, sequence: InSequence, holes: Flags) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows' numbers by group and time `[rows]`, and how many are before each in its run, in that order. The `holes` `[rows]`
    end a run.

    Raises UnusableRows where group or time are not there or cannot be read, and for rows of a group that share a moment.
    """
    absent = [f"'{name}'" for name in sequence.names if name not in rows.names]
    if absent:
        raise UnusableRows(f"the rows lack column {', '.join(absent)}, which says how they follow each other.")
    groups, times = np.zeros(rows.count, np.int64), np.arange(rows.count, dtype=np.float64)
    if sequence.group is not None:
        groups = (
            as_words(rows.column(sequence.group)).dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        )
        if (groups < 0).any():
            raise UnusableRows(f"column '{sequence.group}' is missing in row {rows.first + int(np.argmin(groups))}.")
    if sequence.time is not None:
        times = _moments(rows, sequence.time)
    order = np.lexsort((times, groups))
    begins = np.diff(groups[order], prepend=-1) != 0
    steps = np.diff(times[order].astype(np.float64), prepend=-np.inf)
    if (same := np.flatnonzero(~begins & (steps == 0))).size:
        of = f" of one '{sequence.group}'" if sequence.group else ""
        first, second = sorted(int(order[place]) + rows.first for place in (same[0] - 1, same[0]))
        raise UnusableRows(f"rows {first} and {second}{of} have the same moment, so that their order is not known; remove repeats.")
    if sequence.gap is not None:
        begins |= steps > sequence.gap
    begins |= holes[order] | np.append(False, holes[order][:-1])[: rows.count]
    begins[:1] = True
    starts = np.flatnonzero(begins)
    return order, np.arange(rows.count) - np.repeat(starts, np.diff(starts, append=rows.count))


def _moments(rows: _Rows, column: PackedColumn) -> NDArray[Any]:
    """Return the moments of rows: microseconds since 1970 of dates, else numbers."""
    values = rows.column(column.name)
    if column.kind == "datetime":
        found, unread = instants(values, (*column.formats, "ISO8601"))
        unread = unread | (found == np.iinfo(np.int64).min)
    else:
        found, unread = numbers(values, column)  # type: ignore[assignment]
        unread = unread | ~np.isfinite(found)
    if unread.any():
        place = int(np.argmax(unread))
        raise UnusableRows(f"time '{column.name}' of row {rows.first + place} is {shown(values[place])}, which tells no moment.")
    return found


def _packed_rows(rows: _Rows, columns: Sequence[PackedColumn]) -> Packed:
    _check_names(rows.names, columns)
    found = np.empty((rows.count, sum(len(column.packed_names) for column in columns)), np.float32)
    problems, place = [], 0
    for column in columns:
        values = rows.column(column.name)
        problem, width = _problem(values.type, column), len(column.packed_names)
        if problem is None:
            # dates sent as text (in JSON, or read without parsing) are ISO's, whatever they were trained from
            found[:, place : place + width], unreadable = packed(values, replace(column, formats=(*column.formats, "ISO8601")))
            problem = _unread(values, unreadable, column, rows.first) if unreadable.any() else None
        problems += [f"column '{column.name}' {problem}"] if problem else []
        place += width
    if problems:
        raise UnusableRows("; ".join(problems) + ".")
    return found


def _check_names(names: Sequence[str], columns: Sequence[PackedColumn]) -> None:
    """Raise UnusableRows unless every column is there, once."""
    absent = [f"'{column.name}'" for column in columns if column.name not in names]
    if absent:
        raise UnusableRows(f"the rows lack column {', '.join(absent)}; the model was trained on {', '.join(c.name for c in columns)}.")
    twice = [f"'{column.name}'" for column in columns if names.count(column.name) > 1]
    if twice:
        raise UnusableRows(f"the rows have column {', '.join(twice)} more than once; which of them is meant?")


def _arrow(series: Any) -> Any:
    """Return a column of a data frame as an Arrow array; one of objects of several types, or of no type of Arrow's, as text."""
    import pandas as pd
    import pyarrow as pa

    try:
        if isinstance(series.dtype, pd.SparseDtype):
            series = series.sparse.to_dense()
        if isinstance(series.dtype, pd.PeriodDtype):
            series = series.dt.to_timestamp()
        values = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        values = pa.array([_text(value) for value in series], pa.string())
    return _plain(values)


def _plain(values: Any) -> Any:
    """Return a column as one Arrow array of the values themselves: neither chunks, nor a dictionary, nor views."""
    import pyarrow as pa

    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    values = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
    if (frequency := frequency_of(values.type)) is not None:
        return period_starts(values.storage, frequency)
    return values.cast("string") if pa.types.is_string_view(values.type) else values


def frequency_of(kind: Any, metadata: Any = None) -> str | None:
    """Return the frequency of pandas periods by their Arrow type, or by what a field of whole numbers says of itself; None for others."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return str(getattr(kind, "freq", "")) or None if kind.extension_name == PERIODS else None
    known = metadata or {}
    if known.get(b"ARROW:extension:name") != PERIODS.encode():
        return None
    return str(json.loads(known[b"ARROW:extension:metadata"])["freq"])


def starts_type(frequency: str) -> Any:
    """Return the Arrow type of the starts of periods: days where none begins within one."""
    import pyarrow as pa

    return pa.timestamp("us") if frequency.lstrip("0123456789").split("-")[0] in CLOCKS else pa.date32()


def period_starts(ordinals: Any, frequency: str) -> Any:
    """Return periods, as Arrow array of their ordinals, as when they begin."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = np.asarray(pc.fill_null(ordinals.cast("int64"), 0).to_numpy(zero_copy_only=False))
    starts = pd.PeriodIndex.from_ordinals(counts, freq=frequency).to_timestamp()  # type: ignore[attr-defined]
    made = pc.if_else(pc.is_valid(ordinals), pa.array(starts), pa.scalar(None, pa.array(starts).type))
    return made.cast(starts_type(frequency), safe=False)


def _text(value: Any) -> str | None:
    """Return one object as text; None where it stands for a missing value."""
    import pandas as pd

    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    return str(value).encode("utf-8", "backslashreplace").decode()


def _problem(kind: Any, column: PackedColumn) -> str | None:
    """Say what is wrong with a column of that Arrow type; None for nothing."""
    import pyarrow as pa

    if pa.types.is_null(kind):
        return None
    is_day = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    is_date = is_day or (pa.types.is_time(kind) and "days" not in column.parts)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)
    is_number = is_number or pa.types.is_duration(kind)
    fits = {
        "number": is_number or is_text(kind),
        "boolean": is_number or is_text(kind),
        "datetime": is_date or (is_text(kind) and ("days" in column.parts or column.text)),
        "category": is_text(kind) or is_number or is_day or pa.types.is_time(kind),
    }
    if is_number and (code := next((word for word in column.vocabulary if word[0] == "0" and word.isdigit() and len(word) > 1), None)):
        return f"holds {kind}, but the model was trained on codes like '{code}'; read it as text (dtype=str), so that the zeros stay"
    return None if fits[column.kind] else f"holds {kind}, but the model was trained on {WANTED[column.kind]}"


def _unread(values: Any, unreadable: Flags, column: PackedColumn, first_row: int) -> str:
    places = np.flatnonzero(unreadable)
    found = ", ".join(shown(values[int(place)]) for place in places[:3])
    like = f"a date like {', '.join((*column.formats, 'ISO8601'))}, within 280,000 years of 1970"
    what = {"number": number_words(column), "boolean": "true or false", "datetime": like}[column.kind]
    trained = "" if column.text else f", but the model was trained on {WANTED[column.kind]}"
    return f"holds {len(places)} values that are not {what}: {found} (row {first_row + places[0]} first){trained}"


def shown(value: Any) -> str:
    """Return one Arrow value as people read it; dates that Python has no words for are said to be out of range."""
    try:
        return repr(value.as_py())
    except (ValueError, OverflowError, KeyError):
        return f"<{value.type} out of range>"


class Served:
    """A saved model: raw rows in, predictions out."""

    refusal = UnusableRows
    """What it raises for rows that it cannot read: this file is another module in a saved model than in Batchlab."""

    def __init__(self, columns: Sequence[PackedColumn], graph: Any, sequence: InSequence | None = None) -> None:
        self.columns, self.graph, self.sequence = tuple(columns), graph, sequence

    def predict(self, frame: Any, params: dict[str, Any] | None = None) -> NDArray[np.float64]:
        """Return predictions `[rows, 1]` in the target's unit, or probabilities `[rows, classes]`, in portions: memory stays bounded.

        A model that sees several rows at once predicts for every row that has enough before it in its run; for others NaN.
        """
        return self._of_rows(_of_frame(frame))

    def predict_batch(self, batch: Any, first_row: int = 0) -> NDArray[np.float64]:
        """Return what `predict` does, of an Arrow batch; errors number its rows from `first_row` on."""
        if self.sequence is not None:
            return self._of_rows(_of_batch(batch, first_row))
        # a vocabulary is hashed for every portion: let there be several rows a word
        most = max(PACKED_AT_ONCE, 4 * max((len(column.vocabulary) for column in self.columns), default=0))
        starts = range(0, max(batch.num_rows, 1), most)
        return np.concatenate([self._outputs(batch_packed(batch.slice(start, most), self.columns, first_row + start)) for start in starts])

    def get_raw_model(self) -> "Served":
        """Return this; its `graph` maps packed columns to predictions. MLflow asks for it by this name."""
        return self

    def _of_rows(self, rows: _Rows) -> NDArray[np.float64]:
        packed_rows = _packed_rows(rows, self.columns)
        if self.sequence is None:
            return self._outputs(packed_rows)
        order, history = in_sequence(rows, self.sequence, self._holes(packed_rows, self.sequence))
        ordered, span = packed_rows[order], self.sequence.rows
        shape = max(0, rows.count - span + 1), span * ordered.shape[1]
        windows = np.lib.stride_tricks.as_strided(ordered, shape, ordered.strides)
        whole = np.flatnonzero(history >= span - 1)
        starts = range(0, max(1, len(whole)), ROWS_AT_ONCE)
        portions = [whole[start : start + ROWS_AT_ONCE] for start in starts]
        outputs = np.concatenate([self._outputs(windows[part - (span - 1)]) for part in portions])
        found = np.full((rows.count, outputs.shape[1]), np.nan)
        found[order[whole]] = outputs
        return found

    def _holes(self, packed_rows: Packed, sequence: InSequence) -> Flags:
        """Return the rows that no window reaches over: those without a value of the target, which training left out."""
        place = 0
        for column in self.columns:
            if column.name == sequence.own_past:
                return np.isnan(packed_rows[:, place])
            place += len(column.packed_names)
        return np.zeros(len(packed_rows), bool)

    def _outputs(self, packed_rows: Packed) -> NDArray[np.float64]:
        import torch

        with torch.no_grad():
            if not len(packed_rows):  # as wide as any other answer
                return np.asarray(self.graph(torch.zeros(1, packed_rows.shape[1])).numpy()[:0])
            return np.concatenate([self.graph(part).numpy() for part in torch.split(torch.from_numpy(packed_rows), ROWS_AT_ONCE)])


def _load_pyfunc(path: str) -> Served:
    """Open the model in the folder `path`; MLflow calls this."""
    import torch

    folder = Path(path)
    return Served(columns_of(folder), torch.export.load(folder / "model.pt2").module(), sequence_of(folder))


def sequence_of(folder: Path) -> InSequence | None:
    """Return how rows follow each other for the model in the folder; None for one that sees one at a time."""
    if not (folder / SEQUENCE).exists():
        return None
    described = json.loads((folder / SEQUENCE).read_text())
    return InSequence(**{**described, "time": _column(described["time"]) if described["time"] else None})


def columns_of(folder: Path) -> tuple[PackedColumn, ...]:
    """Return the columns of the model in the folder."""
    described: list[dict[str, Any]] = json.loads((folder / "columns.json").read_text())
    return tuple(map(_column, described))


def _column(described: dict[str, Any]) -> PackedColumn:
    facts: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in described.items()}
    return PackedColumn(**facts)
