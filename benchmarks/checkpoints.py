"""What it costs to keep where trainings stand: the engine's mlp at batch 32 with and without, in turn, in one run; prints the ratio."""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import AdamW
from batchlab.engine.records import Plan, Trial
from batchlab.models.mlp import Mlp
from batchlab.search.keeping import Kept
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch


def main() -> None:
    """Train in turns, longer than the time between two states, and compare the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="about so long is each training")
    given = parser.parse_args()
    data, replicas = rows(), [Trial(0.003, seed) for seed in range(8)]
    timed(data, replicas, 1, None)  # which loads the kernels
    epochs = max(1, round(given.seconds / timed(data, replicas, 1, None)))
    ratios = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            kept = Kept(Path(folder) / "state", print)
            found = {way: timed(data, replicas, epochs, kept if way else None) for way in ((True, False), (False, True))[number % 2]}
            written = len(list(kept.folder.glob("*.npz")))
        ratios.append(found[True] / found[False])
        print(f"{found[False]:.2f} s without, {found[True]:.2f} s with ({written} files): {ratios[-1] - 1:+.2%}", flush=True)
    print(f"median of {len(ratios)}: {statistics.median(ratios) - 1:+.2%}")


def rows(count: int = 100_000, features: int = 20) -> TrainingData:
    """Return standard normal rows with a linear target."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, features, generator=generator)
    target = inputs.sum(1) + torch.randn(count, generator=generator)
    return TrainingData(inputs, target, inputs[:1000], target[:1000], Population(count), 1)


def timed(data: TrainingData, trials: list[Trial], epochs: int, kept: Kept | None) -> float:
    """Return the seconds that the training takes, evaluations included."""
    plan = Plan(epochs=epochs, evaluations=10, optimizer=AdamW())
    began = time.perf_counter()
    train(data, Mlp(widths=(64, 64)), MiniBatch(batch_rows=32), trials, plan, Loss("mse"), torch.device("cpu"), keeper=kept)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
