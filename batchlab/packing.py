"""Source → packed table: validated, encoded, row-major float32, memory-mapped, keyed by a digest of its content."""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchlab.errors import BadInput, UnknownName
from batchlab.records import Record
from batchlab.sources import Source
from batchlab.target import Target, TaskChoice, examined

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_FLOAT32_STEPS = 100
"""A column must vary over at least this many float32 steps, or packing would lose it."""


class Columns(Record):
    """Which column plays which part."""

    target: str
    task: TaskChoice = "auto"
    time: str | None = None
    weight: str | None = None


class Schema(Record):
    """What a packed table holds, kept beside it as JSON. `integer` says for each feature whether the source held integers."""

    source: str
    rows: int
    features: tuple[str, ...]
    integer: tuple[bool, ...]
    target: Target
    digest: str


@dataclass(frozen=True)
class PackedTable:
    """An opened packed table: arrays are memory-mapped on first use."""

    path: Path
    schema: Schema

    @classmethod
    def open(cls, path: Path) -> "PackedTable":
        """Open the table in folder `path`."""
        return cls(path, Schema.model_validate_json((path / "schema.json").read_text()))

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """`[rows, features]`, row-major."""
        return self._load("features")

    @cached_property
    def target(self) -> NDArray[Any]:
        """`[rows]`: float64 in the target's unit, or int64 class numbers."""
        return self._load("target")

    def side_column(self, part: str) -> NDArray[np.float64] | None:
        """`[rows]`: the `time` or `weight` column, or None when the table has none."""
        return self._load(part) if (self.path / f"{part}.npy").exists() else None

    def _load(self, part: str) -> NDArray[Any]:
        return np.asarray(np.load(self.path / f"{part}.npy", mmap_mode="r"))


def pack(source: Source, columns: Columns, tables: Path, seed: int = 0) -> PackedTable:
    """Read, validate and encode `source` into a folder of `tables` named by its digest; reuse that folder when it is there.

    Raises BadInput for columns that do not exist, are not numeric, hold missing or infinite values or cannot be kept in
    float32, and for a target that cannot be learnt. A killed pass leaves only a temporary folder, never half a table.
    """
    rows = source.read(seed)
    check_columns(rows.schema, columns)
    target = examined(columns.target, rows[columns.target], columns.task)
    _check_values(rows)
    arrays, features = _encoded(rows, columns, target)
    integer = tuple(_is_integer(rows.schema.field(name)) for name in features)
    identity = Schema(source=source.name, rows=rows.num_rows, features=features, integer=integer, target=target, digest="")
    schema = identity.model_copy(update={"digest": _digest(identity, arrays)})
    return _written(tables, schema, arrays)


def check_columns(schema: "pa.Schema", columns: Columns) -> None:
    """Raise BadInput unless the named columns exist and every feature is numeric; needs no rows."""
    duplicates = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if duplicates:
        raise BadInput(f"column names must be unique, but these occur twice or more: {', '.join(duplicates)}.")
    for what, name in (("target column", columns.target), ("split column", columns.time), ("weight column", columns.weight)):
        if name is not None and name not in schema.names:
            raise UnknownName(what, name, schema.names)
    if columns.weight == columns.target:
        raise BadInput(f"'{columns.weight}' is both the target and the weight column; name two columns.")
    if columns.time and not _orders_rows(schema.field(columns.time)):
        held = schema.field(columns.time).type
        raise BadInput(f"split column '{columns.time}' holds {held}, which has no order in time; use numbers, dates or timestamps.")
    features = _feature_names(schema, columns)
    other = [f"'{name}' ({schema.field(name).type})" for name in features if not _is_numeric(schema.field(name))]
    if other:
        raise BadInput(f"these columns are not numeric: {', '.join(other)}; drop them, or encode them as numbers first.")
    if not features:
        raise BadInput(f"no feature column is left beside target '{columns.target}'; the columns are {', '.join(schema.names)}.")
    if columns.weight and not _is_numeric(schema.field(columns.weight)):
        raise BadInput(f"weight column '{columns.weight}' holds {schema.field(columns.weight).type}; weights must be numbers.")


def _feature_names(schema: "pa.Schema", columns: Columns) -> tuple[str, ...]:
    """All columns but the target, the weights, and a time column that is no number (it only orders the rows)."""
    ordering = {columns.time} if columns.time and not _is_numeric(schema.field(columns.time)) else set()
    return tuple(name for name in schema.names if name not in {columns.target, columns.weight} | ordering)


