"""What a person reads: the table, the remarks, the Markdown, the figures."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from rich.console import Console

from batchlab.columns import Columns
from batchlab.experiment import Experiment
from batchlab.packing import pack
from batchlab.report import figures
from batchlab.report.markdown import report
from batchlab.results import Comparison, ComparisonFacts, RowCounts, StrategyResult, remarks, table
from batchlab.sources.csv import Csv
from batchlab.split import SplitRule, split
from flows.display import best_line, show_result
from tasks.tracking import metric_names
from tests.test_science import Make

CURVE = ("step", "rows_seen", "wall_seconds", "epoch", "train_loss", "validation_loss")


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


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_number_of_the_table_is_cut_on_a_narrow_terminal(width: int) -> None:
    shown_on = Console(width=width, record=True, file=io.StringIO())
    show_result(shown_on, comparison(result("full_batch", 1234.56789), result("data_loader", None, "why")), "1 s")
    text = shown_on.export_text()
    assert "…" not in text
    assert all(word in text for word in ("1234.57", "0.01", "data_loader", "0.50", "seconds"))
    assert ("1,234" in text) is (width >= 160)


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
    points = {name: [1.0, 10.0, 100.0] for name in CURVE}
    cut = {name: values[:1] for name, values in points.items()}
    figure = figures.loss_curves({"mini_batch": points, "stochastic": cut}, "price²")
    assert [panel.get_xlabel() for panel in figure.axes] == ["updates", "rows seen", "seconds of training"]
    assert [text.get_text() for text in figure.axes[2].get_legend().get_texts()] == ["mini_batch", "stochastic (diverged)"]
    figures.loss_curves({"stochastic": cut}, "price²").canvas.draw()


def test_figures_take_any_text_that_a_user_names_things(tmp_path: Path) -> None:
    pd.DataFrame({"x_$_y_$": np.arange(40.0), "price_$_per_$": np.arange(40.0) % 7}).to_csv(tmp_path / "a$b$.csv", index=False)
    table = pack(Csv(path=tmp_path / "a$b$.csv"), Columns(target="price_$_per_$", task="regression"), tmp_path)
    for figure in (
        figures.data_overview(table, split(table, SplitRule(), 0)),
        figures.predicted_against_actual(table.target, table.target[:, None], "price_$_per_$"),
        figures.confusion(np.array([0, 1]), np.eye(2), ("$_a_$", "x" * 300)),
        figures.loss_curves({"full_batch": {name: [1.0, 2.0] for name in CURVE}}, "price_$_per_$"),
    ):
        figure.canvas.draw()


def test_metric_names_are_what_mlflow_takes_and_all_different(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["rmse", *(f"correct_of_class/{label}" for label in ("a:b", "a;b", "a_b", "..", "a/", "x" * 300, "\u732b", ""))]
    names = metric_names(keys)
    assert len(set(names.values())) == len(keys)
    client = MlflowClient(f"sqlite:///{mlruns / 'mlflow.db'}")
    run_id = client.create_run("0").info.run_id
    for name in names.values():
        client.log_metric(run_id, name, 1.0)
    assert set(client.get_run(run_id).data.metrics) == set(names.values())
