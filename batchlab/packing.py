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

from batchlab.columns import Columns, check_columns, feature_names, is_integer, value_type
from batchlab.errors import BadInput
from batchlab.records import Record
from batchlab.sources import Source
from batchlab.target import Target, examined

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_TARGET = 1e100
LEAST_FLOAT32_STEPS = 100
"""A column must vary over at least this many float32 steps, or packing would lose it."""


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
    rows = _decoded(source.read(seed))
    check_columns(rows.schema, columns)
    target = examined(columns.target, rows[columns.target], columns.task)
    _check_values(rows)
    arrays, features = _encoded(rows, columns, target)
    integer = tuple(is_integer(rows.schema.field(name)) for name in features)
    identity = Schema(source=source.name, rows=rows.num_rows, features=features, integer=integer, target=target, digest="")
    schema = identity.model_copy(update={"digest": _digest(identity, arrays)})
    return _written(tables, schema, arrays)


def _decoded(rows: "pa.Table") -> "pa.Table":
    """Return the table with dictionary-encoded columns (pandas Categoricals) as their values, and empty text as missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for place, field in enumerate(rows.schema):
        values, kind = rows.column(place), value_type(field.type)
        if kind != field.type:
            values = values.cast(kind)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            values = pc.if_else(pc.equal(pc.utf8_trim_whitespace(values), ""), None, values)
        rows = rows.set_column(place, pa.field(field.name, kind), values)
    return rows


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
    features = feature_names(rows.schema, columns)
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
    return np.asarray(values.cast("float64", safe=False).to_numpy())


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
        return _within_range(target.name, _float64(values))
    import pyarrow.compute as pc

    classes = pc.unique(values).sort()
    return np.asarray(pc.index_in(values, classes).to_numpy(), np.int64)


def _within_range(name: str, exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raise BadInput when the target's square, the unit of its loss, would leave the range of numbers."""
    largest, spread = float(np.abs(exact).max()), float(exact.max() - exact.min())
    if largest > LARGEST_TARGET or spread < 1 / LARGEST_TARGET:
        raise BadInput(
            f"target '{name}' reaches {largest:.3g} and spans {spread:.3g}, whose squares cannot be computed with; change its unit."
        )
    return exact


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
