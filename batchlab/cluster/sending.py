"""A bench as workers of a cluster get it: its rows as arrays, which lie once on every node and are mapped into each worker's memory."""

import warnings
from dataclasses import dataclass, fields
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from batchlab.engine.data import TrainingData, overlaps
from batchlab.search.hands import Bench

OF_FILES = ("features", "target")
"""Of rows in files these are not sent: whoever gets them opens the files."""


@dataclass(frozen=True)
class Numbers:
    """A tensor's numbers end to end, and how they lie in it: rows that overlap share theirs."""

    held: NDArray[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> "Numbers":
        """Return a tensor's numbers."""
        if not overlaps(tensor):
            whole = tensor.contiguous()
            return cls(whole.numpy().reshape(-1), tuple(whole.shape), whole.stride())
        count = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        return cls(tensor.as_strided((count,), (1,)).numpy(), tuple(tensor.shape), tensor.stride())

    def tensor(self) -> Tensor:
        """Return the tensor, on the same memory; nobody may write to it."""
        with warnings.catch_warnings(action="ignore"):  # torch warns of memory that cannot be written to
            return torch.from_numpy(self.held).as_strided(self.shape, self.strides)


@dataclass(frozen=True)
class SentBench:
    """A bench but for its rows, and the fields of these."""

    others: dict[str, Any]
    rows: dict[str, Any]

    @classmethod
    def of(cls, bench: Bench) -> "SentBench":
        """Return what is sent of a bench."""
        data, others = bench.data, {item.name: getattr(bench, item.name) for item in fields(bench) if item.name != "data"}
        left_out = OF_FILES if data.stored is not None else ()
        rows = {item.name: getattr(data, item.name) for item in fields(data) if item.init and item.name not in left_out}
        return cls(others, {name: _mapped(Numbers.of, Tensor, value) for name, value in rows.items()})

    def opened(self) -> Bench:
        """Return the bench."""
        rows = {name: _mapped(Numbers.tensor, Numbers, value) for name, value in self.rows.items()}
        if rows["stored"] is not None:
            rows |= dict(zip(OF_FILES, (torch.from_numpy(array) for array in rows["stored"].arrays), strict=True))
        return Bench(**self.others, data=TrainingData(**rows))


def _mapped(change: Any, kind: type, value: Any) -> Any:
    """Return the value changed where it, or a part of a tuple, is of that kind."""
    if isinstance(value, tuple):
        return tuple(_mapped(change, kind, part) for part in value)
    return change(value) if isinstance(value, kind) else value
