"""Raw rows of any source in, a file of predictions out: in the order of the rows, in bounded memory, on all cores."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import batchlab
from batchlab.errors import BadInput, UnknownName
from batchlab.scoring.scored_file import checked_place, written
from batchlab.sources.base import BadLine, Reading, Source
from batchlab.sources.files import FileReading
from batchlab.threads import one_torch_thread

if TYPE_CHECKING:
    import pyarrow as pa

Item = TypeVar("Item")
Found = TypeVar("Found")
PORTION_ROWS = 2**15
"""So many rows are scored by one thread at a time."""
SHOWN_TEXT = 80


@dataclass(frozen=True)
class SavedModel:
    """A loaded model (`Served`, of the file that travels in it), its classes (none: regression), and what signs its predictions."""

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
) -> tuple[int, int]:
    """Write a prediction for every row of the source to the file `out` (Parquet or CSV by its ending), and return how many rows there are,
    and of how many the prediction is null: those that have too few before them, for a model that sees several at once.

    Such a model has all rows read at once.
    The file has the columns `keep`, `prediction` (the class of several), `probability_<class>` for each, `model_version` and `run_id`.
    Raises BadInput for columns that are missing or of another type, and for the first row or line that cannot be read: there is a
    prediction for every row, or no file. What was in `out` before stays until all is written.
    """
    place = checked_place(out)
    reading = source.opened(0, scratch)
    _check_apart(place, reading)
    schema, rows, without = _schema(model, reading.schema, keep), 0, 0
    with _refusals(model):
        model.served.predict_batch(reading.schema.empty_table())
    with written(place, schema) as write, _refusals(model), closing(_answers(model, reading)) as answers:
        for portion, outputs in answers:
            write(_signed(model, portion.rows.select(list(keep)), outputs, schema))
            rows, without = rows + portion.rows.num_rows, without + int(np.isnan(outputs[:, 0]).sum())
            on_share(f"scoring row {rows:,}", portion.share)
    return rows, without


def _answers(model: SavedModel, reading: Reading) -> "Generator[tuple[_Portion, NDArray[np.float64]]]":
    """Yield what is read, portion by portion, with the model's outputs: every core works on one while the next are read."""
    import joblib

    from batchlab.table.packing import one_ahead

    cores = joblib.cpu_count()
    with one_torch_thread(), ThreadPoolExecutor(cores, "scoring") as pool:
        sees_several = getattr(model.served, "sequence", None) is not None  # what travels in an earlier model knows of none
        portions = iter([_whole(reading)]) if sees_several else one_ahead(_portions(reading))
        yield from _in_order(pool, lambda portion: model.served.predict_batch(portion.rows, portion.first), portions, cores + 1)


def _portions(reading: Reading) -> Iterator[_Portion]:
    """Yield the rows of the source; raises BadInput for a line that is none."""

    def refuse(bad: BadLine) -> None:
        where = f"line {bad.line:,}" + (f" of '{bad.file}'" if bad.file else "")
        raise BadInput(f"{where} is no row: {bad.reason}: '{bad.text[:SHOWN_TEXT]}'; correct or remove it, since every row is predicted.")

    first = 0
    for batch in reading.batches(refuse):
        for start in range(0, batch.num_rows, PORTION_ROWS):
            yield _Portion(batch.slice(start, PORTION_ROWS), first + start, reading.share_read)
        first += batch.num_rows


def _whole(reading: Reading) -> _Portion:
    """Return all rows of the source at once, for a model that sees several of them together, wherever they stand."""
    import pyarrow as pa

    read = [portion.rows for portion in _portions(reading)]
    rows = pa.Table.from_batches(read, schema=reading.schema).combine_chunks()
    return _Portion(rows.to_batches()[0] if rows.num_rows else pa.RecordBatch.from_pylist([], schema=reading.schema), 0, 1.0)


def _in_order(pool: ThreadPoolExecutor, work: Callable[[Item], Found], items: Iterator[Item], most: int) -> Iterator[tuple[Item, Found]]:
    """Yield every item with what `work` makes of it, in their order; at most `most` of them are in hand."""
    waiting: deque[tuple[Item, Future[Found]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) == most:
            done, future = waiting.popleft()
            yield done, future.result()
    for done, future in waiting:
        yield done, future.result()


@contextmanager
def _refusals(model: SavedModel) -> Iterator[None]:
    """Turn the model's refusal of rows into BadInput."""
    try:
        yield
    except model.served.refusal as error:
        raise BadInput(f"the rows do not fit version {model.version} of '{model.name}': {error}") from error


def _check_apart(out: Path, reading: Reading) -> None:
    """Raise BadInput where the predictions would lie among the rows that they are made from."""
    if isinstance(reading, FileReading) and reading.place.is_local:
        held = {Path(file.path).resolve() for file in reading.files}
        if out in held or out.is_relative_to(Path(reading.place.path).resolve()):
            raise BadInput(
                f"--out '{out}' lies where --data is read from: rows would be lost, or it be read as rows next time; choose another."
            )


def _schema(model: SavedModel, read: "pa.Schema", keep: Sequence[str]) -> "pa.Schema":
    """Return the columns of the file, and in its metadata what made it; raises BadInput for columns that cannot be kept."""
    import pyarrow as pa

    words = pa.dictionary(pa.int32(), pa.string())
    made = [pa.field("prediction", words if model.classes else pa.float64())]
    made += [pa.field(f"probability_{name}", pa.float64()) for name in model.classes]
    made += [pa.field("model_version", pa.int64()), pa.field("run_id", words)]
    for name in keep:
        if name not in read.names:
            raise UnknownName("--keep: column", name, read.names)
        if read.names.count(name) > 1 or list(keep).count(name) > 1:
            raise BadInput(f"--keep: column '{name}' is there more than once; name one that is there once, once.")
        if name in {field.name for field in made}:
            raise BadInput(f"--keep: column '{name}' has the name of one that is made; rename it in the data, or leave it out.")
    signature = {"model": model.name, "model_version": str(model.version), "run_id": model.run_id, "version": batchlab.__version__}
    return pa.schema([*(read.field(name) for name in keep), *made], {f"batchlab.{key}": value for key, value in signature.items()})


def _signed(model: SavedModel, kept: "pa.RecordBatch", outputs: NDArray[np.float64], schema: "pa.Schema") -> "pa.RecordBatch":
    """Return the rows of the file for the model's outputs `[rows, 1 or classes]`."""
    import pyarrow as pa

    count, absent = len(outputs), np.isnan(outputs[:, 0])
    made = [pa.array(column, mask=absent) for column in np.ascontiguousarray(outputs.T)]
    if model.classes:
        numbers = pa.array(outputs.argmax(axis=1).astype(np.int32), mask=absent)
        made.insert(0, pa.DictionaryArray.from_arrays(numbers, list(model.classes)))
    run = pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [model.run_id])
    return pa.RecordBatch.from_arrays([*kept.columns, *made, pa.array(np.full(count, model.version)), run], schema=schema)
