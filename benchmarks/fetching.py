"""Whether what a verdict says of a data set's loader holds: `python -m benchmarks.fetching FOLDER` prints the rows a second that it said
for each number of workers, and those of a loop written by hand, over compressed arrays of about a millisecond an item."""

import argparse
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from batchlab.config import load_profile
from batchlab.experiment import Experiment
from batchlab.rows.split import split
from batchlab.search.fetching import Loop
from batchlab.sources.items import GivenItems
from batchlab.table import pack

ITEMS, NUMBERS, PADDING, BATCH_ROWS, SECONDS, ROUNDS = 3000, 16, 200_000, 32, 3.0, 3


class Compressed(Dataset[tuple[Tensor, float]]):
    """Arrays `[numbers]`, each compressed together with padding that takes about a millisecond to undo."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        inputs = rng.standard_normal((ITEMS, NUMBERS)).astype(np.float32)
        self.targets = inputs[:, 0] - inputs[:, 1] + 0.3 * rng.standard_normal(ITEMS)
        padding = rng.integers(0, 4, PADDING).astype(np.uint8).tobytes()
        self.rows = [zlib.compress(row.tobytes() + padding, 1) for row in inputs]

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, number: int) -> tuple[Tensor, float]:
        held = zlib.decompress(self.rows[number])
        return torch.frombuffer(bytearray(held[: 4 * NUMBERS]), dtype=torch.float32), float(self.targets[number])


def network(features: int, outputs: int) -> nn.Module:
    """Return a small network."""
    return nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, outputs))


def by_hand(data_set: Compressed, workers: int) -> float:
    """Return the rows a second of the loop that somebody would write."""
    model, count = network(NUMBERS, 1), 0
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    loader = DataLoader(data_set, BATCH_ROWS, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    began = time.perf_counter()
    for epoch in range(100):
        for inputs, target in loader:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs).squeeze(-1), target.float()).backward()
            optimizer.step()
            count += len(target)
            if epoch and time.perf_counter() - began > SECONDS:
                return count / (time.perf_counter() - began)
        if not epoch:  # the first epoch started the workers
            count, began = 0, time.perf_counter()
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure both in turn, and print them with their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the packed table goes")
    folder = parser.parse_args().folder
    named = ["model.kind=custom", "model.factory=benchmarks.fetching:network"]
    settings = load_profile("quick", data="benchmarks.fetching:Compressed", overrides=named)
    table = pack(settings.source, settings.named_columns(), folder, settings.seed)
    experiment, data_set = Experiment(settings, table, split(table, settings.split, settings.seed)), Compressed()
    loop = Loop.of(GivenItems(data_set), experiment)
    for number in range(1, ROUNDS + 1):
        said = loop.measured((BATCH_ROWS,), 60.0)
        print(
            f"round {number}: an item {1e3 * said.item_seconds:.3g} ms, a step of {BATCH_ROWS} {1e3 * said.step_seconds[BATCH_ROWS]:.3g} ms"
        )
        for workers, speed in said.trained.items():
            own = by_hand(data_set, workers)
            print(f"  {workers} workers: {speed:,.0f} rows/s said, {own:,.0f} by hand, {speed / own:.2f}")


if __name__ == "__main__":
    main()
