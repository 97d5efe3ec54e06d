"""How rows reach the steps: gathered by the backend from tables in memory or mapped into it, read ahead from files, or through
torch's DataLoader and its workers.

The order of rows is the strategy's alone; delivery cannot change it.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from batchlab.engine.data import StoredRows, TrainingData
from batchlab.engine.ranks import Ranks, ranks_here
from batchlab.engine.records import Plan
from batchlab.engine.runs import Run, Window
from batchlab.engine.schedule import runs
from batchlab.engine.streams import Stream
from batchlab.files.mapped import gathered
from batchlab.sources.items import inputs_of
from batchlab.strategies import Indices, Population, Strategy
from batchlab.strategies.streaming import Streaming

Blocks = Callable[[], Iterator[Indices]]
"""Makes the stream of index blocks `[seeds, rows]`, one a micro-batch, afresh at each call."""
Batch = tuple[Tensor, Tensor]
Rows = Iterator[Batch] | Window | None
"""A run's rows: micro-batch by micro-batch, or all in memory; None where the backend gathers them from the training rows itself."""
Delivered = tuple[Run, Rows]
"""A run, or this process's part of it, with its rows."""

RUN_ROWS = 2**16
"""A run is at most so many rows long, but for its last step: bounded memory, and progress in good time."""
LOOKED_UP_BYTES = 2**25
"""Of rows in files a run has at most so many bytes, but for its last step."""
GATHERED_ROWS = 2**14
"""Batches for a loop of your own are gathered so many rows at a time: what the caches hold."""


@contextmanager
def delivery(
    data: TrainingData,
    strategy: Strategy,
    seeds: Sequence[int],
    divisions: NDArray[np.intp],
    plan: Plan,
    most_rows: int,
    device: torch.device,
    steps_done: int = 0,
) -> Iterator[Callable[[Run], Delivered]]:
    """Hand out what returns each run's rows, run after run, those after `steps_done` steps: of every seed, in its division, and of them
    this process's part. Whatever reads ahead ends with the block, however that is left."""
    ranks = ranks_here()
    if strategy.loader_workers is not None:
        blocks = _blocks(data, strategy, seeds, divisions, plan, most_rows, steps_done)
        batches = loaded(data.features, data.target, blocks, device, strategy.loader_workers, data.stored)
        yield lambda run: (ranks.part_of(run), batches)
    elif data.stored is not None and isinstance(strategy, Streaming):
        with Stream(data.stored, strategy, seeds, longest_run(strategy, data.population, most_rows), ranks) as stream:
            yield stream.delivered
    elif data.stored is not None:
        yield partial(_looked_up, data, data.stored, ranks)
        data.stored.release()
    else:
        yield lambda run: (ranks.part_of(run), None)


def longest_run(strategy: Strategy, population: Population, most_rows: int) -> int:
    """Return how long a run can be: its last step may go past `most_rows`."""
    return most_rows + strategy.rows_per_step(population.row_count)


def _looked_up(data: TrainingData, stored: StoredRows, ranks: Ranks, whole: Run) -> Delivered:
    """Return this process's part of the run with its rows, read plainly from their files.

    A step of more than `LOOKED_UP_BYTES` is left to the maps: its pages stay until the next run, or until the system wants them.
    """
    stored.release()
    run = ranks.part_of(whole)
    for rows in run.rows:
        stored.expect(rows)
    if run.rows.size * row_bytes(data) > LOOKED_UP_BYTES:
        return run, None
    features, target = (np.stack([gathered(array, rows) for rows in run.rows]) for array in stored.arrays)
    return run, Window(features, target, np.broadcast_to(np.arange(run.rows.shape[1], dtype=np.int32), run.rows.shape).copy())


def row_bytes(data: TrainingData) -> int:
    """Return the bytes of a training row."""
    return int(data.features[:1].nbytes + data.target[:1].nbytes)