def _is_numeric(field: "pa.Field") -> bool:
    import pyarrow as pa

    empty = pa.types.is_null(field.type)  # a column without a single value has no type; its values are refused with their count
    return bool(empty or _is_integer(field) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type))


def _orders_rows(field: "pa.Field") -> bool:
    import pyarrow as pa

    return bool(_is_numeric(field) or pa.types.is_timestamp(field.type) or pa.types.is_date(field.type))


def _is_integer(field: "pa.Field") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(field.type))


def _check_values(rows: "pa.Table") -> None:
    """Raise BadInput with the count of missing and infinite values of every column that has some."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = []
    for name, values in zip(rows.column_names, rows.columns, strict=True):
        missing, infinite = values.null_count, 0
        if pa.types.is_floating(values.type):
            missing += pc.sum(pc.is_nan(values)).as_py() or 0
            infinite = pc.sum(pc.is_inf(values)).as_py() or 0
        counts = [f"{count} {word}" for count, word in ((missing, "missing"), (infinite, "infinite")) if count]
        if counts:
            found.append(f"'{name}' {' and '.join(counts)}")
    if found:
        raise BadInput(
            f"{rows.num_rows} rows hold values that cannot be trained on: {'; '.join(found)}; remove those rows or fill them in."
        )


def _encoded(rows: "pa.Table", columns: Columns, target: Target) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """Return the arrays of the packed table by file name, and the names of the feature columns."""
    features = _feature_names(rows.schema, columns)
    packed = np.empty((rows.num_rows, len(features)), np.float32)
    for position, name in enumerate(features):
        exact = _float64(rows[name])
        _check_resolution(name, exact)
        packed[:, position] = exact
    arrays: dict[str, NDArray[Any]] = {"features": packed, "target": _target_values(rows[columns.target], target)}
    if columns.time:
        arrays["time"] = rows[columns.time].to_numpy().astype(np.float64)
    if columns.weight:
        arrays["weight"] = _weights(columns.weight, _float64(rows[columns.weight]))
    return arrays, features


def _float64(values: "pa.ChunkedArray") -> NDArray[np.float64]:
    return np.asarray(values.cast("float64").to_numpy())


def _check_resolution(name: str, exact: NDArray[np.float64]) -> None:
    """Raise BadInput when float32 could not tell the column's values apart (a Unix time in seconds, say)."""
    spread, largest = float(exact.std()), float(np.abs(exact).max())
    if largest > float(np.finfo(np.float32).max):
        raise BadInput(
            f"column '{name}' reaches {largest:.3g}, beyond float32's {np.finfo(np.float32).max:.3g}; rescale it, or take its logarithm."
        )
    step = float(np.spacing(np.float32(largest)))
    if 0 < spread < LEAST_FLOAT32_STEPS * step:
        raise BadInput(
            f"column '{name}' varies by {spread:.3g} around {exact.mean():.6g}, where float32 steps are {step:.3g}; "
            f"subtract {exact.mean():.6g} from it first."
        )


def _weights(name: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    if weights.min() < 0 or weights.sum() == 0:
        negative = int((weights < 0).sum())
        raise BadInput(f"weight column '{name}' has {negative} negative values and sum {weights.sum():g}; weights must be ≥ 0, some > 0.")
    return weights


def _target_values(values: "pa.ChunkedArray", target: Target) -> NDArray[Any]:
    if target.task == "regression":
        return _float64(values)
    import pyarrow.compute as pc

    classes = pc.unique(values).sort()
    return np.asarray(pc.index_in(values, classes).to_numpy(), np.int64)


def _digest(identity: Schema, arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(identity.model_dump_json().encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()[:16]


def _written(tables: Path, schema: Schema, arrays: dict[str, NDArray[Any]]) -> PackedTable:
    """Write to a temporary folder, then rename: whoever comes second finds the first one's table."""
    final = tables / schema.digest
    if not final.exists():
        tables.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".packing-", dir=tables))
        try:
            for name, values in arrays.items():
                np.save(draft / f"{name}.npy", values)
            (draft / "schema.json").write_text(schema.model_dump_json(indent=2))
            draft.chmod(0o755)
            os.replace(draft, final)
        except OSError:
            if not final.exists():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return PackedTable.open(final)
