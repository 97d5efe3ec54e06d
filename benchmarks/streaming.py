"""Shuffled delivery from files beside what people use, and what a shuffle through a buffer costs in loss: writes docs/streaming.md.

`python -m benchmarks.streaming` (`--quick`: small, writes nothing; `--rows`: rows of the table, 88 bytes of disk each, twice).
"""

import argparse
import datetime
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchlab.engine.data import StoredRows
from batchlab.engine.delivery import streamed
from batchlab.strategies.streaming import Streaming
from benchmarks import machine
from benchmarks.sorted_table import FEATURES, SEEDS, Compared, loss_on_a_sorted_table, mean_and_half_width

PAGE = Path(__file__).parent.parent / "docs" / "streaming.md"
BATCH_ROWS, BUFFER_ROWS, FILE_ROWS = 256, 2**18, 2**20
MOST_SECONDS = 15.0
"""Whoever is not through with the table by then is measured up to there; the time to its first batch is apart."""

Batches = Iterator[int]
"""Delivers batches and tells the rows of each."""


@dataclass(frozen=True)
class Table:
    """The same rows as a folder of Parquet files and as row-major .npy files."""

    parquet: Path
    stored: StoredRows
    row_count: int


@dataclass(frozen=True)
class Rate:
    """Rows a second (of a scan in all; else after the first batch, which took `first_seconds`); medians of the repeats."""

    name: str
    rows_per_second: float
    first_seconds: float


