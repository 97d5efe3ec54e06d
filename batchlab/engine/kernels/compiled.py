"""The way into the kernels: compiled once for a machine, kept on disk, called by one thread at a time with BLAS held to one thread."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import llvmlite
import numba
import scipy.linalg.cython_blas  # noqa: F401 (numba's matrix products call it; loaded first, so that its threads can be limited)
from filelock import FileLock
from llvmlite import binding
from threadpoolctl import ThreadpoolController

from batchlab import engine
from batchlab.engine.kernels import training

SOURCES = (
    "networks/activations.py",
    "engine/averaging.py",
    "engine/losses.py",
    "engine/optimizers.py",
    "engine/kernels/parts.py",
    "engine/kernels/linear.py",
    "engine/kernels/mlp.py",
    "engine/kernels/training.py",
)
COMPILING = "BATCHLAB_COMPILING"
"""Set in the process that compiles the kernels for others."""
_ONE_AT_A_TIME = threading.Lock()  # numba's own thread pool ends the process when two threads enter it at once


def call(name: str, threads: int, *arguments: Any) -> None:
    """Run the kernel `name` of `training` on numpy arrays with `threads` threads."""
    kernel, available = _kernels()[name], numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        with _ONE_AT_A_TIME, _blas().limit(limits=1):
            kernel(threads, *arguments)
    finally:
        numba.set_num_threads(available)


@cache
def ready(precision: str) -> None:
    """Have the kernels for this precision on disk, compiled by a process of its own, before this one uses them.

    Code that numba has just compiled rounds otherwise than the same code loaded from disk, by some 1e-8: a comparison that was killed would
    go on with other numbers. Where that process or the disk fails, this one compiles.
    """
    mark = _cache_folder() / f"{precision}-{_toolchain()}"
    if COMPILING in os.environ or mark.exists():
        return
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(mark.parent / ".lock"):
            if not mark.exists() and _compiled_apart(precision):
                mark.touch()


def _compiled_apart(precision: str) -> bool:
    command = [sys.executable, "-P", "-m", "batchlab.engine.kernels.compiling", precision]
    here = os.pathsep.join(filter(None, [str(Path(engine.__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, COMPILING: "1", "PYTHONPATH": here}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode == 0


def _toolchain() -> str:
    """Return a digest of what decides the machine code: another processor or numba compiles anew."""
    parts = (numba.__version__, llvmlite.__version__, binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def cores() -> int:
    """Return how many threads may run at once here: of the processor, this process's share of it, and NUMBA_NUM_THREADS."""
    return min(int(numba.get_num_threads()), int(joblib.cpu_count()))


@cache
def _blas() -> Any:
    return ThreadpoolController().select(internal_api="openblas")


@cache
def _kernels() -> dict[str, Callable[..., None]]:
    # OpenBLAS may hang inside OpenMP loops; numba's own pool is in every build of it.
    numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]
    kernels = {name: getattr(training, name) for name in ("train", "summed_losses")}
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(_cache_folder())  # type: ignore[attr-defined]
    for kernel in kernels.values():
        kernel.enable_caching()
    numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
    return kernels


def _cache_folder() -> Path:
    """Return a folder of this version's own: numba looks only at the file of the outermost function, not at those it is composed of."""
    sources = Path(engine.__file__).parents[1]
    digest = hashlib.sha256(b"".join((sources / name).read_bytes() for name in SOURCES)).hexdigest()[:16]
    beside = sources / "engine" / "kernels" / "__pycache__"
    if numba.config.CACHE_DIR:  # type: ignore[attr-defined]
        return Path(numba.config.CACHE_DIR) / f"kernels-{digest}"  # type: ignore[attr-defined]
    home = beside if os.access(beside if beside.exists() else beside.parent, os.W_OK) else Path.home() / ".cache" / "batchlab"
    return home / f"kernels-{digest}"
