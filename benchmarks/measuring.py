"""Side by side: contenders take turns in one process, each warmed up apart; what is kept are medians and spreads."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.peers import SAME_ORDER, Outcome
from benchmarks.problems import Work

LOSS_TOLERANCE = 1e-5
"""Relative difference of final losses that still counts as the same training in float32, where weights and order are the same."""
REST_SECONDS = 0.1
"""Before every measurement, so that the threads of whoever came before have stopped spinning."""
LOOSE_TOLERANCE = 0.15
"""The same for those who draw their own weights and order."""


@dataclass(frozen=True)
class Measured:
    """One contender's median, fastest and slowest seconds, and how far its final loss is from the engine's, relatively."""

    seconds: float
    fastest: float
    slowest: float
    repeats: int
    loss: float
    loss_difference: float
    same_work: bool


def side_by_side(work: Work, contenders: Mapping[str, Callable[[Work], Outcome]], repeats: int) -> dict[str, Measured]:
    """Run everybody once to warm up, then `repeats` times in turn."""
    for run in contenders.values():
        run(work)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    losses: dict[str, float] = {}
    for _ in range(repeats):
        for name, run in contenders.items():
            time.sleep(REST_SECONDS)
            taken, ended = run(work)
            seconds[name].append(taken)
            losses[name] = statistics.fmean(ended)
    return {name: _measured(name, seconds[name], losses[name], losses["batchlab"]) for name in contenders}


def _measured(name: str, seconds: list[float], loss: float, reference: float) -> Measured:
    difference = abs(loss - reference) / reference
    tolerance = LOSS_TOLERANCE if name in SAME_ORDER else LOOSE_TOLERANCE
    return Measured(statistics.median(seconds), min(seconds), max(seconds), len(seconds), loss, difference, difference <= tolerance)


def ratios(measured: Mapping[str, Measured]) -> dict[str, float]:
    """Return how many times longer than the engine everybody else takes."""
    engine = measured["batchlab"].seconds
    return {name: item.seconds / engine for name, item in measured.items() if name != "batchlab"}


def as_tree(measured: Mapping[str, Measured]) -> dict[str, Any]:
    return {name: asdict(item) for name, item in measured.items()}