def written(folder: Path, row_count: int) -> Table:
    """Write standard normal features and a target that is partly linear in them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = Table(folder / "parquet", StoredRows(folder / "features.npy", folder / "target.npy"), row_count)
    table.parquet.mkdir()
    rng, header = np.random.default_rng(0), {"descr": "<f4", "fortran_order": False}
    with table.stored.features.open("wb") as features, table.stored.target.open("wb") as target:
        np.lib.format.write_array_header_1_0(features, {**header, "shape": (row_count, FEATURES)})
        np.lib.format.write_array_header_1_0(target, {**header, "shape": (row_count,)})
        for number, start in enumerate(range(0, row_count, FILE_ROWS)):
            rows = rng.standard_normal((min(FILE_ROWS, row_count - start), FEATURES), dtype=np.float32)
            truth = rows[:, 0] - rows[:, 1] + 0.3 * rows[:, 2] ** 2
            rows.tofile(features)
            truth.tofile(target)
            columns = {f"x{place:02}": np.ascontiguousarray(rows[:, place]) for place in range(FEATURES)}
            pq.write_table(pa.table({**columns, "y": truth}), table.parquet / f"part-{number:04}.parquet", compression="none")
    return table


def plain_scan(table: Table) -> Batches:
    import pyarrow.dataset as ds

    yield from (len(batch) for batch in ds.dataset(table.parquet).to_batches())


def ours(table: Table, workers: int) -> Batches:
    strategy = Streaming(batch_rows=BATCH_ROWS, buffer_rows=BUFFER_ROWS, workers=workers)
    yield from (len(target) for _, target in streamed(table.stored, strategy, seed=0, epochs=1))


class Mapped(torch.utils.data.Dataset[Any]):
    """The memory map as people wrap it: by row, or by a list of rows."""

    def __init__(self, table: Table) -> None:
        self.features, self.target = table.stored.arrays

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, row: int) -> Any:
        return self.features[row], self.target[row]


def loader_by_row(table: Table) -> Batches:
    loader = torch.utils.data.DataLoader(Mapped(table), BATCH_ROWS, shuffle=True)
    yield from (len(target) for _, target in loader)


def loader_by_batch(table: Table) -> Batches:
    rows = Mapped(table)
    batches = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(rows), BATCH_ROWS, drop_last=False)
    loader = torch.utils.data.DataLoader(rows, sampler=batches, batch_size=None)
    yield from (len(target) for _, target in loader)


def hugging_face(table: Table) -> Batches:
    import datasets

    datasets.disable_progress_bars()
    paths = sorted(map(str, table.parquet.iterdir()))
    rows = datasets.Dataset.from_parquet(paths, cache_dir=str(table.parquet.parent / "cache")).to_iterable_dataset(num_shards=len(paths))
    shuffled = rows.shuffle(seed=0, buffer_size=BUFFER_ROWS).with_format("numpy")
    yield from (len(batch["y"]) for batch in shuffled.iter(batch_size=BATCH_ROWS))


def ray_data(table: Table) -> Batches:
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DATA_DISABLE_PROGRESS_BARS="1")
    import ray

    if not ray.is_initialized():
        ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    rows = ray.data.read_parquet(str(table.parquet))
    shuffled = rows.iter_batches(batch_size=BATCH_ROWS, local_shuffle_buffer_size=BUFFER_ROWS, batch_format="numpy")
    yield from (len(batch["y"]) for batch in shuffled)


CONTENDERS: dict[str, Callable[[Table], Batches]] = {
    "pyarrow, plain scan, no shuffle": plain_scan,
    "batchlab, no thread reads ahead": lambda table: ours(table, 0),
    "batchlab, 1 thread reads ahead": lambda table: ours(table, 1),
    "batchlab, 2 threads read ahead": lambda table: ours(table, 2),
    "torch DataLoader over the map, whole batches": loader_by_batch,
    "torch DataLoader over the map, row by row": loader_by_row,
    "Hugging Face datasets, buffer": hugging_face,
    "Ray Data, local buffer": ray_data,
}


def delivery(row_count: int, repeats: int, tell: Callable[[str], None] = print) -> list[Rate]:
    """Measure everybody in turn on the same table, from the page cache as far as it holds the files."""
    with tempfile.TemporaryDirectory() as folder:
        tell(f"writing {row_count} rows")
        table = written(Path(folder), row_count)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
        for turn in range(repeats):
            for name, run in CONTENDERS.items():
                tell(f"{name}, {turn + 1} of {repeats}")
                taken[name].append(_timed(run(table), with_first=run is plain_scan))
        return [Rate(name, *np.median(np.array(found), axis=0).tolist()) for name, found in taken.items()]


def _timed(batches: Batches, with_first: bool) -> tuple[float, float]:
    """Return rows a second and the seconds to the first batch; a scan has read far ahead by then, so its time is told `with_first`."""
    began = time.perf_counter()
    first = next(batches)
    arrived = now = time.perf_counter()
    started, rows = (began, first) if with_first else (arrived, 0)
    for count in batches:
        rows, now = rows + count, time.perf_counter()
        if now - started > MOST_SECONDS:
            break
    batches.close()  # type: ignore[attr-defined]
    return rows / max(now - started, 1e-9), arrived - began


def page(rates: list[Rate], compared: list[Compared], row_count: int, sorted_rows: int) -> Iterator[str]:
    """Yield the lines of the Markdown page."""
    found, scan = machine.described(), rates[0].rows_per_second
    yield "# Streaming"
    yield ""
    yield f"Written by `python -m benchmarks.streaming` on {datetime.date.today().isoformat()}:"
    yield f"{found['processor']}, {found['cores']} cores."
    yield ""
    yield f"## Rows delivered a second: {row_count / 1e6:.0f} million rows of {FEATURES} float32 features, batches of {BATCH_ROWS}"
    yield ""
    yield f"Everybody in turn in one run, for at most {MOST_SECONDS:.0f} s after the first batch; buffers of {BUFFER_ROWS} rows."
    yield "Parquet is not compressed."
    yield ""
    yield "| | million rows/s | × the plain scan | s to the first batch |"
    yield "|---|---|---|---|"
    for rate in rates:
        ratio = rate.rows_per_second / scan
        yield f"| {rate.name} | {rate.rows_per_second / 1e6:.3g} | {ratio:.2g} | {rate.first_seconds:.2g} |"
    yield ""
    yield f"## Loss after equal steps on a table sorted by its target: {sorted_rows} rows, one epoch, {SEEDS} seeds"
    yield ""
    yield "The buffer holds a sixteenth of the table, in 256 blocks; batches of 32, the same rate for all. Mean validation loss ± its 95%"
    yield "interval, and of paired differences to the global shuffle. Variance of batch means: 1 is a global shuffle."
    yield ""
    yield "| model | shuffle | variance of batch means | validation loss | difference to the global shuffle |"
    yield "|---|---|---|---|---|"
    for item in compared:
        for name, losses in item.losses.items():
            (mean, half), (off, width) = mean_and_half_width(losses), item.difference(name)
            verdict = (
                "" if name == "global shuffle" else f"{off:+.2g} ± {width:.2g}, {'within noise' if abs(off) <= width else 'beyond noise'}"
            )
            yield f"| {item.model} | {name} | {item.quality[name]:.3g} | {mean:.5g} ± {half:.2g} | {verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.streaming", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 million rows, once; writes nothing")
    parser.add_argument("--rows", type=int, default=40_000_000, help="rows of the table (default %(default)s)")
    arguments = parser.parse_args()
    row_count, repeats, sorted_rows = (2_000_000, 1, 2**16) if arguments.quick else (arguments.rows, 3, 2**19)
    compared = loss_on_a_sorted_table(sorted_rows)
    lines = list(page(delivery(row_count, repeats), compared, row_count, sorted_rows))
    print("\n".join(lines))
    if not arguments.quick:
        PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
