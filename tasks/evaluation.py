"""Scores of saved models on rows that they were not trained on."""

from typing import TYPE_CHECKING, Any

import numpy as np

from batchlab.experiment import Experiment
from batchlab.files.mapped import gathered
from batchlab.rows.split import Part
from batchlab.scoring.evaluation import scores
from tasks import model_files, store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.models import Models

PARTS: tuple[Part, ...] = ("train", "validation", "test")
MOST_SCORED = 1_000_000
"""Of more rows a part's losses and scores are those of a random sample."""
Numbers = dict[str, float | None]


def scored(models: "Models", model: str, run_id: str, recommended: bool) -> tuple[Numbers, Numbers]:
    """Return what the model at the address, logged last, comes to, read back from the store: losses of the three parts, scores of the test
    rows.

    The recommended one is opened as MLflow opens it, on raw rows too, and has a picture of its test rows; of the others the graph.
    """
    from batchlab.scoring.shipping import predicted

    experiment = models.experiment
    table, split, target = experiment.table, experiment.split, experiment.table.schema.target
    graph = _opened(model, experiment) if recommended else models.graph(model)
    losses: Numbers = {}
    for part in PARTS:  # the test rows last: what is predicted of them is looked at again
        rows = split.rows(part, MOST_SCORED)
        outputs = predicted(graph, table.seen, rows)
        losses[f"{part}_loss"] = float(experiment.losses(rows, outputs).mean())
    truth = gathered(table.target, rows)
    if recommended:
        _draw(run_id, experiment, truth, outputs)
    return losses, scores(truth, outputs, target)


def _opened(model: str, experiment: Experiment) -> Any:
    """Return the graph of a model that MLflow has opened, and that has predicted a few raw rows."""
    from tasks.models import raw_example

    loaded = model_files.loaded(model)
    loaded.predict(raw_example(experiment.table))
    return loaded.get_raw_model().graph


def _draw(run_id: str, experiment: Experiment, truth: "NDArray[Any]", outputs: "NDArray[Any]") -> None:
    """Keep a picture of the test rows: predicted classes, or values, against true ones."""
    from batchlab.report import figures

    target = experiment.table.schema.target
    if target.classes:
        figure, name = figures.confusion(truth, outputs, target.classes), "confusion_matrix.png"
    else:
        figure, name = figures.predicted_against_actual(truth, outputs, target.name), "predicted_against_actual.png"
    store.client().log_figure(run_id, figure, f"plots/{name}")


def unseen(experiment: Experiment) -> str | None:
    """Say which classes have no test row, since ROC AUC cannot be given without them and accuracy says little."""
    classes = experiment.table.schema.target.classes
    if not classes:
        return None
    present = set(np.unique(gathered(experiment.table.target, experiment.split.rows("test", MOST_SCORED))).tolist())
    missing = [f"'{name}'" for label, name in enumerate(classes) if label not in present]
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return f"no test row is of class {', '.join(missing[:5])}{more}, so the test scores say little" if missing else None
