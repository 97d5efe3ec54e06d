"""What people hold in memory → one Arrow table to pack: data frames with their index, polars and Arrow tables, arrays X and y."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchlab.errors import BadInput
from batchlab.files.mapped import portion
from batchlab.intake.frames import Unusable, array_of, index_of, plain
from batchlab.sources.arrays import block_rows, check_width
from batchlab.sources.dataset import TARGET, ItemsReading
from batchlab.sources.items import FETCHES, GivenItems, Items, fetched
from batchlab.sources.unloaded import is_data_set, iterates, loader_notes, without_loader

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TAKEN = "a pandas DataFrame, a polars or Arrow table, arrays X [rows, …] and y [rows], or a data set"
MOST_SHOWN = 10
INTEGER_BYTES = 4


@dataclass
class Held:
    """A table from memory: its columns by name, in order and with repeated names, its `target`, the `time` column that its index gave, what
    people should know of it, and by name what is wrong with columns that cannot be taken (they hold nothing). Of an array, the `shape` of a
    row, and whether it holds `integers` (of 32 or 64 bits: tokens; bytes are pictures)."""

    target: str
    columns: "list[tuple[str, pa.Array | pa.ChunkedArray]]" = field(default_factory=list)
    time: str | None = None
    notes: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    integers: bool = False
    gaps: str = ""
    """How many numbers of an array are missing or infinite, and where the first is; empty for none."""
    items: GivenItems | None = None
    """The data set that this was, where its items have numbers."""
    reading: ItemsReading | None = None
    """What reads the items of a data set; there are no columns then."""

    def add(self, name: str, values: "pa.Array | pa.ChunkedArray | Unusable") -> None:
        """Take in one column."""
        import pyarrow as pa

        if isinstance(values, Unusable):
            self.wrong[name], values = values.why, pa.nulls(values.rows)
        self.columns.append((name, values))

    def write(self, path: Path, dropped: Sequence[str]) -> None:
        """Write the table as Parquet; raises BadInput that names every column that cannot be, but those that are dropped anyway."""
        import pyarrow as pa
        from pyarrow import parquet

        wrong = [f"column '{name}' {why}" for name, why in self.wrong.items() if name not in dropped]
        if not wrong:
            table = pa.Table.from_arrays([values for _, values in self.columns], [name for name, _ in self.columns])
            try:
                parquet.write_table(table, path)
                return
            except pa.ArrowException as error:
                unwritten = [_unwritten(name, values, path) for name, values in self.columns]
                wrong = list(filter(None, unwritten)) or [str(error)]
        more = [f"and {len(wrong) - MOST_SHOWN} columns more"] if len(wrong) > MOST_SHOWN else []
        raise BadInput(f"the frame cannot be read as a table: {'; '.join([*wrong[:MOST_SHOWN], *more])}.")


def taken(frame: Any, target: Any, plain: Any = None, fetches: int = FETCHES, seed: int = 0, scratch: Path | None = None) -> Held:
    """Return the table that `frame` is, with `target` as the name of a column of it, or as the values `[rows]` of one more.

    Of a data set, whose items are fetched into a file under `scratch`, where they differ each time `fetches` versions are taken, and those
    of `plain` are told apart (`items.fetched`). Raises BadInput for what is no table, and for features and targets that do not go together.
    """
    import pandas as pd

    if is_data_set(frame):
        data = without_loader(frame)
        if isinstance(plain, str):
            raise BadInput(f"plain is the text '{plain}'; give the data set itself (at the command line: source.plain).")
        plain = None if plain is None else without_loader(plain)
        items = fetched(data, target, plain, fetches, seed, scratch)
        return _of_items(replace(items, notes=(*loader_notes(frame), *items.notes)), data, target)
    if plain is not None:
        raise BadInput("plain goes with a map-style data set: the same items without their augmentation.")
    if fetches != FETCHES:
        raise BadInput("fetches goes with a map-style data set, whose items may differ each time.")
    if target is None:
        raise BadInput("target is missing: name the column to predict, or give its values: batchlab.compare(X, y).")
    if _is_name(target):
        if isinstance(frame, pd.DataFrame):
            return _of_frame(frame, str(target))
        if _speaks_arrow(frame):
            return _of_arrow(frame, str(target))
        if getattr(frame, "ndim", 0) and not isinstance(frame, pd.Series):
            raise BadInput("an array has no column names, so target must be the values to predict: batchlab.compare(X, y).")
        raise BadInput(f"batchlab.compare takes {TAKEN}, not {_called(frame)}.")
    held = _features(frame)
    name, values, rows = _target(target, [name for name, _ in held.columns])
    given = len(held.columns[0][1]) if held.columns else 0
    if rows != given:
        raise BadInput(f"X has {given:,} rows but y has {rows:,}; give one target a row.")
    if isinstance(frame, pd.DataFrame) and isinstance(target, pd.Series | pd.DataFrame) and not frame.index.equals(target.index):
        raise BadInput(
            "X and y have different indexes, so their rows may not belong together; align them, or reset both: reset_index(drop=True)."
        )
    held.target = name
    held.add(name, values)
    return held


def _of_items(items: Items, data: Any, target: str | None) -> Held:
    """Return the table of a data set's items, whose notes its reading has."""
    reading = ItemsReading(items)
    gaps = _gaps(items.inputs.reshape(len(items.inputs), -1))
    given = None if iterates(data) else GivenItems(data, target, items.versions)
    return Held(TARGET, reading=reading, shape=items.inputs.shape[1:], integers=_are_integers(items.inputs), gaps=gaps, items=given)


