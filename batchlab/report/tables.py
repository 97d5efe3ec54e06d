"""The table of results and the remarks beside it, as text."""

from collections.abc import Sequence
from typing import Any

from batchlab.analysis.estimates import Estimate
from batchlab.report.wording import interval
from batchlab.results import StrategyResult
from batchlab.snippets.quantities import memory, number, seconds
from batchlab.table.target import Task

SHOWN_METRICS = {"regression": ("rmse", "mae", "r2"), "binary": ("accuracy", "roc_auc"), "multiclass": ("accuracy", "roc_auc")}


SPARED = ("test mae", "noise scale", "test roc auc", "peak", "seconds a step", "batch rows", "rows seen", "test rmse", "95% CI", "test r2")
"""Columns that may be left out where there is little room, the first ones first."""


def table(task: Task, strategies: Sequence[StrategyResult]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the table of results as text, one row a setting, in the order given."""
    metrics = SHOWN_METRICS[task]
    headings = ["strategy", "batch rows", "optimizer", "rate", "status", "rows seen", "validation loss", "test loss", "time to target"]
    headings += ["95% CI", "seconds a step", "peak", "noise scale", *(f"test {name}".replace("_", " ") for name in metrics)]
    return headings, [_cells(item) + [_shown(item.metrics.get(name)) for name in metrics] for item in strategies]


def _cells(item: StrategyResult) -> list[str]:
    return [
        item.label,
        f"{item.batch_rows:,}",
        item.optimizer,
        f"{item.learning_rate:g}",
        status(item),
        number(item.rows_seen),
        _shown(item.mean_validation_loss),
        _shown(item.mean_test_loss),
        _to_target(item),
        _interval(item),
        "–" if item.status in ("diverged", "behind") else seconds(item.seconds_per_step),  # not timed alone
        "–" if item.peak_bytes is None else memory(item.peak_bytes),
        "–" if item.noise_scale is None else number(item.noise_scale),
    ]


def status(item: StrategyResult) -> str:
    """Return the status in words."""
    return "left" if item.status == "behind" else item.status.replace("_", " ")


def _to_target(item: StrategyResult) -> str:
    """Return the seconds to the target; a lower bound where it was trained to the end without reaching it."""
    if item.seconds_to_target is not None:
        return seconds(item.seconds_to_target)
    return f"> {seconds(item.seconds_to_target_ci[0])}" if item.status == "not_reached" and item.seconds_to_target_ci is not None else "–"


def _interval(item: StrategyResult) -> str:
    low, high = item.seconds_to_target_ci or (0.0, None)
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
