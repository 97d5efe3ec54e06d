"""The table of results and the remarks beside it, as text."""

from collections.abc import Callable, Sequence
from typing import Any

from batchlab.analysis.estimates import Estimate
from batchlab.report.wording import interval, memory, number, seconds
from batchlab.results import Interval, StrategyResult
from batchlab.table.target import Task

SHOWN_METRICS = {"regression": ("rmse", "mae", "r2"), "binary": ("accuracy", "roc_auc"), "multiclass": ("accuracy", "roc_auc")}


SPARED = ("test mae", "noise scale", "test roc auc", "peak", "seconds a step", "batch rows", "steps", "test rmse", "validation loss")
"""Columns that may be left out where there is little room, the first ones first."""


def table(task: Task, strategies: Sequence[StrategyResult]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the table of results as text, one row a setting, in the order given."""
    metrics = SHOWN_METRICS[task]
    headings = ["strategy", "batch rows", "rate", "status", "steps", "seconds a step", "time to target", "95% CI", "peak", "noise scale"]
    headings += ["validation loss", "test loss", *(f"test {name}".replace("_", " ") for name in metrics)]
    return headings, [_cells(item) + [_shown(item.metrics.get(name)) for name in metrics] for item in strategies]


def _cells(item: StrategyResult) -> list[str]:
    return [
        item.label,
        f"{item.batch_rows:,}",
        f"{item.learning_rate:g}",
        status(item),
        _to_target(item.steps_to_target, item.steps_to_target_ci, number),
        seconds(item.seconds_per_step),
        _to_target(item.seconds_to_target, item.seconds_to_target_ci, seconds),
        _interval(item),
        "–" if item.peak_bytes is None else memory(item.peak_bytes),
        "–" if item.noise_scale is None else number(item.noise_scale),
        _shown(item.validation_loss),
        _shown(item.test_loss),
    ]


def status(item: StrategyResult) -> str:
    """Return the status in words, with the seeds that reached the target where not all did."""
    return f"reached by {item.seeds_reached} of {item.seeds}" if item.status == "not_reached" else item.status


def _to_target(value: float | None, ends: Interval, shown: Callable[[float], str]) -> str:
    return f"> {shown(ends[0])}" if value is None else shown(value)


def _interval(item: StrategyResult) -> str:
    low, high = item.seconds_to_target_ci
    if item.seconds_to_target is None or high is None:
        return ""
    return interval(Estimate(value=item.seconds_to_target, low=low, high=high), "time")


def remarks(strategies: Sequence[StrategyResult]) -> list[str]:
    """Return what has to be said beside the table: why a setting diverged or ended as it did, equal reasons together."""
    said: dict[str, list[str]] = {}
    for item in strategies:
        if item.reason:
            said.setdefault(item.reason, []).append(item.label)
    return [f"{', '.join(names)}: {reason}" for reason, names in said.items()]


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:.5g}"
