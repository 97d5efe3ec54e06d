"""Raw rows of any source in, a file of predictions out: in the order of the rows, in bounded memory, on all cores."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import batchlab
from batchlab.errors import BadInput, UnknownName
from batchlab.scored_file import checked_place, written
from batchlab.sources.base import BadLine, Reading, Source
from batchlab.sources.files import FileReading

if TYPE_CHECKING:
    import pyarrow as pa

Item, Found = TypeVar("Item"), TypeVar("Found")
PORTION_ROWS = 2**15
"""So many rows are scored by one thread at a time."""
SHOWN_TEXT = 80


@dataclass(frozen=True)
class SavedModel:
    """A loaded model (`Served`, of the file that travels in it), its classes (none for regression), and what its predictions are signed with."""

    served: Any
    classes: tuple[str, ...]
    name: str
    version: int
    run_id: str


@dataclass(frozen=True)
class _Portion:
    """Consecutive rows, the number of the first, and how much of the source was read with them."""

    rows: "pa.RecordBatch"
    first: int
    share: float


def scored(
    model: SavedModel,
    source: Source,
    out: str,
    scratch: Path,
    keep: Sequence[str] = (),
    on_share: Callable[[str, float], None] = lambda label, share: None,
) -> int:
    """Write a prediction for every row of the source to the file `out` (Parquet or CSV by its ending), and return how many there are.

    The file has the columns `keep`, `prediction` (the class of several), `probability_<class>` for each, `model_version` and `run_id`.
    Raises BadInput for columns that are missing or of another type, and for the first row or line that cannot be read: there is a
    prediction for every row, or no file. What was in `out` before stays until all is written.
    """
    place = checked_place(out)
    reading = source.opened(0, scratch)
    _check_apart(place, reading)
    with _refusals(model):
        model.served.predict_batch(reading.schema.empty_table())
    schema, rows = _schema(model, reading.schema, keep), 0
    with written(place, schema) as write, _refusals(model):
        for portion, outputs in _outputs(model, reading):
            write(_signed(model, portion.rows.select(list(keep)), outputs, schema))
            rows += portion.rows.num_rows
            on_share(f"scoring row {rows:,}", portion.share)
    return rows


def _outputs(model: SavedModel, reading: Reading) -> "Iterator[tuple[_Portion, NDArray[np.float64]]]":
    """Yield what is read, portion by portion, with the model's answer: every core works on one, while the next is read."""
    from batchlab.table.packing import one_ahead

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with _one_torch_thread(), ThreadPoolExecutor(cores, thread_name_prefix="scoring") as pool:
        yield from _in_order(pool, lambda portion: model.served.predict_batch(portion.rows, portion.first), _portions(one_ahead(_read(reading))), cores + 1)
