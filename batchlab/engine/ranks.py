"""One training over many processes: each takes its part of every step's rows, and gradients are summed (torch.distributed)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp, all_reduce

from batchlab.engine.runs import Run


class Ranks:
    """The processes that train together, as one of them sees them: it is number `rank` of `count`; its tensors are on `device` when it
    speaks to the others. `seconds` and `sent_bytes` are what that took so far: the bytes that are summed, not those of the way they take.
    """

    def __init__(self, rank: int = 0, count: int = 1, group: ProcessGroup | None = None, device: torch.device | None = None) -> None:
        self.rank, self.count, self.group, self.device = rank, count, group, device or torch.device("cpu")
        self.seconds, self.sent_bytes = 0.0, 0

    def part(self, length: int) -> slice:
        """Return which of so many rows are this process's."""
        return slice(length * self.rank // self.count, length * (self.rank + 1) // self.count)

    def part_of(self, run: Run) -> Run:
        """Return this process's part of a run: of every micro-batch as many rows as another's, one more at most."""
        if self.count == 1:
            return run
        mine = np.zeros(run.rows.shape[1], bool)
        for spans in run.spans():
            for span in spans:
                mine[span][self.part(span.stop - span.start)] = True
        return run.only(mine)

    def sum(self, *tensors: Tensor) -> None:
        """Replace the tensors, which are of one kind, by their sums over all processes, the same numbers to the last bit in each."""
        if self.count == 1:
            return
        began = time.perf_counter()
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).to(self.device)
        all_reduce(flat, ReduceOp.SUM, group=self.group)
        for tensor, summed in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))
        self.seconds += time.perf_counter() - began
        self.sent_bytes += flat.nbytes

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.count == 1:
            return flag
        said = torch.tensor([float(flag)])
        self.sum(said)
        return bool(said > 0)

    def check_same(self, weights: NDArray[np.floating]) -> None:
        """Raise RuntimeError where the processes have come to other weights: then they have not trained together."""
        own = torch.tensor([float(np.nansum(weights)), 1.0], dtype=torch.float64)
        total = own.clone()
        self.sum(total)
        if abs(float(total[0] / total[1] - own[0])) > 1e-9 * max(1.0, abs(float(own[0]))):
            raise RuntimeError(f"the processes of one training have come to other weights: process {self.rank} of {self.count}")


ALONE = Ranks()
_here = ALONE


def ranks_here() -> Ranks:
    """Return the processes that this one trains with: itself alone, unless it has joined others."""
    return _here


@contextmanager
def joined(ranks: Ranks) -> Iterator[None]:
    """Let what trains inside the block train together with these processes, which must do the same."""
    global _here
    before, _here = _here, ranks
    try:
        yield
    finally:
        _here = before
