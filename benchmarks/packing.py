"""Packing beside a plain scan of the same Parquet folder, and an epoch on what was packed, in little memory: writes docs/packing.md.

`python -m benchmarks.packing` (`--quick`: small, writes nothing; `--rows`: rows of the table, about 250 bytes of disk each in all).
"""

import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PAGE = Path(__file__).parent.parent / "docs" / "packing.md"
COLUMNS, FILE_ROWS, REPEATS = 20, 5_000_000, 2
LIMIT_BYTES, ROWS_IN_MEMORY_GIB = 2 * 2**30, 0.25
GROUP = Path("/sys/fs/cgroup/memory/batchlab-benchmark")


def written(folder: Path, row_count: int) -> None:
    """Write uniform features and a target that is linear in two of them, as pyarrow writes by default: 19 features and a target."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for number, start in enumerate(range(0, row_count, FILE_ROWS)):
        rng, count = np.random.default_rng(number), min(FILE_ROWS, row_count - start)
        columns = {f"x{place}": rng.random(count, np.float32) for place in range(COLUMNS - 1)}
        columns["y"] = 3 * columns["x0"] - columns["x1"] + 0.1 * rng.standard_normal(count, np.float32)
        pq.write_table(pa.table(columns), folder / f"part-{number:03d}.parquet")


def scan(data: Path, tables: Path) -> dict[str, float]:
    """Read every batch with pyarrow and do nothing with it."""
    from pyarrow import dataset

    began = time.perf_counter()
    rows = sum(batch.num_rows for batch in dataset.dataset(data).to_batches())
    return {"rows": rows, "seconds": time.perf_counter() - began}


def pack_anew(data: Path, tables: Path) -> dict[str, float]:
    """Pack the folder: digest, one pass, all synced to the disk."""
    from batchlab.sources.parquet import Parquet
    from batchlab.table import pack
    from batchlab.table.columns import Columns

    began = time.perf_counter()
    table = pack(Parquet(path=str(data)), Columns(target="y"), Path(tempfile.mkdtemp(dir=tables)))
    return {"rows": table.schema.rows, "seconds": time.perf_counter() - began}


def write(data: Path, tables: Path) -> dict[str, float]:
    """Write as many bytes as the packed table has, and wait until they are on the disk: what packing cannot beat."""
    from pyarrow import dataset

    rows, portion = dataset.dataset(data).count_rows(), np.ones(2**22, np.float32)
    began, left = time.perf_counter(), rows * (4 * COLUMNS + 4)
    with (tables / "tmp-bytes").open("wb", buffering=0) as file:
        while left > 0:
            left -= file.write(memoryview(portion.data).cast("B")[:left])
        os.fsync(file.fileno())
    return {"rows": rows, "seconds": time.perf_counter() - began}


def epoch(data: Path, tables: Path) -> dict[str, float]:
    """Pack, split, prepare into files and train a linear model for one epoch of streamed mini-batches; the seconds are the training's."""
    from batchlab.config import load_profile
    from batchlab.experiment import Experiment
    from batchlab.rows.split import split
    from batchlab.table import pack

    overrides = [f"memory_gib={ROWS_IN_MEMORY_GIB}", "train.epochs=1", "train.max_rows=1_000_000_000", "train.learning_rate=0.03"]
    overrides += ["strategies.streaming.batch_rows=256", "train.evaluations=20"]
    profile = load_profile("quick", data=str(data), target="y", strategies=["streaming"], overrides=overrides)
    began = time.perf_counter()
    table = pack(profile.source, profile.named_columns(), tables, profile.seed)
    packed = time.perf_counter()
    experiment = Experiment(profile, table, split(table, profile.split, profile.seed))
    in_files = experiment.data.stored is not None
    prepared = time.perf_counter()
    (result,) = experiment.train("streaming")
    trained = time.perf_counter()
    seconds = {"packing": packed - began, "preparing": prepared - packed, "seconds": trained - prepared}
    return {"rows": result.rows_seen, "in_files": in_files, "loss": result.curve.validation_loss[-1], **seconds}


WORK = {"scan": scan, "pack": pack_anew, "write": write, "epoch": epoch}


