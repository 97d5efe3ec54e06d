"""Categories as trained vectors, in front of a network of fully connected layers."""

from collections.abc import Mapping, Sequence

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from batchlab.models.mlp import Mlp

LARGEST_EMBEDDING = 50


class EmbeddedMlp(Mlp):
    """An mlp whose last inputs are not numbers but the numbers of categories' values, each of which has a trained vector.

    `embedded` says how many values each of these categories has. No profile names this model: it is what an mlp becomes where
    `encoding.categories` is `embedding`.
    """

    embedded: tuple[PositiveInt, ...]

    def network(self, features: int, outputs: int) -> nn.Module:
        widths = [embedding_width(size) for size in self.embedded]
        return Embedded(self.embedded, widths, super().network(features - len(widths) + sum(widths), outputs))

    def stacked(self, network: nn.Module, weights: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        assert isinstance(network, Embedded)
        tables = [weights[f"tables.{place}.weight"] for place in range(len(self.embedded))]
        dense = {name.removeprefix("dense."): values for name, values in weights.items() if name.startswith("dense.")}
        return super().stacked(network.dense, dense, looked_up(tables, rows))


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
    """Return inputs `[replicas, rows, inputs]` with vectors of `tables` `[replicas, values, width]` in place of numbers."""
    numbers = rows.shape[-1] - len(tables)
    places = [rows[..., numbers + place].long()[..., None].expand(-1, -1, table.shape[-1]) for place, table in enumerate(tables)]
    vectors = [table.gather(1, place) for table, place in zip(tables, places, strict=True)]
    return torch.cat([rows[..., :numbers], *vectors], dim=-1)


def embedding_width(size: int) -> int:
    """Return the length of the vectors of a category with `size` values: fastai's rule of thumb."""
    return min(LARGEST_EMBEDDING, round(1.6 * float(size**0.56)))
