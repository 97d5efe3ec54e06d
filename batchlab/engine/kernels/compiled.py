"""The way into the kernels: compiled once for a machine, kept on disk, called by one thread at a time with BLAS held to one thread."""

import hashlib
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numba
import scipy.linalg.cython_blas  # noqa: F401 (numba's matrix products call it; loaded first, so that its threads can be limited)
from threadpoolctl import ThreadpoolController

from batchlab import engine
from batchlab.engine.kernels import training

SOURCES = (
    "activations.py",
    "averaging.py",
    "losses.py",
    "optimizers.py",
    "kernels/parts.py",
    "kernels/linear.py",
    "kernels/mlp.py",
    "kernels/training.py",
)
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
    sources = Path(engine.__file__).parent
    digest = hashlib.sha256(b"".join((sources / name).read_bytes() for name in SOURCES)).hexdigest()[:16]
    beside = sources / "kernels" / "__pycache__"
    if numba.config.CACHE_DIR:  # type: ignore[attr-defined]
        return Path(numba.config.CACHE_DIR) / f"kernels-{digest}"  # type: ignore[attr-defined]
    home = beside if os.access(beside if beside.exists() else beside.parent, os.W_OK) else Path.home() / ".cache" / "batchlab"
    return home / f"kernels-{digest}"