def peak_bytes() -> int:
    """Return this process's peak of resident memory; what getrusage tells is inherited from the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def in_own_process(what: str, data: Path, tables: Path, limited: bool = False) -> dict[str, Any]:
    """Run one kind of work in a process of its own, in a control group of `LIMIT_BYTES` where one can be made, and return its figures."""
    os.sync()  # what others have written does not slow this one down
    with _control_group() if limited else contextlib.nullcontext() as group:
        command = [sys.executable, "-m", "benchmarks.packing", "--child", what, str(data), str(tables)]
        before = (lambda: (group / "cgroup.procs").write_text(str(os.getpid()))) if group else None
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=before)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "limited": group is not None}


@contextlib.contextmanager
def _control_group() -> Iterator[Path | None]:
    """Yield a control group that limits memory, page cache included; None where none can be made."""
    try:
        GROUP.mkdir()
        (GROUP / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
    except OSError:
        yield None
        return
    try:
        yield GROUP
    finally:
        time.sleep(1)
        GROUP.rmdir()


def measured(row_count: int, repeats: int) -> dict[str, Any]:
    """Return the figures of scan and packing, in turn, and of an epoch in limited memory."""
    with tempfile.TemporaryDirectory(prefix="batchlab-packing-") as scratch:
        data, tables = Path(scratch) / "data", Path(scratch) / "tables"
        tables.mkdir()
        written(data, row_count)
        turns: dict[str, list[dict[str, Any]]] = {"scan": [], "pack": [], "write": []}
        for _ in range(repeats):
            for what, found in turns.items():
                found.append(in_own_process(what, data, tables))
                subprocess.run(f"rm -rf {tables}/tmp*", shell=True, check=True)
        return {"rows": row_count, **turns, "epoch": in_own_process("epoch", data, tables, limited=True)}


def page(found: dict[str, Any]) -> list[str]:
    """Return the page's lines."""
    from benchmarks import machine

    described = machine.described()
    rates = {what: [item["rows"] / item["seconds"] for item in found[what]] for what in ("scan", "pack", "write")}
    of_write = statistics.median(packed / written for packed, written in zip(rates["pack"], rates["write"], strict=True))
    shares = sorted(packed / scanned for packed, scanned in zip(rates["pack"], rates["scan"], strict=True))
    epoch_of = found["epoch"]
    peak = max(item["peak_bytes"] for item in found["pack"])
    limit = f"limited to {LIMIT_BYTES / 2**30:g} GiB" if epoch_of["limited"] else "without a limit (no control group could be made)"
    return [
        "# Packing, and an epoch in little memory",
        "",
        f"{found['rows']:,} rows × {COLUMNS} columns of float32 in a Parquet folder, {datetime.date.today().isoformat()}; "
        f"{described['processor']}, {described['cores']} cores. "
        "Made by `python -m benchmarks.packing`; every figure is of a process of its own, scan and packing in turn.",
        "",
        "| | rows/s | of the scan |",
        "|---|---|---|",
        f"| pyarrow: read every batch | {statistics.median(rates['scan']) / 1e6:.2f}M | 1 |",
        f"| packing: digest, checks, statistics, row-major float32, synced | {statistics.median(rates['pack']) / 1e6:.2f}M "
        f"| {statistics.median(shares):.2f} ({shares[0]:.2f}–{shares[-1]:.2f}) |",
        f"| writing as many bytes, synced | {statistics.median(rates['write']) / 1e6:.2f}M | "
        f"{statistics.median(rates['write']) / statistics.median(rates['scan']):.2f} |",
        "",
        f"The scan reads from the system's cache on both cores. Packing is {of_write:.2f} as fast as a plain write: reading, "
        "turning columns into rows and writing share the two cores. "
        f"Packing's peak resident memory: {peak / 2**30:.2f} GiB.",
        "",
        f"One process, {limit}: packed in {epoch_of['packing']:.0f} s, prepared {epoch_of['rows']:,} training rows "
        f"{'in files' if epoch_of['in_files'] else 'in memory'} in {epoch_of['preparing']:.0f} s, "
        f"and trained an epoch of streamed batches of 256 in {epoch_of['seconds']:.0f} s "
        f"({epoch_of['rows'] / epoch_of['seconds'] / 1e6:.2f}M rows/s), "
        f"peak resident memory {epoch_of['peak_bytes'] / 2**30:.2f} GiB, imports of torch included.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.packing", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--child", nargs=3, metavar=("WORK", "DATA", "TABLES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        what, data, tables = given.child
        found = WORK[what](Path(data), Path(tables))
        print(json.dumps({**found, "peak_bytes": peak_bytes()}))
        return
    lines = page(measured(2_000_000 if given.quick else given.rows, 1 if given.quick else REPEATS))
    print("\n".join(lines))
    if not given.quick:
        PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
