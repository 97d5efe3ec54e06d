"""Does a DataLoader pay, and do workers? Rows delivered a second: slices of the packed rows beside DataLoaders with 0, 1, … workers."""

import multiprocessing
import time
from collections.abc import Iterator
from itertools import islice

import joblib
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from batchlab.engine.data import TrainingData
from batchlab.engine.delivery import loaded, preload_workers
from batchlab.search.timings import Delivery
from batchlab.strategies import Indices
from batchlab.strategies.mini_batch import MiniBatch

FIRST = np.zeros(1, np.intp)
"""Rows are those of the first division, where there are several."""
SECONDS, MOST_BATCHES, MOST_WORKERS = 0.25, 4000, 4


def deliveries(data: TrainingData, batch_rows: int, seed: int) -> list[Delivery]:
    """Measure slicing, the DataLoader as people write it (row by row), and one that fetches whole batches, with 0..n workers."""
    workers = range(min(joblib.cpu_count(), MOST_WORKERS) + 1)
    rows = TensorDataset(data.features, data.target)
    found = [_timed("slices", 0, _slices(data, batch_rows, seed), batch_rows)]
    for count in workers:
        plain = DataLoader(rows, batch_rows, shuffle=True, num_workers=count, multiprocessing_context="forkserver" if count else None)
        found.append(_timed("DataLoader, row by row", count, iter(plain), batch_rows))
    for count in workers:
        blocks = loaded(data.features, data.target, lambda: _blocks(data, batch_rows, seed), torch.device("cpu"), count)
        found.append(_timed("DataLoader, whole batches", count, blocks, batch_rows))
    return found


def warm_workers() -> None:
    """Start the process that workers are forked from, with torch imported: then a worker starts at once."""
    preload_workers()
    with multiprocessing.get_context("forkserver").Pool(1) as pool:  # answers once everything is imported
        pool.apply(int)


def _blocks(data: TrainingData, batch_rows: int, seed: int) -> Iterator[Indices]:
    strategy = MiniBatch(batch_rows=batch_rows)
    for epoch in range(2**31):
        for step in strategy.order(data.population, seed, epoch):
            yield data.in_pool(step[0][None], FIRST, (seed,))


def _slices(data: TrainingData, batch_rows: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for block in _blocks(data, batch_rows, seed):
        rows = torch.from_numpy(block[0])
        yield data.features[rows], data.target[rows]


def _timed(label: str, workers: int, batches: "Iterator[object]", batch_rows: int) -> Delivery:
    began = time.perf_counter()
    next(batches)
    first = time.perf_counter()
    for _ in islice(batches, 2 * workers):  # batches come in turn from all workers, so all are up after these
        pass
    count, started = 0, time.perf_counter()
    now = started
    for _ in islice(batches, MOST_BATCHES):
        count, now = count + 1, time.perf_counter()
        if now - started > SECONDS:
            break
    rate = count * batch_rows / (now - started) if count else batch_rows / max(first - began, 1e-9)
    return Delivery(label, workers, rate, first - began)
