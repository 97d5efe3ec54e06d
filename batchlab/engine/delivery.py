"""How rows reach the device through torch's DataLoader and its workers; other strategies' rows are gathered by the backend.

The order of rows is the strategy's alone; delivery cannot change it.
"""

import multiprocessing
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from batchlab.strategies import Indices

Blocks = Callable[[], Iterator[Indices]]
"""Makes the stream of index blocks `[seeds, rows]`, one a micro-batch, afresh at each call."""
Batch = tuple[Tensor, Tensor]


def loaded(features: Tensor, target: Tensor, blocks: Blocks, device: torch.device, workers: int) -> Iterator[Batch]:
    """Yield the same batches through one DataLoader for the whole training, each fetched by one indexing, none collated row by row."""
    pinned = device.type == "cuda"
    if workers:
        preload_workers()
    loader: DataLoader[Batch] = DataLoader(
        _Rows(features, target),
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
        rows = torch.from_numpy(block)
        return self.features[rows], self.target[rows]


class _BlockSampler(Sampler[Indices]):
    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def __iter__(self) -> Iterator[Indices]:
        return self.blocks()
