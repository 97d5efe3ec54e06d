"""The task that trains one strategy and keeps its curves and its model in MLflow."""

import tempfile
import time
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from batchlab.config import Profile
from batchlab.engine.records import TrialResult, best
from batchlab.experiment import Experiment
from batchlab.records import Record
from tasks import progress, store
from tasks.data import opened
from tasks.tracking import log_curve, log_dataset, log_params, recorded_run, settings_of


class ComparisonRun(Record):
    """The comparison that a task works for: what it compares and where it is recorded."""

    profile: Profile
    table: Path
    split: Path
    experiment_id: str
    run_id: str
    links: dict[str, str]


class Trained(Record):
    """One trained strategy: how its best trial ended, its MLflow run, and its model there (None when it diverged)."""

    strategy: str
    run_id: str
    model_uri: str | None
    learning_rate: float
    reason: str | None
    steps: int
    epochs: float
    rows_seen: int
    train_seconds: float


@task(task_run_name="train {strategy}", cache_policy=NO_CACHE)
def train(strategy: str, comparison: ComparisonRun) -> Trained:
    """Train one strategy with every learning rate, keep the best, and record both in a child run."""
    experiment = opened(comparison.profile, comparison.table, comparison.split)
    tags = {"mlflow.parentRunId": comparison.run_id, "strategy": strategy}
    with recorded_run(comparison.experiment_id, strategy, tags) as run_id:
        began = time.time()
        results = experiment.train(strategy, progress.reporter(strategy))
        result = best(results)
        _tell(strategy, experiment, results, result)
        _record(run_id, strategy, experiment, results, result, began)
        model_uri = None if result.diverged_at is not None else log_model(run_id, experiment, result)
    return Trained(
        strategy=strategy,
        run_id=run_id,
        model_uri=model_uri,
        learning_rate=result.trial.learning_rate,
        reason=experiment.reason(result),
        steps=result.steps,
        epochs=result.epochs,
        rows_seen=result.rows_seen,
        train_seconds=result.train_seconds,
    )


def _tell(strategy: str, experiment: Experiment, results: list[TrialResult], result: TrialResult) -> None:
    """Write one line to Prefect's log."""
    loss = "diverged" if result.diverged_at is not None else f"validation loss {result.validation_loss * experiment.loss_unit:.6g}"
    line = (
        f"{strategy}: {loss} with learning rate {result.trial.learning_rate:g} of {len(results)}, {result.train_seconds:.1f} s of training"
    )
    get_run_logger().info(line)


def _record(run_id: str, strategy: str, experiment: Experiment, results: list[TrialResult], result: TrialResult, began: float) -> None:
    profile, schema = experiment.profile, experiment.table.schema
    own = {
        "strategy": strategy,
        "batch_rows": profile.strategies[strategy].rows_per_step(len(experiment.split.train)),
        "learning_rate": result.trial.learning_rate,
        "status": "diverged" if result.diverged_at is not None else "completed",
    }
    log_params(run_id, settings_of(experiment) | own)
    log_dataset(run_id, schema, profile, "training")
    log_curve(run_id, result.curve, experiment.loss_unit, began)
    trials = [_trial_row(experiment, item) for item in results]
    store.client().log_table(run_id, {key: [row[key] for row in trials] for key in trials[0]}, "trials.json")


def _trial_row(experiment: Experiment, result: TrialResult) -> dict[str, Any]:
    finite = result.diverged_at is None
    return {
        "learning_rate": result.trial.learning_rate,
        "seed": result.trial.seed,
        "status": "diverged" if not finite else result.stopped or "completed",
        "validation_loss": result.validation_loss * experiment.loss_unit if finite else None,
        "steps": result.steps,
        "reason": "" if finite and result.stopped is None else experiment.reason(result),
    }


def log_model(run_id: str, experiment: Experiment, result: TrialResult) -> str:
    """Log the trial's model, which takes raw columns by name and holds no code, and return its address."""
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    from batchlab.shipping import export

    schema = experiment.table.schema
    types = {name: "int64" if integer else "float64" for name, integer in zip(schema.features, schema.integer, strict=True)}
    example = pd.DataFrame(experiment.table.features[experiment.split.train[:5]], columns=list(schema.features)).astype(types)
    inputs = [ColSpec(AnyType(), name) for name in types]  # any number: MLflow takes no int64 for a double, nor 2.5 for a long
    outputs = [ColSpec("double", name) for name in (schema.target.classes or (schema.target.name,))]
    with tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id):
        folder = Path(scratch) / "exported"
        folder.mkdir()
        export(experiment.ship(result), folder)
        logged = mlflow.pyfunc.log_model(
            name="model",
            loader_module="mlflow.pytorch",  # MLflow's own loader of exported programs; the archive holds no pickle
            data_path=str(folder),
            signature=ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs)),
            input_example=example,
            pip_requirements=requirements(),
            metadata={
                "columns": types,
                "classes": list(schema.target.classes),
                "target": schema.target.name,
                "table_digest": schema.digest,
            },
        )
    return str(logged.model_uri)


def requirements() -> list[str]:
    """Return what a process needs to load the model: the versions at work here."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("mlflow", "torch", "numpy", "pandas")]
