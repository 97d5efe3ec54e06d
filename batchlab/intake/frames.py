"""A data frame's columns as Arrow arrays, and what its index holds beside the number of the row."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class Unusable:
    """A column that is none here, of so many rows, and why."""

    rows: int
    why: str


@dataclass
class Index:
    """What a frame's index holds: columns by name, which of them or of the frame's orders the rows in `time`, and notes for people."""

    columns: "list[tuple[str, pd.Series[Any]]]" = field(default_factory=list)
    time: str | None = None
    notes: list[str] = field(default_factory=list)


def index_of(frame: "pd.DataFrame") -> Index:
    """Return what the index holds beside the number of the row: dates, which order the rows, and whatever has a name."""
    import pandas as pd

    found, names = Index(), [str(name) for name in frame.columns]
    for level in range(frame.index.nlevels):
        values = _with_dates(frame.index.get_level_values(level))
        kind = _read_as(values)
        dated = isinstance(values, pd.DatetimeIndex | pd.PeriodIndex) or kind == "datetime"
        counts_rows = _counts_rows(values)
        if counts_rows and values.name is not None:
            found.notes.append(f"the frame's index '{values.name}' only numbers the rows; it is left out")
        if counts_rows or not (dated or values.name is not None):
            continue
        name, series = "index" if values.name is None else str(values.name), values.to_series(index=frame.index)
        is_column = names.count(name) == 1 and frame.iloc[:, names.index(name)].equals(series)  # set_index(drop=False)
        if not is_column and kind == "names":
            found.notes.append(
                f"the frame's index '{name}' only names the rows (nearly all its values are different words); it is left out"
            )
            continue
        if not is_column:
            name = f"{name} (index)" if name in names else name
            found.columns.append((name, series))
            names.append(name)
        if dated and found.time is None:
            found.time = name
        elif not is_column:
            found.notes.append(f"the frame's index '{name}' is taken as a column; without it: frame.reset_index(drop=True)")
    return found


def _counts_rows(values: "pd.Index[Any]") -> bool:
    """Whether the index numbers the rows from 0 or 1, in any order; years in a row do not."""
    if values.dtype.kind not in "iu" or not len(values):
        return False
    first = int(values.min())
    return first in (0, 1) and int(values.max()) - first + 1 == len(values) and bool(values.is_unique)


def plain(values: "pa.ChunkedArray | pa.Array") -> "pa.ChunkedArray | pa.Array":
    """Return views and runs, which Parquet does not take, as plain values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_run_end_encoded(values.type):
        values = pc.run_end_decode(values)
    if pa.types.is_dictionary(values.type) and pa.types.is_string_view(values.type.value_type):
        chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
        words = [chunk.dictionary.cast("large_string").take(chunk.indices) for chunk in chunks]
        return pa.chunked_array(words, pa.large_string())
    return values.cast("large_string") if pa.types.is_string_view(values.type) else values


def _with_dates(index: "pd.Index") -> "pd.Index":
    """Return an index of Python's dates, or of single periods, as one of pandas'."""
    import pandas as pd

    if index.dtype != object:
        return index
    kind = pd.api.types.infer_dtype(index, skipna=True)
    if kind in ("date", "datetime"):
        return pd.DatetimeIndex(pd.to_datetime(index, errors="coerce"), name=index.name)
    return pd.PeriodIndex(index, name=index.name) if kind == "period" else index


def _read_as(index: "pd.Index[Any]") -> str:
    """Return what packing will read an index of text as; `names` where it would be refused, `values` for one of another type."""
    import pandas as pd
    import pyarrow as pa

    from batchlab.table.survey import Tally, interpreted

    if pd.api.types.infer_dtype(index, skipna=True) != "string":
        return "values"
    tally = Tally()
    tally.add(pa.array(index.to_series(), pa.string(), from_pandas=True))
    found = interpreted("index", tally, categorical=False).column
    return "names" if found is None else found.kind


def array_of(series: "pd.Series[Any]") -> "pa.Array | pa.ChunkedArray | Unusable":
    """Return a column as an Arrow array, or why it cannot be one."""
    import pandas as pd
    import pyarrow as pa

    try:
        if isinstance(series.dtype, pd.SparseDtype):
            series = pd.Series(series.to_numpy())
        if series.dtype == object and pd.api.types.infer_dtype(series, skipna=True) == "period":
            series = pd.Series(pd.PeriodIndex(series))
        return plain(pa.array(series, from_pandas=True))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        return Unusable(len(series), _unusable(series, error))


def _unusable(series: "pd.Series[Any]", error: Exception) -> str:
    """Say what a column holds that is no column here, and what to do."""
    import pandas as pd

    if pd.api.types.is_complex_dtype(series.dtype):
        kinds = Counter({"complex": int(series.notna().sum())})
    else:
        kinds = Counter(type(value).__name__ for value in series if not (pd.api.types.is_scalar(value) and pd.isna(value)))
    found = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
    if any("complex" in kind for kind in kinds):
        return f"holds complex numbers ({found}); give their real and imaginary parts as two columns"
    if len(kinds) > 1:
        return (
            f"holds values of several types ({found}); give them one type: frame[{series.name!r}].astype(str), or "
            f"pd.to_numeric(frame[{series.name!r}], errors='coerce')"
        )
    return f"holds what is neither number, text, boolean nor date ({found}: {error}); drop it, or make numbers or text of it"
