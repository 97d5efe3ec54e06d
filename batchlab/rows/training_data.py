"""Packed rows → training data: in memory where they fit, else in files beside the table."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchlab.allowance import Allowance
from batchlab.engine.data import StoredRows, TrainingData
from batchlab.errors import BadInput
from batchlab.files.mapped import gathered
from batchlab.files.sealing import check_sealed
from batchlab.rows.preparation import Preparation, rows_at_once, training_rows
from batchlab.rows.split import Split
from batchlab.serving.batchlab_serving import batch_packed
from batchlab.sources.arrays import ALONE, columns_of_arrays
from batchlab.strategies import Population
from batchlab.table import PackedTable
from batchlab.table.writing import Draft, RowsFile, check_space, writing_under

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LEAST_BYTES = 2**27
"""Trainings may take at least so much, however little is allowed: they cannot do without a buffer."""
VERSION_ROWS_AT_ONCE = 2**12
MOST_EVALUATED, FEWEST_EVALUATED = 2**17, 2**10
"""Of rows in files, and of windows, at most so many are evaluated, of each part: a random sample. Where they take much memory fewer, but
not fewer than the other."""
EVALUATED_SHARE = 8
"""Each part that is evaluated takes this fraction of what the allowance has for rows."""


def prepared(
    table: PackedTable,
    split: Split,
    preparation: Preparation,
    precision: "torch.dtype",
    allowance: Allowance,
    versions: NDArray[Any] | None = None,
) -> TrainingData:
    """Return the training and validation rows as inputs in `precision`: in memory, or in files where they would take more than what the
    allowance has for rows. Of `versions` `[versions, rows, …]`, which trainings see instead, all are in memory."""
    if table.schema.sequence is not None:
        return _in_sequence(table, split, preparation, precision, allowance)
    if versions is not None:
        return _in_versions(table, split, preparation, precision, allowance, versions)
    sizes, a_row = split.sizes(), (preparation.width + 1) * precision.itemsize
    outputs, held = max(1, len(table.schema.target.classes)), (sizes["train"] + sizes["validation"]) * a_row
    if held > allowance.rows_bytes:
        stored = _in_files(table, split, preparation, precision)
        most = _most_evaluated(preparation.width * precision.itemsize, allowance)
        validation, sample = (tensors(table, split.rows(part, most), preparation, precision) for part in ("validation", "train"))
        population = _population(table, split, np.asarray(stored.arrays[1]))
        found = TrainingData.of_stored(stored, *validation, outputs, population)
        return replace(found, sample=sample, memory_bytes=max(allowance.trainings_bytes(0), LEAST_BYTES))
    features, target = _joined(_portions(table, split, preparation, precision), sizes["train"], preparation.width, table, precision)
    validation = tensors(table, split.validation, preparation, precision)
    return TrainingData(
        features,
        target,
        *validation,
        _population(table, split, target.numpy()),
        outputs,
        memory_bytes=max(allowance.trainings_bytes(held), LEAST_BYTES),
    )


def _in_sequence(
    table: PackedTable, split: Split, preparation: Preparation, precision: "torch.dtype", allowance: Allowance
) -> TrainingData:
    """Return the table's rows as inputs, once, and windows of them as a view; of the rows that are evaluated a sample, since those windows
    are gathered. Raises BadInput for more rows than memory holds."""
    import torch

    count, a_row, evaluated = table.schema.rows, (preparation.width + 1) * precision.itemsize, allowance.rows_bytes // EVALUATED_SHARE
    if count * a_row + 2 * evaluated > allowance.rows_bytes:
        raise BadInput(
            f"{count:,} rows × {preparation.width} inputs take {count * a_row / 2**30:.2f} GiB, and windows of rows need them in memory: a "
            f"quarter more than that, of {allowance.rows_bytes / 2**30:.2f} GiB for rows; allow more (memory_gib), or bring fewer rows."
        )
    size = rows_at_once(preparation.width)
    portions = (
        _inputs(table.read("features", start, size), table.read("target", start, size), table, preparation, precision)
        for start in range(0, count, size)
    )
    rows, target = _joined(portions, count, preparation.width, table, precision)
    before, width = table.span - 1, table.span * preparation.width
    most = _most_evaluated(width * precision.itemsize, allowance)
    sample, validation = (tensors(table, split.rows(part, most), preparation, precision) for part in ("train", "validation"))
    return TrainingData(
        torch.as_strided(rows, (count - before, width), (preparation.width, 1)),
        target[before:],
        *validation,
        _population(table, split, target.numpy()[split.train]),
        max(1, len(table.schema.target.classes)),
        sample=sample,
        places=(split.train - before).astype(np.int32),
        memory_bytes=max(allowance.trainings_bytes(count * a_row), LEAST_BYTES),
    )


def _most_evaluated(a_row: int, allowance: Allowance) -> int:
    """Return how many rows of a part are evaluated, of so many bytes each."""
    return min(MOST_EVALUATED, max(FEWEST_EVALUATED, allowance.rows_bytes // EVALUATED_SHARE // a_row))


def _in_versions(
    table: PackedTable,
    split: Split,
    preparation: Preparation,
    precision: "torch.dtype",
    allowance: Allowance,
    versions: NDArray[Any],
) -> TrainingData:
    """Return the training and validation rows, and behind them all versions of each. Raises BadInput for more than memory holds, and where
    rows were left out, so that it is not known whose versions these are."""
    import torch

    if versions.shape[1] != table.schema.rows:
        raise BadInput(
            f"{versions.shape[1]:,} items have several versions, and {table.schema.rows:,} of them can be used as rows: leave those out "
            "that have no target or gaps, or use fetches=1."
        )
    rows, outputs = np.concatenate([split.train, split.validation]), max(1, len(table.schema.target.classes))
    shape = ((1 + len(versions)) * len(rows), preparation.width)
    held = shape[0] * (shape[1] + 1) * precision.itemsize
    if held > allowance.rows_bytes:
        raise BadInput(
            f"{len(versions)} versions of {len(rows):,} items × {preparation.width} inputs take {held / 2**20:,.1f} MiB, and there are "
            f"{allowance.rows_bytes / 2**20:,.1f} MiB for rows; allow more (memory_gib), or fewer versions (fetches)."
        )
    features, place = torch.empty(shape, dtype=precision), len(rows)
    features[:place], target = tensors(table, rows, preparation, precision)
    for version in versions:
        for start in range(0, len(rows), VERSION_ROWS_AT_ONCE):
            packed = _packed(version[rows[start : start + VERSION_ROWS_AT_ONCE]], table)
            features[place : place + len(packed)] = _as_inputs(packed, table, preparation, precision)
            place += len(packed)
    count = len(split.train)
    return TrainingData(
        features,
        target.repeat(1 + len(versions)),
        features[count : len(rows)],
        target[count:],
        _population(table, split, target[:count].numpy()),
        outputs,
        sample=(features[:count], target[:count]),
        places=np.arange(count, dtype=np.int32),
        versions=len(versions),
        memory_bytes=max(allowance.trainings_bytes(held), LEAST_BYTES),
    )


def _packed(items: NDArray[Any], table: PackedTable) -> NDArray[np.float32]:
    """Return items `[rows, …]` as the table packs them."""
    import pyarrow as pa

    columns = columns_of_arrays({ALONE: items.reshape(len(items), -1)}, slice(None))
    return batch_packed(pa.RecordBatch.from_pydict(columns), table.schema.columns)


def _population(table: PackedTable, split: Split, target: NDArray[Any]) -> Population:
    """Return what strategies may know of the training rows with these targets."""
    weights = table.side_column("weight")
    return Population(
        row_count=len(target),
        classes=target if table.schema.target.classes else None,
        weights=None if weights is None else np.asarray(weights[split.train]),
    )


def _in_files(table: PackedTable, split: Split, preparation: Preparation, precision: "torch.dtype") -> StoredRows:
    """Write the training rows beside the table, unless they are there, and return the files."""
    import torch

    if precision != torch.float32:
        raise BadInput(
            f"{split.sizes()['train']:,} training rows take more than memory allows (memory_gib), and rows in files are float32; "
            "use train.precision=float32."
        )
    name = f"prepared-{split.digest}-{preparation.digest}"
    folder = table.path / name
    if not (folder / "schema.json").exists():
        count = split.sizes()["train"]
        check_space(
            table.path,
            count * (preparation.width + 1) * precision.itemsize,
            f"preparing {count:,} training rows × {preparation.width} inputs",
        )
        _write(table, split, preparation, precision, name)
    check_sealed(folder, f"remove '{folder}', so that the rows are prepared again")
    return StoredRows(folder / "features.npy", folder / "target.npy")


def _write(table: PackedTable, split: Split, preparation: Preparation, precision: "torch.dtype", name: str) -> None:
    with writing_under(table.path), Draft(table.path) as draft:
        features = RowsFile(draft.path / "features.npy", np.float32, preparation.width)
        target = RowsFile(draft.path / "target.npy", np.int64 if table.schema.target.classes else np.float32)
        for inputs, truth in _portions(table, split, preparation, precision):
            features.add(inputs.numpy())
            target.add(truth.numpy())
        features.close()
        target.close()
        (draft.path / "schema.json").write_text(f'{{"inputs": {preparation.width}}}')
        draft.become(name, (features, target))


def _portions(table: PackedTable, split: Split, preparation: Preparation, precision: "torch.dtype") -> "Iterator[tuple[Tensor, Tensor]]":
    for packed, truth in training_rows(table, split):
        yield _inputs(packed, truth, table, preparation, precision)


def tensors(table: PackedTable, rows: NDArray[np.int64], preparation: Preparation, precision: "torch.dtype") -> "tuple[Tensor, Tensor]":
    """Return the inputs and targets of these rows, made in portions: all that a model sees of each."""
    size = max(1, rows_at_once(len(table.schema.packed_names)) // table.span)
    portions = (rows[start : start + size] for start in range(0, len(rows), size))
    made = (_inputs(table.seen(part), gathered(table.target, part), table, preparation, precision) for part in portions)
    return _joined(made, len(rows), table.span * preparation.width, table, precision)


def _joined(
    portions: "Iterator[tuple[Tensor, Tensor]]", count: int, width: int, table: PackedTable, precision: "torch.dtype"
) -> "tuple[Tensor, Tensor]":
    """Return inputs and targets that come in portions, `count` rows in all, with never two copies of them in memory."""
    import torch

    features = torch.empty(count, width, dtype=precision)
    target = torch.empty(count, dtype=torch.int64 if table.schema.target.classes else precision)
    place = 0
    for inputs, truth in portions:
        features[place : place + len(truth)], target[place : place + len(truth)] = inputs, truth
        place += len(truth)
    return features, target


def _inputs(
    packed: NDArray[np.float32], truth: NDArray[Any], table: PackedTable, preparation: Preparation, precision: "torch.dtype"
) -> "tuple[Tensor, Tensor]":
    """Return the inputs and targets of packed rows, or of several side by side, as training sees them."""
    import torch

    inputs = _as_inputs(packed, table, preparation, precision)
    if table.schema.target.classes:
        return inputs, torch.from_numpy(truth)
    return inputs, torch.from_numpy((preparation.unscaled(truth) - preparation.target_mean) / preparation.target_scale).to(precision)


def _as_inputs(packed: NDArray[np.float32], table: PackedTable, preparation: Preparation, precision: "torch.dtype") -> "Tensor":
    import torch

    from batchlab.rows.inputs import Inputs

    columns = len(table.schema.packed_names)
    inputs: Tensor = Inputs(preparation)(torch.from_numpy(packed).view(-1, columns))
    return inputs.to(precision).view(len(packed), -1)
