"""Rows of a table as somebody's own module takes them: in their shape, and whole numbers as such."""

import torch
from torch import Tensor, nn


class Shaped(nn.Module):
    """Gives a network its rows `[rows, *shape]`, flat ones without a `shape`; as 64-bit `integers` where they are."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...] | None, integers: bool) -> None:
        super().__init__()
        self.network, self.shape, self.integers = network, shape, integers

    def forward(self, rows: Tensor) -> Tensor:
        """Return the network's outputs for flat rows `[rows, features]`."""
        rows = rows if self.shape is None else rows.reshape(-1, *self.shape)
        outputs: Tensor = self.network(rows.round().to(torch.int64) if self.integers else rows)
        return outputs
