"""The task that scores a trained strategy with the model that was saved, on rows it was not trained on."""

from prefect import task

from batchlab.evaluation import mean_loss, scores
from batchlab.experiment import Experiment
from batchlab.report import figures
from batchlab.results import StrategyResult
from tasks import store
from tasks.data import opened
from tasks.retrying import RETRIES
from tasks.tracking import log_metrics, resumed_run
from tasks.training import ComparisonRun, Trained


@task(task_run_name="evaluate {trained.strategy}", **RETRIES)
def evaluate(trained: Trained, comparison: ComparisonRun) -> StrategyResult:
    """Load the strategy's saved model, score it, and record scores and picture in its run."""
    experiment = opened(comparison.profile, comparison.table, comparison.split)
    losses: dict[str, float | None] = {"train_loss": None, "validation_loss": None, "test_loss": None}
    metrics: dict[str, float | None] = {}
    if trained.model_uri is not None:
        with resumed_run(trained.run_id):
            losses, metrics = _scored(trained, trained.model_uri, experiment)
            final = {f"final_{key}" if key != "test_loss" else key: value for key, value in losses.items()}
            log_metrics(trained.run_id, final | {f"test_{key}": value for key, value in metrics.items()}, trained.steps)
    profile, strategy = comparison.profile, comparison.profile.strategies[trained.strategy]
    return StrategyResult(
        name=trained.strategy,
        kind=strategy.kind,
        batch_rows=strategy.rows_per_step(len(experiment.split.train)),
        optimizer=profile.train.optimizer.kind,
        learning_rate=trained.learning_rate,
        status="diverged" if trained.model_uri is None else "completed",
        reason="; ".join(filter(None, (trained.reason, _unseen(experiment)))) or None,
        **losses,
        metrics=metrics,
        steps=trained.steps,
        epochs=trained.epochs,
        rows_seen=trained.rows_seen,
        train_seconds=trained.train_seconds,
        mlflow_run_id=trained.run_id,
    )


def _unseen(experiment: Experiment) -> str | None:
    """Say which classes have no test row, since ROC AUC cannot be given without them and accuracy says little."""
    classes = experiment.table.schema.target.classes
    present = set(experiment.table.target[experiment.split.test].tolist())
    unseen = [f"'{name}'" for label, name in enumerate(classes) if label not in present]
    more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
    return f"no test row is of class {', '.join(unseen[:5])}{more}, so the test scores say little" if unseen else None


def _scored(trained: Trained, model_uri: str, experiment: Experiment) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Return the losses of the three parts and the scores of the test rows; keep the picture of the test rows."""
    import mlflow

    from batchlab.shipping import predicted

    table, split, target = experiment.table, experiment.split, experiment.table.schema.target
    model = mlflow.pyfunc.load_model(model_uri).get_raw_model()
    parts = {"train_loss": split.train, "validation_loss": split.validation, "test_loss": split.test}
    outputs = {name: predicted(model, table.features, rows) for name, rows in parts.items()}
    losses: dict[str, float | None] = {
        name: mean_loss(table.target[rows], outputs[name], experiment.loss, experiment.scaling.target_scale) for name, rows in parts.items()
    }
    truth = table.target[split.test]
    if target.classes:
        figure, name = figures.confusion(truth, outputs["test_loss"], target.classes), "confusion_matrix.png"
    else:
        figure, name = figures.predicted_against_actual(truth, outputs["test_loss"], target.name), "predicted_against_actual.png"
    store.client().log_figure(trained.run_id, figure, f"plots/{name}")
    return losses, scores(truth, outputs["test_loss"], target)
