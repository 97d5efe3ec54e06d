"""How the cost grows: with rows, replicas, features, widths and cores; and memory, predicted and measured."""

import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numba
import torch

from batchlab.engine.memory import footprint
from batchlab.engine.records import Plan
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.mini_batch import MiniBatch
from benchmarks.grid import Tell
from benchmarks.peers import batchlab
from benchmarks.problems import Work, made_rows

MLP = Mlp(widths=(64, 64))


def measured(quick: bool, tell: Tell) -> dict[str, Any]:
    """Measure one axis after the other; seconds a million replica-rows, medians of three."""
    few = slice(None, None, 2) if quick else slice(None)
    tell("growth with rows")
    rows = {
        model.kind: _along((Work(model, 256, row_count=count) for count in (10**4, 10**5, 10**6, 10**7)[: 3 if quick else 4]), "row_count")
        for model in (Linear(), MLP)
    }
    made_rows.cache_clear()
    tell("growth with replicas")
    replicas = {
        model.kind: _along((Work(model, 256, count, row_count=5000) for count in (1, 2, 8, 32, 128, 512)[few]), "replicas")
        for model in (Linear(), MLP)
    }
    tell("growth with features")
    features = {
        model.kind: _along((Work(model, 256, 8, row_count=5000, features=count) for count in (4, 16, 64, 256, 512)[few]), "features")
        for model in (Linear(), MLP)
    }
    tell("growth with widths")
    widths = {backend: [_width(width, backend) for width in (16, 64, 256, 512, 1024)[few]] for backend in ("kernels", "torch")}
    return {
        "rows": rows,
        "replicas": replicas,
        "features": features,
        "widths": widths,
        "cores": cores(tell),
        "memory": memory(quick, tell),
    }


def _seconds_per_million(work: Work, backend: str = "auto") -> float:
    """Return the median seconds of three, of at least 100,000 rows each so that starting costs little."""
    work = replace(work, epochs=max(1, 100_000 // work.rows_trained) if work.widest < 256 else 1)
    batchlab(work, backend)
    return statistics.median(batchlab(work, backend)[0] for _ in range(3)) / work.rows_trained * 1e6


def _along(works: Iterable[Work], axis: str) -> list[tuple[int, float]]:
    return [(getattr(work, axis), _seconds_per_million(work)) for work in works]


def _width(width: int, backend: str) -> tuple[int, float]:
    return width, _seconds_per_million(Work(Mlp(widths=(width, width)), 256, 8, row_count=2048 if width < 500 else 1024), backend)


def cores(tell: Tell) -> list[dict[str, Any]]:
    """Measure the same work on one core and on all, in turn, and the share of the speed-up that more cores could give."""
    tell("cores")
    available = numba.get_num_threads()
    results = []
    for work in (
        *(Work(MLP, batch, 1, epochs=4) for batch in (32, 256, 2048)),
        Work(MLP, 256, 8),
        Work(MLP, 256, 64),
        Work(Linear(), 256, 64),
    ):
        seconds: dict[int, list[float]] = {1: [], available: []}
        batchlab(work)
        for _ in range(5):
            for count, taken in seconds.items():
                numba.set_num_threads(count)
                taken.append(batchlab(work)[0])
        speed_up = statistics.median(seconds[1]) / statistics.median(seconds[available])
        results.append({"work": work.name, "cores": available, "speed_up": speed_up, "share_of_linear": speed_up / available})
    return results


def memory(quick: bool, tell: Tell) -> list[dict[str, Any]]:
    """Measure the peak memory that a training adds, each in a process of its own, beside what was predicted."""
    results = []
    for backend in ("kernels", "torch"):
        for replicas in (8, 64) if quick else (8, 64, 256):
            for batch in (256, 8192):
                tell(f"memory, {backend}, {replicas} replicas, batch {batch}")
                work = Work(Mlp(widths=(256, 256)), batch, replicas, row_count=8192)
                strategy = FullBatch() if batch == work.row_count else MiniBatch(batch_rows=batch)
                plan = Plan(backend=backend)  # type: ignore[arg-type]
                predicted = footprint(work.data, work.model, strategy, plan, torch.device("cpu")).of(replicas)
                if predicted > 6 * 2**30:
                    continue
                grown = _peak_of(work, backend)
                results.append({"backend": backend, "replicas": replicas, "batch_rows": batch, "predicted": predicted, "measured": grown})
    return results


def _peak_of(work: Work, backend: str) -> int:
    """Return the bytes by which the training raises this system's high-water mark of a fresh process that has trained before (Linux)."""
    code = (
        "from dataclasses import replace; from batchlab.models.mlp import Mlp; import gc\n"
        "from benchmarks.peers import batchlab; from benchmarks.problems import Work\n"
        "def mark(): return next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        f"work = Work(Mlp(widths=(256, 256)), {work.batch_rows}, {work.replicas}, row_count={work.row_count})\n"
        f"batchlab(replace(work, replicas=1, batch_rows=8), {backend!r}); gc.collect()\n"
        "open('/proc/self/clear_refs', 'w').write('5'); before = mark()\n"
        f"batchlab(work, {backend!r}); print(mark() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])
