"""Windows of 50 rows × 20 columns, a view of the rows, beside a flat table of as many numbers a row: `python -m benchmarks.windows`.

A part of `make bench`, too. Ratios are rows a second on windows over those on the flat table: the first of ten million rows, which flat
would take 40 GB; the second of as many rows as the flat table has.
"""

import datetime
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import Sgd
from batchlab.engine.records import Plan, Trial
from batchlab.models import Model
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.models.tcn import Tcn
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch
from benchmarks import machine, report

WINDOW, COLUMNS, EVALUATED = 50, 20, 500
MANY, FEW = 10_000_000, 200_000
MODELS: tuple[Model, ...] = (Linear(), Mlp(), Tcn().for_windows(WINDOW, COLUMNS))
ROWS = {32: 20_000, 512: 50_000}
"""So many rows are trained on by batch."""
Tell = Callable[[str], None]


def windowed(count: int) -> TrainingData:
    """Return so many windows of random rows."""
    rows = torch.randn(count + WINDOW - 1, COLUMNS)
    return _data(rows.as_strided((count, WINDOW * COLUMNS), (COLUMNS, 1)), np.arange(count, dtype=np.int32))


def flat(count: int) -> TrainingData:
    """Return so many random rows of as many numbers."""
    return _data(torch.randn(count, WINDOW * COLUMNS), None)


def _data(features: torch.Tensor, places: Any) -> TrainingData:
    count, few = len(features), torch.arange(EVALUATED)
    target = torch.randn(count)
    looked_at = features[few], target[few]
    return TrainingData(features, target, *looked_at, Population(count), 1, sample=looked_at, places=places)


def found(quick: bool, repeats: int, tell: Tell) -> dict[str, Any]:
    """Return everything measured, and on which machine."""
    tables = {"many": windowed(FEW if quick else MANY), "few": windowed(FEW), "flat": flat(FEW)}
    cells = []
    for model in MODELS:
        for batch in (32, 512):
            for replicas in (1,) if quick else (1, 8):
                tell(f"windows, {model.kind}, batch {batch}, {replicas} replicas")
                taken: dict[str, list[float]] = {name: [] for name in tables}
                for _ in range(repeats + 1):  # the first one warms up
                    for name, data in tables.items():
                        taken[name].append(_seconds(data, model, batch, replicas))
                seconds = {name: float(np.median(of_one[1:])) for name, of_one in taken.items()}
                cells.append({"model": model.kind, "batch_rows": batch, "replicas": replicas, "seconds": seconds})
    return {"date": datetime.date.today().isoformat(), "machine": machine.described(), "cells": cells}


def _seconds(data: TrainingData, model: Model, batch: int, replicas: int) -> float:
    plan = Plan(epochs=1, max_rows=ROWS[batch], evaluations=1, optimizer=Sgd())
    trials = [Trial(1e-5, seed) for seed in range(replicas)]
    began = time.perf_counter()
    train(data, model, MiniBatch(batch_rows=batch), trials, plan, Loss("mse"), torch.device("cpu"))
    return time.perf_counter() - began


def main() -> None:
    """Measure, and write the figures into results.json and the page beside those of the other benchmarks."""
    report.write(json.loads(report.DATA.read_text()) | {"windows": found(quick=False, repeats=3, tell=print)})


if __name__ == "__main__":
    main()
