"""The task that scores a recorded setting with the model that was saved, on rows it was not trained on."""

from prefect import task

from batchlab.evaluation import mean_loss, scores
from batchlab.experiment import Experiment
from batchlab.report import figures
from batchlab.report.wording import why
from batchlab.results import StrategyResult
from batchlab.search.records import to_target
from batchlab.search.search import Search
from batchlab.search.space import optimizer_words
from batchlab.split import Part
from batchlab.table import gathered
from tasks import model_files, store
from tasks.recording import Recorded
from tasks.retrying import RETRIES
from tasks.tracking import log_metrics, resumed_run

PARTS: tuple[Part, ...] = ("train", "validation", "test")
MOST_SCORED = 1_000_000
"""Of more rows a part's losses and scores are those of a random sample."""


@task(task_run_name="evaluate {recorded.label}", **RETRIES)
def evaluate(recorded: Recorded, search: Search) -> StrategyResult:
    """Load the setting's saved model, score it, and record scores and picture in its run."""
    found, experiment = search.findings, search.experiment
    item = found.of(recorded.label)
    losses: dict[str, float | None] = {"train_loss": None, "validation_loss": None, "test_loss": None}
    metrics: dict[str, float | None] = {}
    if recorded.model_uri is not None:
        with resumed_run(recorded.run_id):
            losses, metrics = _scored(recorded, recorded.model_uri, experiment)
            final = {f"final_{key}" if key != "test_loss" else key: value for key, value in losses.items()}
            log_metrics(recorded.run_id, final | {f"test_{key}": value for key, value in metrics.items()}, item.shown.steps)
    candidate, shown = item.candidate, item.shown
    return StrategyResult(
        name=candidate.name,
        label=candidate.label,
        kind=candidate.strategy.kind,
        batch_rows=candidate.batch_rows,
        optimizer=optimizer_words(candidate.optimizer),
        learning_rate=item.learning_rate,
        recommended=item is found.best,
        reason="; ".join(filter(None, (why(found, item), _unseen(experiment)))) or None,
        **to_target(item),
        **losses,
        metrics=metrics,
        steps=shown.steps,
        epochs=shown.epochs,
        rows_seen=shown.rows_seen,
        train_seconds=found.seconds_of(recorded.label),
        mlflow_run_id=recorded.run_id,
    )


def _unseen(experiment: Experiment) -> str | None:
    """Say which classes have no test row, since ROC AUC cannot be given without them and accuracy says little."""
    classes = experiment.table.schema.target.classes
    present = set(gathered(experiment.table.target, experiment.split.rows("test", MOST_SCORED)).tolist())
    unseen = [f"'{name}'" for label, name in enumerate(classes) if label not in present]
    more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
    return f"no test row is of class {', '.join(unseen[:5])}{more}, so the test scores say little" if unseen else None


def _scored(recorded: Recorded, model_uri: str, experiment: Experiment) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Return the losses of the three parts and the scores of the test rows; keep the picture of the test rows."""
    from batchlab.shipping import predicted

    table, split, target = experiment.table, experiment.split, experiment.table.schema.target
    model = model_files.loaded(model_uri).get_raw_model().graph
    parts = {f"{part}_loss": split.rows(part, MOST_SCORED) for part in PARTS}
    outputs = {name: predicted(model, table.features, rows) for name, rows in parts.items()}
    losses: dict[str, float | None] = {
        name: mean_loss(gathered(table.target, rows), outputs[name], experiment.loss, experiment.preparation.target_scale)
        for name, rows in parts.items()
    }
    truth = gathered(table.target, parts["test_loss"])
    if target.classes:
        figure, name = figures.confusion(truth, outputs["test_loss"], target.classes), "confusion_matrix.png"
    else:
        figure, name = figures.predicted_against_actual(truth, outputs["test_loss"], target.name), "predicted_against_actual.png"
    store.client().log_figure(recorded.run_id, figure, f"plots/{name}")
    return losses, scores(truth, outputs["test_loss"], target)