def looked_up_rows(data: TrainingData, seeds: int) -> int:
    """Return how many rows of each seed can be copied from files at once."""
    return max(1, LOOKED_UP_BYTES // (seeds * row_bytes(data)))


def streamed(stored: StoredRows, strategy: Streaming, seed: int, epochs: int, steps_done: int = 0) -> Iterator[Batch]:
    """Yield batches of shuffled rows, features `[rows, features]` and target `[rows]`, read ahead from files; for a loop of your own.

    Those after the first `steps_done`, where a loop was stopped there.
    """
    population = Population(len(stored.arrays[1]))
    strategy.check(population)
    plan = Plan(epochs=epochs, evaluations=1)
    with Stream(stored, strategy, [seed], longest_run(strategy, population, GATHERED_ROWS)) as stream:
        for run in runs(strategy, population, [seed], plan, GATHERED_ROWS, steps_done=steps_done):
            _, window = stream.delivered(run)
            # gathered by numpy: torch's threads and those that read get in each other's way
            features = torch.from_numpy(window.features[0].take(window.order[0], axis=0))
            target = torch.from_numpy(window.target[0].take(window.order[0]))
            sizes = np.diff(run.steps, prepend=0).tolist()
            yield from zip(torch.split(features, sizes), torch.split(target, sizes), strict=True)


def batches_of(window: Window, run: Run, device: torch.device) -> Iterator[Batch]:
    """Yield the run's micro-batches, features `[seeds, rows, features]` and target `[seeds, rows]`, on the device."""
    features, target, order = (torch.from_numpy(array) for array in (window.features, window.target, window.order))
    tables = torch.arange(len(features), dtype=order.dtype)[:, None]
    for spans in run.spans():
        for span in spans:
            rows = order[:, span]
            yield features[tables, rows].to(device), target[tables, rows].to(device)


def _blocks(
    data: TrainingData,
    strategy: Strategy,
    seeds: Sequence[int],
    divisions: NDArray[np.intp],
    plan: Plan,
    most_rows: int,
    steps_done: int,
) -> Blocks:
    ranks = ranks_here()

    def blocks() -> Iterator[Indices]:
        for whole in runs(strategy, data.population, seeds, plan, most_rows, steps_done=steps_done):
            run = ranks.part_of(replace(whole, rows=data.in_pool(whole.rows, divisions, seeds, whole.rows_before)))
            rows = run.rows
            for spans in run.spans():
                yield from (rows[:, span] for span in spans)

    return blocks


def loaded(
    features: Tensor, target: Tensor, blocks: Blocks, device: torch.device, workers: int, stored: StoredRows | None = None
) -> Iterator[Batch]:
    """Yield the same batches through one DataLoader for the whole training, each fetched by one indexing, none collated row by row.

    Workers map rows that are `stored` into memory themselves, instead of sharing a copy of them.
    """
    pinned = device.type == "cuda"
    if workers:
        preload_workers()
    loader: DataLoader[Batch] = DataLoader(
        _Rows(features, target) if stored is None else _StoredRows(stored),
        sampler=_BlockSampler(blocks),
        batch_size=None,
        num_workers=workers,
        pin_memory=pinned,
        # Forked workers die once a Prefect task has run in the process.
        multiprocessing_context="forkserver" if workers else None,
    )
    for batch_features, batch_target in loader:
        yield batch_features.to(device, non_blocking=pinned), batch_target.to(device, non_blocking=pinned)


def preload_workers() -> None:
    """Let the process that workers are forked from import torch once, before its first start, instead of each worker by itself."""
    multiprocessing.set_forkserver_preload(["torch", __name__])


class _Rows(Dataset[Batch]):
    """Rows that are fetched a whole block at a time."""

    def __init__(self, features: Tensor, target: Tensor) -> None:
        self.features, self.target = features, target

    def __getitem__(self, block: Indices) -> Batch:
        rows = torch.tensor(block)
        return self.features[rows], self.target[rows]


class _StoredRows(Dataset[Batch]):
    """The same of rows in files; whoever fetches opens them for itself."""

    def __init__(self, stored: StoredRows) -> None:
        self.stored = stored

    def __getitem__(self, block: Indices) -> Batch:
        features, target = self.stored.arrays
        return torch.from_numpy(gathered(features, block)), torch.from_numpy(gathered(target, block))


class NumberedItems(Dataset[Batch]):
    """A data set's items as a loop fetches them: all numbers of the inputs, and the item's number, by which its target is known."""

    def __init__(self, items: Any, target: str | None) -> None:
        self.items, self.target = items, target

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Batch:
        return torch.from_numpy(np.array(self.inputs(number), order="C").reshape(-1)), torch.tensor(number)

    def inputs(self, number: int) -> NDArray[Any]:
        """Fetch an item, as its own code makes it."""
        return inputs_of(self.items, number, self.target)


class _BlockSampler(Sampler[Indices]):
    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def __iter__(self) -> Iterator[Indices]:
        return self.blocks()
