"""What every strategy is: a pure function from (seed, epoch) to the order of rows and its steps."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchlab.errors import BadInput
from batchlab.records import Record

if TYPE_CHECKING:
    from batchlab.scattered import Scattered

Indices = NDArray[np.integer]
Step = list[Indices]
"""One update of the weights: the row indices of its micro-batches, whose gradient is summed."""


@dataclass(frozen=True)
class Order:
    """One epoch: the row indices in their order, cut into micro-batches at `portions` and into steps at `steps`.

    Both hold where in `rows` a cut is made, ascending, the end of `rows` included; every step ends where a micro-batch ends.
    """

    rows: Indices
    portions: Indices
    steps: Indices

    def after(self, steps_done: int) -> "Order":
        """Return the order without its first `steps_done` steps."""
        if steps_done == 0:
            return self
        start = self.steps[steps_done - 1]
        first = int(np.searchsorted(self.portions, start, side="right"))
        return Order(self.rows[start:], self.portions[first:] - start, self.steps[steps_done:] - start)

    def __iter__(self) -> Iterator[Step]:
        """Yield the steps, each with its micro-batches."""
        portions = np.split(self.rows, self.portions[:-1])
        last = np.searchsorted(self.portions, self.steps)
        for first, end in zip([0, *(last[:-1] + 1)], last + 1, strict=True):
            yield portions[first:end]


@dataclass(frozen=True)
class Population:
    """What a strategy may know of the training rows: their number and, for sampling, their classes `[rows]` and weights `[rows]`."""

    row_count: int
    classes: Indices | None = None
    weights: NDArray[np.float64] | None = None


class Strategy(Record, ABC):
    """How training rows become updates: which rows, in which order, in which portions, delivered how."""

    kind: str

    @abstractmethod
    def order(self, population: Population, seed: int, epoch: int) -> Order:
        """Return the rows of one epoch, cut into steps; the same for the same (seed, epoch), whoever delivers the rows."""

    def pieces(self, population: Population, seed: int, epoch: int, steps_done: int = 0) -> Iterator[Order]:
        """Yield the rows of `order` after its first `steps_done` steps in pieces of whole steps, cut alike for every seed.

        Here it is one piece, made of the whole order. A strategy for tables larger than memory makes one piece after the other.
        """
        whole = self.order(population, seed, epoch)
        if steps_done < len(whole.steps):
            yield whole.after(steps_done)

    def rows_drawn_at_once(self, row_count: int) -> int:
        """Rows whose order is drawn together, of `row_count` training rows: all, unless `pieces` draws them one after the other."""
        return row_count

    @abstractmethod
    def rows_per_step(self, row_count: int) -> int:
        """Rows behind one update, of `row_count` training rows; the last step of an epoch may have fewer."""

    def rows_per_portion(self, row_count: int) -> int:
        """Rows of the largest micro-batch of an epoch's first steps: what a gradient is computed of at once."""
        return self.rows_per_step(row_count)

    def rows_per_piece(self, row_count: int) -> int:
        """Rows of which the order is in memory at once, for one seed."""
        return row_count

    @property
    def adapts(self) -> bool:
        """Whether `adapted` makes another strategy of this one as training goes on."""
        return False

    def adapted(self, noise_scale: float) -> "Strategy":
        """Return the strategy to go on with, given the gradient noise scale in rows (infinite where noise is all there is)."""
        return self

    @property
    def takes_grid(self) -> bool:
        """Whether a search tries this strategy at every batch size of its grid: it has one, and nobody said which."""
        return "batch_rows" in type(self).model_fields and "batch_rows" not in self.model_fields_set and not self.grows

    @property
    def grows(self) -> bool:
        """Whether the batch changes from epoch to epoch."""
        return False

    @property
    def updates(self) -> "Strategy":
        """What decides the updates of the weights. Strategies with equal `updates` train alike and differ in delivery and memory."""
        return self

    @property
    def weighted_by(self) -> str | None:
        """The column that weighs the rows, which is then no feature."""
        return None

    @property
    def loader_workers(self) -> int | None:
        """DataLoader worker processes that deliver the rows (0: in this process); None gathers straight from the packed rows."""
        return None

    def check(self, population: Population) -> None:
        """Raise BadInput when a step needs more rows than the training split has."""
        needed = self.rows_per_step(population.row_count)
        if needed > population.row_count:
            raise BadInput(
                f"batch_rows is {needed} but the training split has {population.row_count} rows; "
                f"use at most {population.row_count}, or the full_batch strategy."
            )


