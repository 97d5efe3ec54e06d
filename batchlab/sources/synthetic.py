from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from batchlab.sources.base import Source
from batchlab.sources.held import TableReading


class Synthetic(Source):
    """The notebook's stock prices: price = slope · day + noise · N(0, 1) + intercept, for days 1..rows.

    With 100 rows and seed 0 these are the notebook's own numbers, bit for bit: float32, torch's generator.
    """

    kind: Literal["synthetic"] = "synthetic"
    rows: PositiveInt = 100
    slope: float = 0.5
    intercept: float = 100.0
    noise: NonNegativeFloat = 10.0
    seed: int | None = None  # None: the profile's seed

    @property
    def name(self) -> str:
        return "prices"

    @property
    def default_target(self) -> str:
        return "price"

    def opened(self, seed: int, scratch: Path) -> TableReading:
        import pyarrow as pa
        import torch

        generator = torch.Generator().manual_seed(seed if self.seed is None else self.seed)
        day = torch.linspace(1, self.rows, self.rows)
        noise = torch.randn(self.rows, 1, generator=generator)[:, 0]
        price = self.slope * day + noise * self.noise + self.intercept
        return TableReading(pa.table({"day": day.numpy(), "price": price.numpy()}))
