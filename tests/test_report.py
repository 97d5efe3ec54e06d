"""What a person reads: the table, the remarks, the Markdown, the figures."""

import json

import numpy as np
import pytest

from batchlab.experiment import Experiment
from batchlab.report import figures
from batchlab.report.markdown import report
from batchlab.results import Comparison, ComparisonFacts, RowCounts, StrategyResult, remarks, table
from flows.display import best_line
from tests.test_science import Make


def result(name: str, loss: float | None, reason: str | None = None) -> StrategyResult:
    return StrategyResult(
        name=name,
        kind=name,
        batch_rows=1,
        optimizer="sgd",
        learning_rate=0.01,
        status="completed" if loss is not None else "diverged",
        reason=reason,
        train_loss=loss,
        validation_loss=loss,
        test_loss=loss,
        metrics={} if loss is None else {"rmse": 1.5, "mae": float("nan"), "r2": None},
        steps=1234,
        epochs=2.0,
        rows_seen=1234,
        train_seconds=0.5,
        mlflow_run_id="run",
    )


def comparison(*strategies: StrategyResult) -> Comparison:
    facts = ComparisonFacts(
        mlflow_run_id="parent",
        mlflow_experiment_id="1",
        prefect_flow_run_id=None,
        task="regression",
        device="cpu",
        rows=RowCounts(train=10, validation=3, test=3),
        split_digest="abc",
    )
    return Comparison(comparison=facts, strategies=strategies)


def test_json_has_null_and_never_nan_for_what_is_missing() -> None:
    text = comparison(result("full_batch", 1.0), result("mini_batch", None, "why")).model_dump_json()
    assert "NaN" not in text
    first, second = json.loads(text)["strategies"]
    assert first["metrics"] == {"rmse": 1.5, "mae": None, "r2": None}
    assert (second["train_loss"], second["metrics"], second["reason"]) == (None, {}, "why")


def test_equal_remarks_are_said_once_for_all_their_strategies() -> None:
    said = remarks([result("full_batch", None, "too fast"), result("mini_batch", 1.0), result("stochastic", None, "too fast")])
    assert said == ["full_batch, stochastic: too fast"]


def test_the_table_has_a_cell_for_every_heading() -> None:
    headings, rows = table("regression", [result("full_batch", 104.94761), result("stochastic", None)])
    assert {len(row) for row in rows} == {len(headings)}
    assert dict(zip(headings, rows[0], strict=True))["train loss"] == "104.948"
    assert dict(zip(headings, rows[1], strict=True))["test r2"] == "–"


def test_the_markdown_report_links_and_escapes() -> None:
    text = report("prices", comparison(result("a|b", 1.0)), {"MLflow run": "http://127.0.0.1:5000/x"})
    assert "a\\|b" in text
    assert "[MLflow run](http://127.0.0.1:5000/x)" in text


def test_the_best_line_names_the_first_of_equals_and_admits_a_total_loss() -> None:
    assert best_line(comparison(result("full_batch", 1.00000001), result("mini_batch", 1.0))).startswith(
        "Lowest validation loss: full_batch"
    )
    assert best_line(comparison(result("full_batch", None))) == "Every strategy diverged."


@pytest.mark.parametrize("data", ["diabetes", "wine", "breast_cancer", "synthetic"])
def test_figures_are_drawn_for_every_task(experiment: Make, data: str) -> None:
    made: Experiment = experiment("quick", data=data, overrides=["train.epochs=2"])
    target = made.table.schema.target
    drawn = [figures.data_overview(made.table, made.split)]
    truth = made.table.target[made.split.test]
    if target.classes:
        drawn.append(figures.confusion(truth, np.eye(len(target.classes))[truth], target.classes))
    else:
        drawn.append(figures.predicted_against_actual(truth, truth[:, None], target.name))
    for figure in drawn:
        figure.canvas.draw()
        assert all(panel.get_xlabel() and panel.get_ylabel() for panel in figure.axes)


def test_loss_curves_have_three_axes_and_name_the_diverged() -> None:
    points = {name: [1.0, 10.0, 100.0] for name in ("step", "rows_seen", "wall_seconds", "epoch", "train_loss", "validation_loss")}
    cut = {name: values[:1] for name, values in points.items()}
    figure = figures.loss_curves({"mini_batch": points, "stochastic": cut}, "price²")
    assert [panel.get_xlabel() for panel in figure.axes] == ["updates", "rows seen", "seconds of training"]
    assert [text.get_text() for text in figure.axes[2].get_legend().get_texts()] == ["mini_batch", "stochastic (diverged)"]
    figures.loss_curves({"stochastic": cut}, "price²").canvas.draw()
