"""Where the time of a loop goes that fetches a data set's items anew: their own code, batches, the model; and what workers gain."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, repeat

import joblib
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from batchlab.engine.backends.base import seeded_network
from batchlab.engine.delivery import Batch, NumberedItems, preload_workers
from batchlab.errors import BatchlabError
from batchlab.experiment import Experiment
from batchlab.imported import imported
from batchlab.results import Fetching
from batchlab.search.loaders import MOST_WORKERS
from batchlab.sources.items import GivenItems
from batchlab.sources.unloaded import iterates, without_loader

LOOP_SECONDS, LOOP_SHARE = 1.0, 1 / 12
"""A loop is measured for so long with each number of workers, and for no more than this share of the time for all: workers take as long
to start."""
PART_SECONDS, STRETCHES = 0.3, 5
"""Each part of a step is measured for so long by itself, in so many stretches."""
BATCH_SECONDS = 0.25
"""A batch of the measured loop takes no longer to fetch: it has fewer rows where it would."""
STUCK_SECONDS = 30
"""A worker that delivers nothing for so long has stopped."""
TINY_RATE, FIRST_ROWS = 1e-9, 2
Step = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True)
class Loop:
    """A plain loop of an experiment's network over a data set's items: `step` passes rows forward and backward and hardly moves weights."""

    items: NumberedItems
    features: Tensor
    step: Step
    device: torch.device
    order: Sequence[int]
    fewest: int
    """Rows of a step at least: batch norm does not train on one."""

    @classmethod
    def of(cls, given: GivenItems, experiment: Experiment) -> "Loop":
        """Return the loop, with the network and the data set made."""
        data, device = experiment.data, experiment.device
        data_set = without_loader(imported(given.data, "source.factory")()) if isinstance(given.data, str) else given.data
        if iterates(data_set):
            raise BatchlabError("the data set is iterable: its items have no numbers to be fetched by")
        order = np.random.default_rng(experiment.profile.seed).permutation(len(data_set)).tolist()
        fewest = 2 if experiment.model.traits(*experiment.shape).needs_rows else 1
        return cls(NumberedItems(data_set, given.target), data.features, _step(experiment), device, order, fewest)

    def measured(self, sizes: Sequence[int], seconds: float) -> Fetching:
        """Measure with 0, 1, … workers, for about so many seconds, at about the first of these rows a step; and steps of all these sizes
        with rows in memory."""
        ends, device = time.perf_counter() + seconds, self.device
        decode = _seconds(self.items.inputs(number) for number in cycle(self.order))
        batch_rows = max(self.fewest, min(sizes[0], len(self.items), int(BATCH_SECONDS / decode)))
        batch = [self.items[number] for number in self.order[:batch_rows]]
        rows, _ = default_collate(batch)
        return Fetching(
            items=len(self.items),
            batch_rows=batch_rows,
            decode_seconds=decode,
            collate_seconds=_seconds(default_collate(batch) for _ in repeat(None)) / batch_rows,
            copy_seconds=0.0 if device.type == "cpu" else _seconds(_copied(rows, device) for _ in repeat(None)) / batch_rows,
            step_seconds={size: self._step_seconds(size) for size in sorted({batch_rows, *(max(self.fewest, size) for size in sizes)})},
            trained=self._trained(batch_rows, min(LOOP_SECONDS, LOOP_SHARE * seconds), ends),
            cores=joblib.cpu_count(),
        )

    def _step_seconds(self, size: int) -> float:
        numbers = torch.arange(size) % len(self.features)
        rows = self.features[numbers].to(self.device)
        return _seconds(self.step(rows, numbers) for _ in repeat(None))

    def _trained(self, batch_rows: int, seconds: float, ends: float) -> dict[int, float]:
        """Return the rows a second that the loop trains by its workers, as many of them as there is time to try."""
        found: dict[int, float] = {}
        for workers in range(min(joblib.cpu_count(), MOST_WORKERS) + 1):
            began = time.perf_counter()
            found[workers] = _rows_a_second(_loader(self.items, batch_rows, workers, self.device), self.step, seconds)
            if (now := time.perf_counter()) + (now - began) > ends:
                break
        return found


def _step(experiment: Experiment) -> Step:
    """Return a step of the loop, which was made once."""
    data, device = experiment.data, experiment.device
    network = seeded_network(experiment.model, experiment.shape, experiment.profile.seed).to(device, data.features.dtype).train()
    optimizer = torch.optim.SGD((weights for weights in network.parameters() if weights.requires_grad), TINY_RATE)
    targets = data.target.to(device)

    def step(rows: Tensor, numbers: Tensor) -> object:
        loss = experiment.loss.per_row(network(rows.to(device, data.features.dtype)), targets[numbers.to(device) % len(targets)]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item() if device.type == "cuda" else loss

    few = torch.arange(FIRST_ROWS) % len(data.features)
    step(data.features[few], few)
    return step


def _loader(items: NumberedItems, batch_rows: int, workers: int, device: torch.device) -> DataLoader[Batch]:
    if workers:
        preload_workers()
    return DataLoader(
        items,
        batch_rows,
        shuffle=True,
        drop_last=True,  # a last batch of another size has other costs
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        timeout=STUCK_SECONDS if workers else 0,
    )


def _rows_a_second(loader: DataLoader[Batch], step: Step, seconds: float) -> float:
    """Return the rows a second that the loop trains once all workers are up."""
    batches = (batch for _ in repeat(None) for batch in loader)
    for _, batch in zip(range(2 * loader.num_workers + 1), batches, strict=False):  # they come in turn from all workers: all are up then
        step(*batch)
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or not count:
        rows, numbers = next(batches)
        step(rows, numbers)
        count += len(rows)
    return count / passed


def _seconds(work: Iterator[object]) -> float:
    """Return the seconds of one piece of endless work, after a first one: the median of a few stretches, since others disturb some."""
    next(work)
    return float(np.median([_stretch(work, PART_SECONDS / STRETCHES) for _ in range(STRETCHES)]))


def _stretch(work: Iterator[object], seconds: float) -> float:
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or not count:
        next(work)
        count += 1
    return passed / count


def _copied(rows: Tensor, device: torch.device) -> Tensor:
    there = rows.to(device)
    torch.cuda.synchronize(device)
    return there
