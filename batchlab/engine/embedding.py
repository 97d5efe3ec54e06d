"""Categories as trained vectors, in front of a network of fully connected layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Embedded(nn.Module):
    """Replaces the last inputs, which are numbers of values, by these values' vectors."""

    def __init__(self, sizes: Sequence[int], widths: Sequence[int], dense: nn.Module) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size, width in zip(sizes, widths, strict=True))
        self.dense = dense

    def forward(self, rows: Tensor) -> Tensor:
        """Return the outputs for inputs `[rows, inputs]`."""
        numbers = rows.shape[-1] - len(self.tables)
        vectors = [table(rows[..., numbers + place].long()) for place, table in enumerate(self.tables)]
        outputs: Tensor = self.dense(torch.cat([rows[..., :numbers], *vectors], dim=-1))
        return outputs


def looked_up(tables: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Return inputs `[replicas, rows, inputs]` with each replica's vectors, of `tables` `[replicas, values, width]`, in place of numbers."""
    numbers = rows.shape[-1] - len(tables)
    places = [rows[..., numbers + place].long()[..., None].expand(-1, -1, table.shape[-1]) for place, table in enumerate(tables)]
    vectors = [table.gather(1, place) for table, place in zip(tables, places, strict=True)]
    return torch.cat([rows[..., :numbers], *vectors], dim=-1)
