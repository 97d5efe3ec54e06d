"""The task that records one setting of a finished search: its child run with curves, numbers and model."""

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from batchlab.config import Profile
from batchlab.engine.records import TrialResult
from batchlab.experiment import Experiment
from batchlab.records import Record
from batchlab.retraining import saved
from batchlab.retraining.saved import Lineage
from batchlab.search.findings import Finding, Findings, RateSummary
from batchlab.search.records import to_target
from batchlab.search.search import Search
from batchlab.search.space import optimizer_words
from batchlab.table import PackedTable
from tasks import store
from tasks.tracking import log_curve, log_dataset, log_metrics, log_params, recorded_run, settings_of, type_of

if TYPE_CHECKING:
    import pandas as pd


class ComparisonRun(Record):
    """The comparison that a task works for: what it compares and where it is recorded."""

    profile: Profile
    table: Path
    split: Path
    experiment_id: str
    run_id: str
    links: dict[str, str]


class Recorded(Record):
    """One setting's child run, its model there (None for one that diverged or left the race), and the seconds that recording took."""

    label: str
    run_id: str
    model_uri: str | None
    seconds: float


@task(task_run_name="record {label}", cache_policy=NO_CACHE)
def record(label: str, search: Search, comparison: ComparisonRun) -> Recorded:
    """Record one setting in a child run: its numbers with intervals, its curves over draws, what its rates came to, its model."""
    found, experiment = search.findings, search.experiment
    item, began = found.of(label), time.time()
    tags = {"mlflow.parentRunId": comparison.run_id, "strategy": item.candidate.name}
    tags |= {"batchlab.recommended": "yes"} if found.choice is not None and found.choice.label == label else {}
    with recorded_run(comparison.experiment_id, label, tags) as run_id:
        log_params(run_id, settings_of(experiment) | _own_params(item))
        log_dataset(run_id, experiment.table.schema, experiment.profile, "training")
        log_metrics(run_id, _own_metrics(item), item.shown.steps)  # first, so that the comparison view begins with them
        log_curve(run_id, curve_of(item, found), began)
        rates = [_rate_row(rate, found.loss_unit) for rate in item.rates]
        if rates:
            store.client().log_table(run_id, {key: [row[key] for row in rates] for key in rates[0]}, "rates.json")
        tracked = time.time() - began
        model_uri = log_model(run_id, experiment, item.shown) if item.shown.weights and item.outcome.status != "diverged" else None
    return Recorded(label=label, run_id=run_id, model_uri=model_uri, seconds=tracked)


def _own_params(item: Finding) -> dict[str, Any]:
    return {
        "strategy": item.candidate.name,
        "setting": item.candidate.label,
        "batch_rows": item.candidate.batch_rows,
        "learning_rate": item.learning_rate,
        "optimizer": optimizer_words(item.candidate.optimizer),
        "status": item.outcome.status,
    }


def _own_metrics(item: Finding) -> dict[str, float | None]:
    """Return the numbers that the comparison view shows; `_low` and `_high` are the ends of the 95% intervals.

    What it takes to reach the target is a lower bound where `status` says that it was not reached: MLflow compares runs by what they all
    have.
    """
    metrics: dict[str, float | None] = {"seconds_to_target": None}
    for name, value in to_target(item).items():
        if name.endswith("_ci"):
            low, high = value or (None, None)
            metrics |= {f"{name.removesuffix('_ci')}_low": low, f"{name.removesuffix('_ci')}_high": high}
        elif name != "status":
            metrics[name] = value
    for name, estimate in (("steps", item.steps), ("rows", item.rows), ("seconds", item.seconds)):
        metrics[f"{name}_to_target"] = estimate.value
    return {name: None if value is None else _plain(value) for name, value in metrics.items()}


def _rate_row(rate: RateSummary, unit: float) -> dict[str, Any]:
    """Return what an optimizer and rate came to in the race, in the target's unit."""
    return {
        "optimizer": rate.optimizer,
        "learning_rate": rate.learning_rate,
        "draws": rate.draws,
        "rows_seen": rate.rows,
        "validation_loss": _plain(rate.loss * unit),
        "left": "" if rate.left is None else rate.left.why,
    }


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def curve_of(item: Finding, found: Findings) -> dict[str, list[float]]:
    """Return the curve over draws: mean losses with the lowest and highest of the draws, in the target's unit, and every x-axis.

    Seconds are steps × the undisturbed seconds of a step. Its points are those of the draw that has the fewest; the others are
    interpolated in logarithms of rows.
    """
    curves = [result.curve for result in item.results if result.diverged_at is None] or [item.shown.curve]
    rows = np.asarray(min(curves, key=lambda curve: len(curve.rows_seen)).rows_seen, np.float64)

    def over_draws(name: str) -> NDArray[np.float64]:
        return np.array([np.interp(np.log1p(rows), np.log1p(curve.rows_seen), getattr(curve, name)) for curve in curves])

    columns = {"step": over_draws("step").mean(0).round(), "epoch": over_draws("epoch").mean(0), "rows_seen": rows}
    columns["wall_seconds"] = columns["step"] * item.timings.step().value
    for name in ("train_loss", "validation_loss", "last_validation_loss"):
        losses = over_draws(name) * found.loss_unit
        columns |= {name: losses.mean(0), f"{name}_low": losses.min(0), f"{name}_high": losses.max(0)}
    return {name: values.tolist() for name, values in columns.items()}


def log_model(run_id: str, experiment: Experiment, result: TrialResult, lineage: Lineage | None = None) -> str:
    """Log the trial's model, which takes raw columns by name, and return its address.

    It holds a graph, arrays, and one readable file that turns raw columns into the graph's; with a `lineage` also what retraining needs.
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    from batchlab.serving import batchlab_serving
    from batchlab.shipping import export

    schema = experiment.table.schema
    types = {column.name: type_of(column) for column in schema.columns}
    inputs = [ColSpec(AnyType(), name) for name in types]  # any number: MLflow takes no int64 for a double, nor 2.5 for a long
    outputs = [ColSpec("double", name) for name in (schema.target.classes or (schema.target.name,))]
    with tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id):
        folder = Path(scratch) / saved.FOLDER
        folder.mkdir()
        export(experiment.ship(result), schema.columns, folder)
        if lineage is not None:
            saved.save(folder, experiment.preparation, result.weights, lineage)
        logged = mlflow.pyfunc.log_model(
            name="model",
            loader_module="batchlab_serving",
            code_paths=[str(batchlab_serving.__file__)],
            data_path=str(folder),
            signature=ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs)),
            input_example=raw_example(experiment.table),
            pip_requirements=requirements(),
            metadata={
                "columns": types,
                "classes": list(schema.target.classes),
                "target": schema.target.name,
                "table_digest": schema.digest,
            },
        )
    store.client().update_run(run_id, "RUNNING")  # MLflow has ended it, but whoever opened it goes on
    return str(logged.model_uri)


def raw_example(table: PackedTable) -> "pd.DataFrame":
    """Return a few raw rows as a person would write them: numbers as numbers, whatever text they were read from."""
    import pandas as pd

    frame = pd.read_parquet(table.example)
    for column in table.schema.columns:
        if column.text and column.kind == "number" and column.decimal == ".":
            frame[column.name] = pd.to_numeric(frame[column.name], errors="coerce")
    return frame


def requirements() -> list[str]:
    """Return what a process needs to load the model: the versions at work here."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("mlflow", "torch", "numpy", "pandas", "pyarrow")]