REMEMBERED_ROWS, MOST_REMEMBERED = 2**25, 4096
"""Orders of so many rows together are remembered: every strategy and optimizer, and every stretch of a training, asks for the same ones."""
PIECE_ROWS = 2**16
"""A piece of an epoch's order has about so many rows: as many as a run."""
MOST_DRAWN_WHOLE, MOST_SCATTERED = 2**22, 64
"""The order of more rows than this is not held in memory whole: 84 MB a seed at 21 million rows."""
_scattered: "OrderedDict[tuple[int, int, int], Scattered]" = OrderedDict()
_remembered: "OrderedDict[tuple[int, int, int], Indices]" = OrderedDict()


def permutation(row_count: int, seed: int, epoch: int) -> Indices:
    """Return the order of all rows in one epoch, a pure function of its arguments; not to be written to."""
    if row_count > MOST_DRAWN_WHOLE:
        return part_of_permutation(row_count, seed, epoch, 0, row_count)
    key = (row_count, seed, epoch)
    found = _remembered.get(key)
    if found is None:
        found = shuffled(row_count, generator(seed, epoch))
        found.flags.writeable = False
        _remembered[key] = found
        while len(_remembered) * row_count > REMEMBERED_ROWS or len(_remembered) > MOST_REMEMBERED:
            _remembered.popitem(last=False)
    return found


def part_of_permutation(row_count: int, seed: int, epoch: int, start: int, stop: int) -> Indices:
    """Return the same order from place `start` to `stop`; of more than `MOST_DRAWN_WHOLE` rows without the rest of it."""
    if row_count <= MOST_DRAWN_WHOLE:
        return permutation(row_count, seed, epoch)[start:stop]
    from batchlab.scattered import Scattered

    key = (row_count, seed, epoch)
    if key not in _scattered:
        _scattered[key] = Scattered(row_count, generator(seed, epoch))
        if len(_scattered) > MOST_SCATTERED:
            _scattered.popitem(last=False)
    return _scattered[key].rows(start, stop).astype(short(row_count), copy=False)


def shuffled(row_count: int, rng: np.random.Generator) -> Indices:
    """Return the numbers up to `row_count` in random order; torch's shuffle takes half the time of numpy's."""
    import torch

    stream = torch.Generator().manual_seed(int(rng.integers(2**63)))
    number = torch.int32 if row_count < 2**31 else torch.int64
    return torch.randperm(row_count, generator=stream, dtype=number).numpy()


def generator(seed: int, *place: int) -> np.random.Generator:
    """Return the random numbers of one epoch, or of one part of an epoch: a stream of its own, shared with no other `place` or seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))


def whole_steps(row_count: int, batch_rows: int) -> int:
    """Return how many rows make a piece of an order: about as many as a run, and whole batches."""
    return min(row_count, batch_rows * max(1, PIECE_ROWS // batch_rows))


def ascending(row_count: int) -> Indices:
    """Return all rows as they stand, in the shortest numbers that hold them."""
    return np.arange(row_count, dtype=short(row_count))


def short(row_count: int) -> type[np.integer]:
    """Return the shortest type of number that indices of so many rows fit into: half the memory, and a third of the time."""
    return np.int32 if row_count < 2**31 else np.int64


def in_batches(rows: Indices, batch_rows: int) -> Order:
    """Return `rows` with one step for every `batch_rows` of them; the last may be short."""
    ends = cuts(len(rows), batch_rows)
    return Order(rows, ends, ends)


def cuts(row_count: int, portion_rows: int) -> Indices:
    """Return where portions of `portion_rows` end; the last may be short."""
    number = short(row_count)
    return np.append(np.arange(min(portion_rows, row_count), row_count, portion_rows, dtype=number), number(row_count))
