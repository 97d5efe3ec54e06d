"""Rows read from files ahead of the steps that need them: whole blocks, by plain reads, into memory that is used again and again.

Mapped pages would count as this process's memory, and each would be waited for. Threads read: a read holds no lock of Python's.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.ranks import ALONE, Ranks
from batchlab.engine.runs import Run, Window
from batchlab.engine.stored import RowFile, StoredRows
from batchlab.strategies import Indices
from batchlab.strategies.streaming import Buffer, Streaming

EXPECTED_BLOCKS = 64
"""The disk is told of so many blocks at a time: one thread then reads 80 KiB blocks at 1.2 GB/s, and at 0.25 GB/s without."""


class Stream:
    """The runs' rows, each seed's in its own order; `most_rows` is the longest run. Close it: it holds files and threads.

    Of several processes (`ranks`) each reads blocks of its own, every so manieth of a buffer, and has the rows of each step that lie in
    them: about as many as another. They train one seed at a time.
    """

    def __init__(self, stored: StoredRows, strategy: Streaming, seeds: Sequence[int], most_rows: int, ranks: Ranks = ALONE) -> None:
        features, target = stored.arrays
        shape = Shape.of(strategy, len(target), most_rows)
        places = (len(seeds), shape.regions * shape.region_rows)
        self.features = np.empty((*places, features.shape[1]), features.dtype)
        self.target = np.empty(places, target.dtype)
        self.files = (RowFile(stored.features, features), RowFile(stored.target, target))
        self.threads = ThreadPoolExecutor(strategy.workers, "batchlab-reads") if strategy.workers else None
        self.ranks = ranks
        self.lanes = [
            _Lane(strategy, seed, len(target), shape, _Reader(self.files, own, self.threads, strategy.workers), ranks)
            for seed, own in zip(seeds, zip(self.features, self.target, strict=True), strict=True)
        ]

    def delivered(self, run: Run) -> tuple[Run, Window]:
        """Return the run, or this process's part of it, and where its rows are, once they are there; those of the runs before are given
        up."""
        for lane in self.lanes:
            lane.read_for(run.rows_before, run.rows_seen)
        order = np.empty(run.rows.shape, np.int32)
        for lane, rows, places in zip(self.lanes, run.rows, order, strict=True):
            lane.locate(rows, run.rows_before, places)
        if self.ranks.count > 1:
            mine = order[0] >= 0
            run, order = run.only(mine), order[:, mine]
        return run, Window(self.features, self.target, order)

    def close(self) -> None:
        """End the reading, also where it is under way."""
        if self.threads is not None:
            self.threads.shutdown(wait=True, cancel_futures=True)
        for file in self.files:
            file.close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class Shape:
    """How a seed's memory is laid out: `regions` of `region_rows`, a buffer in each; `ahead` buffers are read before they are needed."""

    block_rows: int
    region_rows: int
    regions: int
    ahead: int
    usually_touched: int

    @classmethod
    def of(cls, strategy: Streaming, row_count: int, most_rows: int) -> "Shape":
        """Return the layout for runs of at most `most_rows`. Memory that no buffer ever comes to stays untouched, and so costs nothing."""
        region_rows = strategy.most_blocks(row_count) * strategy.block_rows
        usual = max(
            region_rows - strategy.block_rows, min(strategy.block_rows, row_count)
        )  # all but the one with the last block have as many
        touched = 3 + most_rows // usual + most_rows // row_count
        ahead = 1 + most_rows // usual if strategy.workers else 0
        return cls(strategy.block_rows, region_rows, touched + ahead, ahead, 2 + most_rows // usual)

    @property
    def used_rows(self) -> int:
        """Rows that are in memory at once, but for very small buffers."""
        return (self.usually_touched + self.ahead) * self.region_rows


@dataclass
class _Held:
    """A buffer in its region, whose rows are those from `start` to `end` of the whole training, and those of its blocks that are read."""

    blocks: Indices
    own: Indices
    region: int
    start: int
    end: int
    reading: "Sequence[Future[None]]" = field(default_factory=list)


class _Lane:
    """One seed's rows: the buffers that its next steps come from."""

    def __init__(self, strategy: Streaming, seed: int, row_count: int, shape: Shape, reader: "_Reader", ranks: Ranks) -> None:
        epochs = (strategy.buffers(row_count, seed, epoch) for epoch in count())
        self.following: Iterator[Buffer] = chain.from_iterable(epochs)
        self.shape, self.row_count, self.reader, self.ranks = shape, row_count, reader, ranks
        self.held: deque[_Held] = deque()
        self.free = list(range(shape.regions))[::-1]
        self.reached, self.expected, self.buffers_read = 0, list[Buffer](), 0
        self.slot_of_block = np.empty(-(-row_count // shape.block_rows), np.int32)

    def read_for(self, start: int, end: int) -> None:
        """Begin to read what the rows from `start` to `end` need, and the buffers after them; give up what was before them."""
        while self.held and self.held[0].end <= start:
            self.free.append(self.held.popleft().region)
        while self.reached < end:
            self._read_next(start)
        while sum(held.start >= end for held in self.held) < self.shape.ahead:
            self._read_next(start)
        if not self.shape.ahead and not self.expected:
            self.expected = [next(self.following)]
            self.reader.expect(self._own(self.expected[0], self.buffers_read + 1))

    def _read_next(self, start: int) -> None:
        """Begin to read the next buffer, unless it ends before `start`: then nobody needs it."""
        buffer = self.expected.pop() if self.expected else next(self.following)
        self.buffers_read += 1
        own = self._own(buffer, self.buffers_read)
        held = _Held(buffer.blocks, own.blocks, -1, self.reached, self.reached + len(buffer))
        self.reached = held.end
        if held.end > start:
            held.region = self.free.pop()
            held.reading = self.reader.read(own, held.region * self.shape.region_rows)
            self.held.append(held)

    def _own(self, buffer: Buffer, number: int) -> Buffer:
        """Return what this process reads of a buffer: other places in each, so that small ones are not all the same process's."""
        if self.ranks.count == 1:
            return buffer
        blocks = buffer.blocks[(self.ranks.rank + number) % self.ranks.count :: self.ranks.count]
        return Buffer(blocks, buffer.block_rows, buffer.table_rows, buffer.stream)

    def locate(self, rows: Indices, start: int, places: NDArray[np.int32]) -> None:
        """Wait for the buffers of `rows`, which come from `start` on, and write the place of each row; -1 of one that is another's."""
        block_rows, end = self.shape.block_rows, start + len(rows)
        for held in self.held:
            if held.start >= end:
                break
            for part in held.reading:
                part.result()
            own = slice(max(held.start, start) - start, min(held.end, end) - start)
            first = held.region * (self.shape.region_rows // block_rows)
            self.slot_of_block[held.blocks] = -1
            self.slot_of_block[held.own] = np.arange(first, first + len(held.own), dtype=np.int32)
            blocks = rows[own] // block_rows
            slots = self.slot_of_block.take(blocks)
            places[own] = slots * block_rows + (rows[own] - blocks * block_rows)
            if len(held.own) < len(held.blocks):
                places[own][slots < 0] = -1


class _Reader:
    """Reads buffers into one seed's memory, in the given threads or, without any, at once."""

    def __init__(
        self, files: "tuple[RowFile, RowFile]", goals: tuple[NDArray[Any], NDArray[Any]], threads: ThreadPoolExecutor | None, parts: int
    ) -> None:
        self.files, self.goals, self.threads, self.parts = files, goals, threads, parts

    def read(self, buffer: Buffer, place: int) -> "Sequence[Future[None]]":
        """Read the buffer's blocks one after the other to `place` and on; return what to wait for."""
        if self.threads is None:
            self._read_blocks(buffer.blocks, buffer, place)
            return ()
        parts = [part for part in np.array_split(buffer.blocks, self.parts) if len(part)]
        starts = place + np.cumsum([0, *(len(part) * buffer.block_rows for part in parts)])
        return [self.threads.submit(self._read_blocks, part, buffer, start) for part, start in zip(parts, starts.tolist(), strict=False)]

    def expect(self, buffer: Buffer) -> None:
        """Let the system read the buffer's blocks into its own memory meanwhile."""
        for file in self.files:
            file.expect((buffer.blocks.astype(np.int64) * buffer.block_rows).tolist(), buffer.block_rows)

    def _read_blocks(self, blocks: Indices, buffer: Buffer, place: int) -> None:
        firsts = (blocks.astype(np.int64) * buffer.block_rows).tolist()
        for number, first in enumerate(firsts):
            if number % EXPECTED_BLOCKS == 0:
                for file in self.files:
                    file.expect(firsts[number : number + EXPECTED_BLOCKS], buffer.block_rows)
            rows = min(buffer.block_rows, buffer.table_rows - first)
            for file, goal in zip(self.files, self.goals, strict=True):
                file.read(first, goal[place : place + rows])
            place += buffer.block_rows
