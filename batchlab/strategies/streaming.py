from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from batchlab.errors import BadInput
from batchlab.strategies.base import Indices, Order, Population, Strategy, generator, in_batches, short, shuffled, whole_steps


class Streaming(Strategy):
    """Shuffled mini-batches of tables larger than memory: blocks of consecutive rows pass through a buffer in which rows are shuffled.

    The table is read in blocks of `block_rows`. A buffer holds at most `buffer_rows` rows' worth of blocks, and takes one at random
    from each of as many equal stretches of the table, so that every buffer has rows of everywhere, also of a table that is sorted. Its
    rows leave in random order, cut into batches, which may begin in one buffer and end in the next; the last of an epoch may be short.
    A buffer that holds all rows is a global shuffle. `workers` threads read files ahead (0: only the system does) and change no order.
    """

    kind: Literal["streaming"] = "streaming"
    batch_rows: PositiveInt = 32
    block_rows: PositiveInt = 1024
    buffer_rows: PositiveInt = 2**18
    workers: NonNegativeInt = 2

    def order(self, population: Population, seed: int, epoch: int) -> Order:
        buffers = self.buffers(population.row_count, seed, epoch)
        return in_batches(np.concatenate([buffer.shuffled() for buffer in buffers]), self.batch_rows)

    def pieces(self, population: Population, seed: int, epoch: int, steps_done: int = 0) -> Iterator[Order]:
        parts = shuffled_after(self.buffers(population.row_count, seed, epoch), steps_done * self.batch_rows)
        for rows in regrouped(parts, self.rows_per_piece(population.row_count)):
            yield in_batches(rows, self.batch_rows)

    def rows_per_step(self, row_count: int) -> int:
        return self.batch_rows

    def rows_per_piece(self, row_count: int) -> int:
        return whole_steps(row_count, self.batch_rows)

    def rows_drawn_at_once(self, row_count: int) -> int:
        return min(row_count, self.most_blocks(row_count) * self.block_rows)

    def buffer_count(self, row_count: int) -> int:
        """Return how many buffers an epoch passes through."""
        return -(-self._block_count(row_count) // (self.buffer_rows // self.block_rows))

    def most_blocks(self, row_count: int) -> int:
        """Return the blocks of the fullest buffer: all have as many, or one less."""
        return -(-self._block_count(row_count) // self.buffer_count(row_count))

    def buffers(self, row_count: int, seed: int, epoch: int) -> "list[Buffer]":
        """Return the buffers of one epoch in their order: each of the stretches of the table gives one random block to each of them."""
        blocks, count = self._block_count(row_count), self.buffer_count(row_count)
        stretches = np.tile(np.arange(count, dtype=np.int32), (self.most_blocks(row_count), 1))
        goes_to = generator(seed, epoch).permuted(stretches, axis=1).ravel()[:blocks]
        by_buffer = np.argsort(goes_to, kind="stable").astype(short(blocks))
        ends = np.cumsum(np.bincount(goes_to, minlength=count))[:-1]
        parts = np.split(by_buffer, ends)
        return [Buffer(part, self.block_rows, row_count, (seed, epoch, number)) for number, part in enumerate(parts)]

    @property
    def updates(self) -> Strategy:
        return self.model_copy(update={"workers": type(self).model_fields["workers"].default})

    def check(self, population: Population) -> None:
        """Raise BadInput when a step needs more rows than there are, or a buffer cannot hold a block."""
        super().check(population)
        if self.block_rows > self.buffer_rows:
            raise BadInput(
                f"block_rows is {self.block_rows} but the buffer holds {self.buffer_rows} rows (buffer_rows); use blocks of at most "
                f"{self.buffer_rows} rows, better a hundredth of that, or a larger buffer."
            )

    def _block_count(self, row_count: int) -> int:
        return -(-row_count // self.block_rows)


class Buffer:
    """The blocks that are in memory together, ascending, and the random numbers that shuffle their rows."""

    def __init__(self, blocks: Indices, block_rows: int, row_count: int, stream: tuple[int, int, int]) -> None:
        self.blocks, self.block_rows, self.table_rows, self.stream = blocks, block_rows, row_count, stream

    def __len__(self) -> int:
        """Return the rows of all blocks; only the table's last block may be short."""
        missing = (int(self.blocks[-1]) + 1) * self.block_rows - self.table_rows
        return len(self.blocks) * self.block_rows - max(0, missing)

    def shuffled(self) -> Indices:
        """Return the row indices in random order."""
        number = short(self.table_rows + self.block_rows)
        within = np.arange(self.block_rows, dtype=number)
        rows = (self.blocks.astype(number)[:, None] * self.block_rows + within).ravel()[: len(self)]
        return rows[shuffled(len(rows), generator(*self.stream))]


def shuffled_after(buffers: Iterable[Buffer], rows_done: int) -> Iterator[Indices]:
    """Yield the buffers' shuffled rows without the first `rows_done`; buffers that are done with are not shuffled."""
    for buffer in buffers:
        if rows_done < len(buffer):
            yield buffer.shuffled()[rows_done:]
        rows_done = max(0, rows_done - len(buffer))


def regrouped(parts: Iterable[Indices], row_count: int) -> Iterator[Indices]:
    """Yield the same rows in the same order, `row_count` at a time; the last may be fewer."""
    held: list[Indices] = []
    waiting = 0
    for part in parts:
        held.append(part)
        waiting += len(part)
        if waiting < row_count:
            continue
        rows = np.concatenate(held)
        whole = waiting // row_count * row_count
        yield from np.split(rows[:whole], range(row_count, whole, row_count))
        held, waiting = [rows[whole:]], waiting - whole
    if waiting:
        yield np.concatenate(held)
