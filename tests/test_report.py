"""What a person reads: the table, the remarks, the Markdown, the figures."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from rich.console import Console

from batchlab.experiment import Experiment
from batchlab.report import figures, wording
from batchlab.report.markdown import report
from batchlab.report.tables import remarks, table
from batchlab.results import Comparison, ComparisonFacts, RowCounts, Status, StrategyResult, Verdict
from batchlab.rows.split import SplitRule, split
from batchlab.search.search import Search
from batchlab.sources.csv import Csv
from batchlab.table import pack
from batchlab.table.columns import Columns
from flows.display import grid
from tasks.recording import result_of
from tasks.tracking import metric_names
from tests.test_science import Make
from tests.verdicts import departed, further


def result(label: str, seconds: float | None, reason: str | None = None, status: Status | None = None) -> StrategyResult:
    """A setting that takes so many seconds to the target, or one that does not get there: diverged unless the status says otherwise."""
    there = seconds is not None
    status = status or ("reached" if there else "diverged")
    loss = 1234.56789 if status != "diverged" else None
    spent = None if status == "diverged" else (0.9 * (seconds or 1), 1.2 * seconds if seconds is not None else None)
    return StrategyResult(
        name=label.split()[0],
        label=label,
        kind="mini_batch",
        batch_rows=1,
        optimizer="sgd",
        learning_rate=0.01,
        recommended=there,
        status=status,
        reason=reason,
        draws=10,
        mean_validation_loss=loss,
        mean_test_loss=loss,
        steps_to_target=1234.0 if there else None,
        steps_to_target_ci=(1100.0, 1400.0 if there else None) if spent else None,
        rows_to_target=1234.0 if there else None,
        rows_to_target_ci=(1100.0, 1400.0 if there else None) if spent else None,
        seconds_to_target=seconds,
        seconds_to_target_ci=spent,
        seconds_per_step=1.5e-6,
        seconds_per_step_ci=(1.4e-6, 1.6e-6),
        delivery_share=0.25,
        peak_bytes=2.5 * 2**20,
        noise_scale=None,
        noise_scale_ci=(12.0, None),
        train_loss=loss,
        validation_loss=loss,
        test_loss=loss,
        metrics={"rmse": 1.5, "mae": float("nan"), "r2": None} if there else {},
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
    empty: dict[str, None] = dict.fromkeys(Verdict.model_fields)
    said = {
        "objective": "best",
        "margin": 0.01,
        "as_good": (),
        "detectable": False,
        "ties": (),
        "memory_ceiling": 9,
        "trainings": 5,
        "left_out": (),
        "search_seconds": 1.0,
        "notes": ("moved",),
        "periods": (),
        "yardsticks": (),
        "processes": (),
    }
    verdict = Verdict(**{**empty, **said, "text": "Train with a.\nReaches it.\nThe search itself: 5 trainings."})  # type: ignore[arg-type]
    return Comparison(comparison=facts, verdict=verdict, strategies=strategies)


def test_json_has_null_and_never_nan_for_what_is_missing() -> None:
    text = comparison(result("full_batch", 1.0), result("mini_batch", None, "why")).model_dump_json()
    assert "NaN" not in text
    first, second = json.loads(text)["strategies"]
    assert first["metrics"] == {"rmse": 1.5, "mae": None, "r2": None}
    assert (second["train_loss"], second["metrics"], second["reason"]) == (None, {}, "why")


def test_the_json_of_a_setting_that_left_the_race_says_when_with_both_losses(searched: Search) -> None:
    typed = searched.findings.typed[0].candidate
    gone = departed(searched, typed.setting)
    left = gone.findings.of(typed.label).left
    assert left is not None
    written = json.loads(result_of(gone.findings.of(typed.label), gone).model_dump_json())
    assert (written["status"], written["recommended"], written["optimizer"]) == ("behind", False, "adam")
    own, leaders = (f"{loss * gone.findings.loss_unit:.4g}" for loss in (left.loss, left.leader_loss))
    assert written["reason"] == f"behind after {left.rows:,} rows: loss {own} against the leader's {leaders}{further(left)}"
    assert (written["seconds_to_target"], written["test_loss"]) == (None, None)
    assert written["mean_validation_loss"] > 0


def test_equal_remarks_are_said_once_for_all_their_strategies() -> None:
    said = remarks([result("full_batch", None, "too fast"), result("mini_batch", 1.0), result("stochastic", None, "too fast")])
    assert said == ["full_batch, stochastic: too fast"]


def test_the_table_has_a_cell_for_every_heading() -> None:
    items = [
        result("full_batch", 104.94761),
        *(result("stochastic", None, status=status) for status in ("not_reached", "behind", "diverged")),
    ]
    headings, rows = table("regression", items)
    assert {len(row) for row in rows} == {len(headings)}
    first, missed, behind, diverged = (dict(zip(headings, row, strict=True)) for row in rows)
    assert (first["time to target"], first["95% CI"], first["peak"]) == ("105 s", "94.5–126", "2.5 MiB")
    assert (first["optimizer"], first["rate"], first["validation loss"], first["test loss"]) == ("sgd", "0.01", "1234.6", "1234.6")
    assert (missed["time to target"], missed["95% CI"], missed["status"]) == ("> 900 ms", "", "not reached")
    assert (behind["time to target"], behind["validation loss"], behind["status"]) == ("–", "1234.6", "left")
    assert (diverged["time to target"], diverged["validation loss"], diverged["status"]) == ("–", "–", "diverged")
    assert diverged["test r2"] == "–"
    assert [row["seconds a step"] for row in (first, missed, behind, diverged)] == ["1.5 µs", "1.5 µs", "–", "–"]


def test_the_table_in_the_terminal_marks_the_recommended_setting_alone() -> None:
    items = [result("full_batch", None, status="behind"), result("mini_batch", 1.0), result("stochastic", None)]
    shown = grid("regression", items, 200)
    assert [row.style for row in shown.rows] == ["dim", "bold green", "red"]


def test_the_markdown_report_has_the_verdict_links_and_escapes() -> None:
    text = report("prices", comparison(result("a|b", 1.0)), {"MLflow run": "http://127.0.0.1:5000/x"})
    assert "a\\|b" in text
    assert "> Train with a." in text
    assert "- moved" in text
    assert "[MLflow run](http://127.0.0.1:5000/x)" in text


@pytest.mark.parametrize("width", [80, 100, 170])
def test_no_number_of_the_table_is_cut_on_a_narrow_terminal(width: int) -> None:
    shown_on = Console(width=width, record=True, file=io.StringIO())
    typed = result("typed batch 10 sgd 0.01", None, status="behind").model_copy(update={"optimizer": "sgd with momentum 0.9"})
    shown_on.print(grid("regression", [result("full_batch", 12.34), result("data_loader 262144", None, "why"), typed], width))
    text = shown_on.export_text()
    assert "…" not in text
    assert all(word in text for word in ("0.01", "262144", "reached", "1234.6", "12.3 s"))
    assert ("11.1–14.8" in text) is (width >= 160)
    assert ("2.5 MiB" in text) is (width >= 160)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.000028, "28 µs"), (0.0123, "12.3 ms"), (9.84, "9.84 s"), (412.0, "412 s"), (3e-10, "0.3 ns")]
)
def test_durations_have_the_unit_that_fits(value: float, shown: str) -> None:
    assert wording.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(1.234, "1.23"), (1234.0, "1,234"), (1.2e6, "1.2M"), (3e9, "3G"), (math.inf, "∞"), (math.nan, "–")]
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert wording.number(value) == shown


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


def test_figures_take_any_text_that_a_user_names_things(tmp_path: Path) -> None:
    pd.DataFrame({"x_$_y_$": np.arange(40.0), "price_$_per_$": np.arange(40.0) % 7}).to_csv(tmp_path / "a$b$.csv", index=False)
    table = pack(Csv(path=tmp_path / "a$b$.csv"), Columns(target="price_$_per_$", task="regression"), tmp_path)
    for figure in (
        figures.data_overview(table, split(table, SplitRule(), 0)),
        figures.predicted_against_actual(table.target, table.target[:, None], "price_$_per_$"),
        figures.confusion(np.array([0, 1]), np.eye(2), ("$_a_$", "x" * 300)),
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
