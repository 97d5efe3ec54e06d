"""What this machine can do: the matrix peak as torch's own large product measures it on all cores, and the memory bandwidth."""

import os
import time

import numpy as np
import torch

from batchlab.cluster.nodes import processor

SIDE, COPIED_BYTES, REPEATS = 2048, 2**28, 7


def described() -> dict[str, object]:
    """Return the processor, the cores and the measured peaks."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "gflops": matrix_gflops(),
        "gigabytes_per_second": copy_bandwidth(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def matrix_gflops() -> float:
    """Return the GFLOP/s of the fastest of several 2048³ float32 products."""
    left, right = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return 2 * SIDE**3 / _fastest(lambda: left @ right) / 1e9


def copy_bandwidth() -> float:
    """Return the GB/s of the fastest of several copies far larger than any cache, read and write counted."""
    source = np.ones(COPIED_BYTES // 8)
    goal = np.empty_like(source)
    return 2 * COPIED_BYTES / _fastest(lambda: np.copyto(goal, source)) / 1e9


def _fastest(work: object) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()  # type: ignore[operator]
        seconds.append(time.perf_counter() - started)
    return min(seconds)
