"""What a comparison found: the records behind the JSON, the tables and the report."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict

from batchlab.records import Record
from batchlab.target import Task


class Result(Record):
    """A record whose numbers that are not finite become null in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="null")


class RowCounts(Result):
    """Rows of each part of the split."""

    train: int
    validation: int
    test: int


class StrategyResult(Result):
    """How one strategy did with its best learning rate. Losses are in the target's unit squared for MSE; None for a diverged one.

    `train_seconds` is what all its learning rates took together, trained side by side, without evaluation.
    """

    name: str
    kind: str
    batch_rows: int
    optimizer: str
    learning_rate: float
    status: Literal["completed", "diverged"]
    reason: str | None
    train_loss: float | None
    validation_loss: float | None
    test_loss: float | None
    metrics: dict[str, float | None]
    steps: int
    epochs: float
    rows_seen: int
    train_seconds: float
    mlflow_run_id: str


class ComparisonFacts(Result):
    """What was compared, and where its records are."""

    mlflow_run_id: str
    mlflow_experiment_id: str
    prefect_flow_run_id: str | None
    task: Task
    device: str
    rows: RowCounts
    split_digest: str


class Comparison(Result):
    """The whole result, as `--json` writes it."""

    comparison: ComparisonFacts
    strategies: tuple[StrategyResult, ...]


SHOWN_METRICS = {"regression": ("rmse", "mae", "r2"), "binary": ("accuracy", "roc_auc"), "multiclass": ("accuracy", "roc_auc")}


SPARED = ("train loss", "status", "test mae", "steps", "epochs")


def table(task: Task, strategies: Sequence[StrategyResult]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the table of results as text, one row a strategy, in the order they were trained.

    What is in `SPARED` may be left out where there is little room.
    """
    metrics = SHOWN_METRICS[task]
    headings = ["strategy", "batch rows", "rate", "status", "train loss", "validation loss", "test loss"]
    headings += [f"test {name}" for name in metrics] + ["steps", "epochs", "seconds"]
    rows = [
        [item.name, f"{item.batch_rows:,}", f"{item.learning_rate:g}", item.status]
        + [_shown(loss) for loss in (item.train_loss, item.validation_loss, item.test_loss)]
        + [_shown(item.metrics.get(name)) for name in metrics]
        + [f"{item.steps:,}", f"{item.epochs:.4g}", f"{item.train_seconds:.2f}"]
        for item in strategies
    ]
    return headings, rows


def remarks(strategies: Sequence[StrategyResult]) -> list[str]:
    """Return what has to be said beside the table: why a strategy diverged or ended as it did, equal reasons together."""
    said: dict[str, list[str]] = {}
    for item in strategies:
        if item.reason:
            said.setdefault(item.reason, []).append(item.name)
    return [f"{', '.join(names)}: {reason}" for reason, names in said.items()]


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}"
