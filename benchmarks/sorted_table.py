"""What a shuffle through a buffer costs in loss, on the table that is hardest to shuffle: one sorted by its target."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from batchlab.analysis.shuffling import measured as shuffle_quality
from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.records import Plan, Trial
from batchlab.models import Model
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.strategies import Population, Strategy
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.strategies.streaming import Streaming

FEATURES, SEEDS = 20, 10


@dataclass(frozen=True)
class Compared:
    """Validation losses `[seeds]` after equal steps on a table sorted by its target, and how good the shuffle was."""

    model: str
    losses: dict[str, list[float]]
    quality: dict[str, float]

    def difference(self, name: str) -> tuple[float, float]:
        """Return the mean of paired differences to the global shuffle and half its 95% interval (Student's t)."""
        return mean_and_half_width(np.subtract(self.losses[name], self.losses["global shuffle"]))


def mean_and_half_width(values: Any) -> tuple[float, float]:
    found = np.asarray(values)
    return float(found.mean()), float(stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))


def sorted_table(row_count: int) -> TrainingData:
    """Return rows sorted by their target, of which the model can explain a part, and random ones to validate on."""
    rng = np.random.default_rng(1)
    features = rng.standard_normal((row_count + 20_000, FEATURES), dtype=np.float32)
    target = features[:, 0] - 0.5 * features[:, 1] + np.sin(2 * features[:, 2]) + rng.standard_normal(len(features), dtype=np.float32)
    ranks = np.argsort(target[:row_count])
    rows, truth, held, held_truth = map(torch.from_numpy, (features[ranks], target[ranks], features[row_count:], target[row_count:]))
    return TrainingData(rows, truth, held, held_truth, Population(row_count), 1).thinned(20_000, 20_000, 0)


def loss_on_a_sorted_table(row_count: int, batch_rows: int = 32, rate: float = 0.01) -> list[Compared]:
    """Train on one epoch with every shuffle; the buffer holds a sixteenth of the table, in 256 blocks."""
    buffer = row_count // 16
    shuffles: dict[str, Strategy] = {
        "global shuffle": MiniBatch(batch_rows=batch_rows),
        "streaming": Streaming(batch_rows=batch_rows, block_rows=buffer // 256, buffer_rows=buffer),
        "no shuffle": MiniBatch(batch_rows=batch_rows, shuffled=False),
    }
    data, trials = sorted_table(row_count), [Trial(rate, seed) for seed in range(SEEDS)]
    plan = Plan(epochs=1, evaluations=1)
    quality = {name: shuffle_quality(strategy, row_count).variance_ratio for name, strategy in shuffles.items()}

    def losses(model: Model, strategy: Strategy) -> list[float]:
        results = train(data, model, strategy, trials, plan, Loss("mse"), torch.device("cpu"), weights=False)
        return [result.curve.validation_loss[-1] for result in results]

    models: tuple[Model, ...] = (Linear(), Mlp(widths=(64, 64)))
    return [Compared(model.kind, {name: losses(model, each) for name, each in shuffles.items()}, quality) for model in models]
