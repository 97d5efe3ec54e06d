"""Five modules of one's own, alone and stacked, beside the plain loop that their owner would write: `python -m benchmarks.own_modules`.

A part of `make bench`, too. Ratios are seconds of the loop, replica by replica, over this engine's: above 1 the engine is faster.
"""

import datetime
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from batchlab.models.custom import Custom
from benchmarks import machine, report
from benchmarks.measuring import as_tree, ratios, side_by_side
from benchmarks.peers import batchlab, notebook_slices
from benchmarks.problems import Work

BATCHES, REPLICAS = (32, 256, 2048), (1, 8, 32)
STEPS = {32: 96, 256: 32, 2048: 6}
"""So many steps by batch: half a second or so of the loop."""
Tell = Callable[[str], None]


def norms(features: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, outputs)
    )


def batch_norm(features: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, outputs)
    )


def dropout(features: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, outputs)
    )


class Gru(nn.Module):
    """Reads the features as a sequence, four at a time."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(4, 32, batch_first=True), nn.Linear(32, outputs)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.cells(rows.view(len(rows), -1, 4))[0][:, -1])
        return found


def convolution(features: int, outputs: int) -> nn.Module:
    first = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, outputs))


MODULES = {"norms": 20, "batch_norm": 20, "dropout": 20, "Gru": 48, "convolution": 64}
"""Factories and how many features they are given."""


def cells(quick: bool) -> list[Work]:
    """Return the works, replica counts last."""
    return [
        Work(Custom(factory=f"{__name__}:{name}"), batch, replicas, row_count=batch * STEPS[batch], features=features)
        for replicas in (REPLICAS[:2] if quick else REPLICAS)
        for name, features in MODULES.items()
        for batch in (BATCHES[:1] if quick else BATCHES)
    ]


def measured(quick: bool, repeats: int, tell: Tell) -> list[dict[str, Any]]:
    """Measure every cell; the loop trains one replica, and others would take as long each."""
    results = []
    for work in cells(quick):
        assert isinstance(work.model, Custom)
        name = work.model.factory.partition(":")[2]
        tell(f"{name}, batch {work.batch_rows}, {work.replicas} replicas")
        engine, alone = (lambda _, work=work: batchlab(work)), work.alone()
        for _ in range(3):  # the engine finds out which way is quickest
            engine(work)
        found = side_by_side(alone, {"batchlab": engine, "plain loop": notebook_slices}, repeats)
        ratio = ratios(found)["plain loop"] * work.replicas
        cell = {"module": name, "batch_rows": work.batch_rows, "replicas": work.replicas, "ratio": ratio, "measured": as_tree(found)}
        results.append(cell)
    return results


def found(quick: bool, repeats: int, tell: Tell) -> dict[str, Any]:
    """Return everything measured, and on which machine: this part can be measured alone."""
    return {"date": datetime.date.today().isoformat(), "machine": machine.described(), "cells": measured(quick, repeats, tell)}


def main() -> None:
    """Measure, and write the figures into results.json and the page beside those of the other benchmarks."""
    report.write(json.loads(report.DATA.read_text()) | {"own_modules": found(quick=False, repeats=5, tell=print)})


if __name__ == "__main__":
    main()
