"""A process of those that train together, started by torchrun: the first is asked by the command, all train what it was asked.

`python -m torch.distributed.run … -m batchlab.cluster.rank ADDRESS DEVICE`, with the key of ADDRESS in the environment.
"""

import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import joblib
import torch
import torch.distributed as dist

from batchlab.cluster.asking import KEY, Answer, Asked
from batchlab.engine.halts import Halt, Keeper
from batchlab.engine.loop import train
from batchlab.engine.ranks import Ranks, joined
from batchlab.engine.records import Progress, TrialResult
from batchlab.errors import BatchlabError
from batchlab.search.hands import Bench
from batchlab.search.keeping import Kept

LONGEST = timedelta(days=30)
"""Others wait as long for the first one to ask them something; one that has ended is noticed at once."""
TOLD_SECONDS = 0.2


class OnlyRead:
    """Goes on from where a training stood, and leaves writing to another process."""

    def __init__(self, kept: Keeper) -> None:
        self.found = kept.found

    def due(self) -> bool:
        return False

    def keep(self, name: str, halt: Halt) -> None:
        pass

    def ended(self, name: str, halt: Halt) -> None:
        pass


class Rank:
    """One of the processes; the first has a connection to the command."""

    def __init__(self, connection: Connection | None) -> None:
        self.connection, self.rank, self.count = connection, dist.get_rank(), dist.get_world_size()
        self.opened: tuple[Path, Bench] | None = None
        self.ended, self.told = False, 0.0

    @cached_property
    def groups(self) -> "dict[int, Any]":
        """The first so many processes, for each number of them; all must make them in the same order."""
        return {count: dist.new_group(list(range(count))) for count in range(1, self.count + 1)}

    def serve(self) -> None:
        """Train what comes, until nothing does."""
        while (asked := self._next()) is not None:
            answer = self._answer(asked)
            if self.connection is not None and answer is not None:
                self.connection.send(answer)

    def _next(self) -> Asked | None:
        """Return what all are asked next, as the first one hears it; None when the command has no more, or has ended."""
        asked: list[Asked | None] = [None]
        if self.connection is not None and not self.ended:
            try:
                while isinstance(heard := self.connection.recv(), str):
                    pass  # a stop that came when nothing was under way
                asked = [heard]
            except EOFError:
                pass
        dist.broadcast_object_list(asked, src=0)
        return asked[0]

    def _answer(self, asked: Asked) -> Answer | None:
        count, device = asked.plan.processes, torch.device("cuda") if dist.get_backend() == "nccl" else None
        group = self.groups[count]
        if self.rank >= count:
            return None
        try:
            return Answer(self._trained(asked, Ranks(self.rank, count, group, device)))
        except BatchlabError as error:  # as every process says
            return Answer(wrong=error)

    def _trained(self, asked: Asked, ranks: Ranks) -> Sequence[TrialResult]:
        bench = self._bench(asked.bench)
        with joined(ranks):
            return train(
                bench.data,
                bench.model,
                asked.strategy,
                asked.trials,
                asked.plan,
                bench.loss,
                bench.device,
                self._tell,
                should_stop=self._stopped,
                keeper=self._keeper(asked.kept),
                **asked.how,
            )

    def _bench(self, path: Path) -> Bench:
        """Return the bench of a file, whose rows are mapped into memory: all processes of a machine share them."""
        if self.opened is None or self.opened[0] != path:
            self.opened = path, joblib.load(path, mmap_mode="r").opened()
        return self.opened[1]

    def _keeper(self, where: tuple[Path, float, float] | None) -> Keeper | None:
        if where is None:
            return None
        folder, seconds, share = where
        kept = Kept(folder, lambda line: print(line, file=sys.stderr), seconds, share)
        return kept if self.connection is not None else OnlyRead(kept)

    def _tell(self, progress: Progress) -> None:
        if self.connection is not None and not self.ended and time.monotonic() - self.told > TOLD_SECONDS:
            self.told = time.monotonic()
            self.connection.send(progress)

    def _stopped(self) -> bool:
        """Whether the command says that it is enough, or has ended."""
        try:
            return self.ended or (self.connection is not None and self.connection.poll() and bool(self.connection.recv()))
        except EOFError:
            self.ended = True
            return True


def main(address: str, device: str) -> None:
    """Join the others, and train."""
    key = bytes.fromhex(os.environ.pop(KEY))
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=LONGEST)
    connection: Any = None
    if dist.get_rank() == 0:
        with Listener(address, authkey=key) as listener:
            connection = listener.accept()
    Rank(connection).serve()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
