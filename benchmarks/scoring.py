"""`batchlab predict` beside a plain torch loop over the same file with the same graph: writes docs/scoring.md.

`python -m benchmarks.scoring` (`--quick`: small, writes nothing; `--rows`: rows of the table, about 90 bytes of disk each).
"""

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "scoring.md"
FEATURES, WRITTEN_ROWS, TRAINING_ROWS, REPEATS = 19, 1_000_000, 50_000, 3
MODELS = {"linear": "linear, 19 inputs", "mlp": "mlp 19-64-64-1"}
LOOPS = {"batches of 8,192": (8192, 0), "of 65,536": (65_536, 0), "of 8,192, one torch thread": (8192, 1)}
"""Rows of a batch of the plain loop, and torch's threads, 0 for its own choice: the fastest counts."""
PREDICTED = re.compile(r"([\d,]+) rows predicted by .* in ([\d.]+) s, ")


def write_table(path: Path, row_count: int) -> None:
    """Write uniform features and a target that is linear in two of them, all float32, as pyarrow writes by default."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, pa.float32()) for name in (*(f"x{place}" for place in range(FEATURES)), "y")])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, row_count, WRITTEN_ROWS):
            rng, count = np.random.default_rng(start), min(WRITTEN_ROWS, row_count - start)
            columns = {f"x{place}": rng.random(count, np.float32) for place in range(FEATURES)}
            columns["y"] = 3 * columns["x0"] - columns["x1"] + 0.1 * rng.standard_normal(count, np.float32)
            writer.write_table(pa.table(columns))


def prepare(folder: Path, row_count: int) -> None:
    """Write the table, and train and register a model of each kind as champion."""
    from batchlab.config import load_profile
    from batchlab.engine.records import best
    from batchlab.experiment import Experiment
    from batchlab.rows.split import split
    from batchlab.table import pack
    from tasks import registry, store
    from tasks.models import log_model

    write_table(folder / "rows.parquet", row_count)
    write_table(folder / "training.parquet", TRAINING_ROWS)
    for kind in MODELS:
        chosen = [f"model.kind={kind}", "train.epochs=3", "train.learning_rate=0.05"]
        training = str(folder / "training.parquet")
        profile = load_profile("quick", data=training, target="y", strategies=["mini_batch"], overrides=chosen)
        table = pack(profile.source, profile.named_columns(), store.tables())
        experiment = Experiment(profile, table, split(table, profile.split, profile.seed))
        run = store.client().create_run(store.experiment_id(kind)).info.run_id
        uri = log_model(run, experiment, best(experiment.train("mini_batch")))
        registry.promoted(registry.registered(kind, uri, run, {}), None)


def plain_loop(folder: Path, kind: str, batch_rows: int, threads: int) -> dict[str, float]:
    """Score the table as one writes it down: batches to a tensor, through the graph, to a file; no checks, no gaps, nothing signed."""
    import numpy as np
    import pyarrow as pa
    import torch
    from pyarrow import parquet

    from tasks import registry, serving

    torch.set_num_threads(threads or torch.get_num_threads())
    graph = serving.saved_model(registry.version_of(kind)).served.graph
    names, schema = [f"x{place}" for place in range(FEATURES)], pa.schema([("prediction", pa.float64())])
    began, rows = time.perf_counter(), 0
    with parquet.ParquetWriter(folder / "plain.parquet", schema) as writer, torch.no_grad():
        for batch in parquet.ParquetFile(folder / "rows.parquet").iter_batches(batch_rows, columns=names):
            inputs = torch.from_numpy(np.column_stack([column.to_numpy() for column in batch.columns]))
            writer.write_batch(pa.record_batch([pa.array(graph(inputs)[:, 0].numpy())], schema=schema))
            rows += batch.num_rows
    return {"rows": rows, "seconds": time.perf_counter() - began}


def in_own_process(folder: Path, command: list[str]) -> tuple[str, dict[str, float]]:
    """Run a command on the folder's store; return what it printed, its seconds, seconds of processor and peak resident bytes."""
    os.sync()
    environment = {**os.environ, "BATCHLAB_MLRUNS": str(folder / "mlruns"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {process.returncode}")
    taken = {"process_seconds": time.perf_counter() - began, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    return printed, {**taken, "peak_bytes": usage.ru_maxrss * 1024}


def child(folder: Path, *what: str) -> dict[str, Any]:
    """Run a function of this file in a process of its own."""
    printed, found = in_own_process(folder, [sys.executable, "-m", "benchmarks.scoring", "--child", str(folder), *what])
    return found | json.loads(printed.splitlines()[-1])


def predict(folder: Path, kind: str) -> dict[str, Any]:
    """Run the command as a user does."""
    command = [str(Path(sys.executable).with_name("batchlab")), "predict", "--model", kind]
    printed, found = in_own_process(folder, [*command, "--data", str(folder / "rows.parquet"), "--out", str(folder / "out.parquet")])
    told = PREDICTED.search(printed)
    assert told is not None, printed
    return found | {"rows": int(told[1].replace(",", "")), "seconds": float(told[2])}


def measured(row_count: int, repeats: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return the figures of both, in turn, for each model; the largest difference of their predictions is among them."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory(prefix="batchlab-scoring-") as scratch:
        folder = Path(scratch)
        child(folder, "prepare", str(row_count))
        for kind in MODELS:
            turns = found.setdefault(kind, {"predict": [], **{loop: [] for loop in LOOPS}})
            for _ in range(repeats):
                turns["predict"].append(predict(folder, kind))
                for loop, choices in LOOPS.items():
                    turns[loop].append(child(folder, "plain", kind, *map(str, choices)))
            turns["same"] = [child(folder, "compare")]
    return found


def compare(folder: Path) -> dict[str, float]:
    """Return the largest difference between the two files, relative to the largest prediction."""
    import numpy as np
    from pyarrow import parquet

    ours, theirs = (parquet.read_table(folder / name, columns=["prediction"])[0].to_numpy() for name in ("out.parquet", "plain.parquet"))
    return {"difference": float(np.abs(ours - theirs).max() / np.abs(theirs).max())}


def rate(turns: list[dict[str, Any]]) -> float:
    """Return the median of the rows a second."""
    return statistics.median(turn["rows"] / turn["seconds"] for turn in turns)


def row(kind: str, turns: dict[str, list[dict[str, Any]]]) -> str:
    """Return a model's line of the page's table; the ratio is to the fastest of the loops."""
    loop = max(LOOPS, key=lambda loop: rate(turns[loop]))
    plain, ours = turns[loop], turns["predict"]
    ratios = sorted(mine["rows"] / mine["seconds"] * its["seconds"] / its["rows"] for mine, its in zip(ours, plain, strict=True))
    medians = {
        name: [statistics.median(turn[name] for turn in found) for found in (ours, plain)] for name in ("process_seconds", "cpu_seconds")
    }
    peaks = [max(turn["peak_bytes"] for turn in found) / 2**30 for found in (ours, plain)]
    return (
        f"| {MODELS[kind]} | {rate(ours) / 1e6:.2f}M | {rate(plain) / 1e6:.2f}M ({loop}) "
        f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) "
        f"| {' | '.join(f'{mine:.1f} s, {its:.1f} s' for mine, its in medians.values())} | {peaks[0]:.2f} GiB, {peaks[1]:.2f} GiB |"
    )


def page(row_count: int, load: float, found: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """Return the page's lines."""
    from benchmarks import machine

    described, repeats = machine.described(), len(next(iter(found.values()))["predict"])
    difference = max(turns["same"][0]["difference"] for turns in found.values())
    return [
        "# Scoring a file",
        "",
        f"`batchlab predict` beside a plain loop (pyarrow batches → torch tensor → the same exported graph, in float64 → Parquet), on "
        f"{row_count:,} rows × {FEATURES + 1} columns of float32 in one Parquet file, {datetime.date.today().isoformat()}; "
        f"{described['processor']}, {described['cores']} cores. Made by `python -m benchmarks.scoring`: every figure is of a process of "
        f"its own, in turn, medians of {repeats}, the ratio with its range; the load was {load:.1f} when it began.",
        "",
        "| model | `predict`, rows/s | plain loop, rows/s | ratio | whole process: `predict`, loop | of processors | peak memory |",
        "|---|---|---|---|---|---|---|",
        *(row(kind, turns) for kind, turns in found.items()),
        "",
        "Rows/s are those of the pass: reading, scoring, writing, for `predict` with the sync to the disk. The whole process adds imports "
        "and loading the model; of the memory, imports and the model alone take about 0.8 GiB. The loop is tried with "
        f"{', '.join(LOOPS)}; the fastest counts. It checks and signs nothing; `predict` checks "
        "every column and value, and writes version and run beside every prediction. "
        f"The predictions differ by at most {difference:.0e} of the largest.",
        "",
        "`predict` reads in one thread, packs and scores portions in one thread a core, 4,096 rows through the graph at a time, that what "
        "it makes of them stays in the cache, with torch kept to the calling thread: torch's own threads wait for each other at every "
        "operation, and lose far more where another process has a core.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scoring", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        folder, what, *rest = given.child
        work = {"prepare": prepare, "plain": plain_loop, "compare": compare}[what]
        print(json.dumps(work(Path(folder), *(int(word) if word.isdigit() else word for word in rest)) or {}))  # type: ignore[operator]
        return
    rows = 1_000_000 if given.quick else given.rows
    load = os.getloadavg()[0]
    lines = page(rows, load, measured(rows, 1 if given.quick else given.repeats))
    print("\n".join(lines))
    if not given.quick:
        PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