def _are_integers(values: Any) -> bool:
    return bool(values.dtype.kind in "iu" and values.dtype.itemsize >= INTEGER_BYTES)


def _is_name(target: Any) -> bool:
    return isinstance(target, str | bytes | tuple) or not hasattr(target, "__len__")


def _called(frame: Any) -> str:
    """Return what the thing is, and what to do where that is known."""
    kind = type(frame).__name__
    if hasattr(frame, "toarray"):
        return f"{kind}; make the sparse matrix a plain one: X.toarray()"
    return f"{kind}; collect() it first" if hasattr(frame, "collect") else kind


def _features(frame: Any) -> Held:
    """Return the features of a call with X and y."""
    import numpy as np
    import pandas as pd

    if isinstance(frame, pd.DataFrame):
        return _of_frame(frame, "")
    if _speaks_arrow(frame):
        return _of_arrow(frame, "")
    if hasattr(frame, "toarray") or isinstance(frame, str | bytes | dict) or not hasattr(frame, "__len__"):
        raise BadInput(f"batchlab.compare takes {TAKEN}, not {_called(frame)}.")
    try:
        values = frame if isinstance(frame, np.ndarray) else np.asarray(frame)
    except (ValueError, TypeError) as error:
        raise BadInput(f"X cannot be read as an array [rows, features]: {error}") from error
    if values.dtype.names:
        return _of_frame(pd.DataFrame(values), "")
    if values.ndim < 2:
        right = "X.reshape(-1, 1)" if values.ndim else "one row each: X[None]"
        raise BadInput(f"X has the shape {values.shape}, but must be [rows, …]: {right}.")
    flat = values.reshape(len(values), -1)
    check_width("a row of X", values.shape[1:])
    held = _of_frame(pd.DataFrame(flat, columns=[f"x{place}" for place in range(flat.shape[1])]), "")
    held.gaps = _gaps(flat)
    held.shape, held.integers = values.shape[1:], _are_integers(values)
    return held


def _gaps(flat: Any) -> str:
    """Say how many numbers `[rows, numbers]` are missing or infinite, and in which row the first is."""
    import numpy as np

    each = block_rows(flat.shape[1])
    starts = range(0, len(flat) if flat.dtype.kind == "f" else 0, each)
    counts = [(~np.isfinite(portion(flat, start, start + each))).sum(1) for start in starts]
    gaps = np.concatenate(counts) if counts else np.zeros(0, int)
    if not len(bad := np.flatnonzero(gaps)):
        return ""
    count = int(gaps.sum())
    return f"{count:,} missing or infinite numbers in {len(bad):,} of {len(flat):,} rows, the first in row {bad[0]:,}"


def _target(target: Any, taken_names: Sequence[str]) -> "tuple[str, pa.Array | pa.ChunkedArray | Unusable, int]":
    """Return the target's name, values and number of rows."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if isinstance(target, pd.DataFrame) and target.shape[1] == 1:
        target = target.iloc[:, 0]
    named = getattr(target, "name", None)
    name = str(named) if named is not None else next(word for word in ("y", "target", "the target") if word not in taken_names)
    if name in taken_names:
        raise BadInput(f"y is named '{name}', and so is a column of X; drop that column, or name y otherwise.")
    if isinstance(target, pa.Array | pa.ChunkedArray):
        return name, target, len(target)
    if not isinstance(target, pd.Series):
        if hasattr(target, "to_arrow"):
            return _target_of_arrow(name, target)
        values = target if isinstance(target, np.ndarray) else np.asarray(target)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            shape = ", ".join(f"{size:,}" for size in values.shape)
            raise BadInput(f"y has the shape ({shape}), but must be [rows]: one target a row.")
        target = pd.Series(values)
    return name, array_of(target), len(target)


def _target_of_arrow(name: str, target: Any) -> "tuple[str, pa.Array | pa.ChunkedArray, int]":
    import pyarrow as pa

    made = target.to_arrow()
    if isinstance(made, pa.Table) and made.num_columns == 1:
        made = made.column(0)
    if not isinstance(made, pa.Array | pa.ChunkedArray):
        raise BadInput(f"y is a {type(target).__name__}, but must be [rows]: one target a row.")
    return name, plain(made), len(made)


def _speaks_arrow(frame: Any) -> bool:
    import pyarrow as pa

    known = isinstance(frame, pa.Table | pa.RecordBatch | pa.RecordBatchReader)
    return known or any(hasattr(frame, name) for name in ("to_arrow", "__arrow_c_stream__", "__arrow_c_array__"))


def _of_arrow(frame: Any, target: str) -> Held:
    """Return the table of Arrow's, of polars, or of anything else that speaks Arrow's protocol."""
    import pyarrow as pa

    try:
        made = frame.to_arrow() if hasattr(frame, "to_arrow") else frame
        if isinstance(made, pa.RecordBatchReader):
            made = made.read_all()
        table = made if isinstance(made, pa.Table) else pa.table(made)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise BadInput(f"batchlab.compare takes {TAKEN}, not {_called(frame)}: {error}") from error
    held = Held(target)
    for name, values in zip(table.column_names, table.columns, strict=True):
        held.add(name, plain(values))
    return held


def _of_frame(frame: "pd.DataFrame", target: str) -> Held:
    """Return a data frame's columns, those first that its index holds."""
    held, index = Held(target), index_of(frame)
    held.time, held.notes = index.time, index.notes
    for name, series in index.columns:
        held.add(name, array_of(series))
    for place, name in enumerate(frame.columns):
        held.add(str(name), array_of(frame.iloc[:, place]))
    return held


def _unwritten(name: str, values: "pa.Array | pa.ChunkedArray", path: Path) -> str | None:
    """Say that a column of that type cannot be written; None for one that can."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        parquet.write_table(pa.table([values.slice(0, 1)], [name]), path)
    except pa.ArrowException:
        return f"column '{name}' holds {values.type}, which no table file takes; drop it, or make numbers, text or dates of it"
    return None
