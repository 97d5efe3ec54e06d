"""Yardsticks beside the verdict: closed forms, scikit-learn's own numbers, the last known value; what is capped, left out and claimed."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from batchlab.analysis import yardsticks as ways
from batchlab.analysis.yardsticks import Yardstick, after_each, difference, last_known
from batchlab.experiment import Experiment
from batchlab.report.page import page
from batchlab.report.page_tables import yardsticks_table
from batchlab.report.wording import beside_it_in_loss, verdict_text
from batchlab.results import Comparison
from batchlab.search import yardsticks
from batchlab.search.beside import beside
from batchlab.search.findings import Findings
from batchlab.search.known import Known
from batchlab.search.records import verdict_of
from batchlab.search.saving import load, save
from batchlab.search.search import Search
from batchlab.search.yardsticks import Fitting, linear_rows
from tasks.concluding import _beaten
from tests.conftest import SMALL

Make = Callable[..., Experiment]
QUICK = (*SMALL, "search.max_minutes=inf", "search.objective=loss", "search.defaults=false", "train.epochs=5")
ALONE = ("peak memory", "loaders", "timing, first sitting", "timing, second sitting", "sorted order")


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let boosting take its time, so that no number here hangs on the machine's speed; its threads would wait for each other."""
    monkeypatch.setattr(yardsticks, "MOST_SECONDS", math.inf)
    with threadpool_limits(1):
        yield


@pytest.fixture
def of_frame(experiment: Make, tmp_path: Path) -> Make:
    """Make an experiment on a data frame whose target is y."""

    def made(frame: pd.DataFrame, *overrides: str, **choices: object) -> Experiment:
        path = tmp_path / "frame.parquet"
        frame.to_parquet(path)
        return experiment("quick", data=str(path), target="y", overrides=overrides, **choices)

    return made


def found_on(experiment: Experiment, seconds: float = math.inf) -> tuple[dict[str, Yardstick], dict[str, str]]:
    """Return the yardsticks by their keys, and what was left out."""
    found, missing = Fitting(experiment, lambda: seconds).all()
    return {item.key: item for item in found}, missing


def run(experiment: Experiment, leaving_out: Sequence[str] = ALONE) -> Search:
    """Run a search, without what is not asked for here."""
    search = Search(experiment)
    for part in search.parts():
        if part.label not in leaving_out and not part.label.startswith("model "):
            part.run()
    return search


def parts_of(experiment: Experiment) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the packed columns and the target of each part, straight from the table."""
    table, split = experiment.table, experiment.split
    return {part: (table.features[split.rows(part)], table.target[split.rows(part)]) for part in ("train", "validation", "test")}


# Closed forms, and scikit-learn's own numbers


def test_least_squares_is_numpys_on_standardised_columns(experiment: Make) -> None:
    made = experiment("quick", data="diabetes")
    found, missing = found_on(made)
    (columns, truth), *held = parts_of(made).values()
    mean, spread = columns.mean(0, dtype=float), columns.std(0, dtype=float)
    slopes = np.linalg.lstsq(np.c_[(columns - mean) / spread, np.ones(len(columns))], truth, rcond=None)[0]
    losses = [np.mean((np.c_[(rows - mean) / spread, np.ones(len(rows))] @ slopes - target) ** 2) for rows, target in held]
    assert [found["linear"].validation_loss, found["linear"].test_loss] == pytest.approx(losses, rel=1e-6)
    assert found["constant"].test_loss == pytest.approx(np.mean((held[1][1] - truth.mean()) ** 2))
    assert found["constant"].validation_loss == pytest.approx(made.constant_loss * made.loss_unit, rel=1e-5)
    assert {"constant", "linear", "boosting"} <= set(found)
    assert missing == {}


@pytest.mark.parametrize(("data", "overrides"), [("diabetes", ()), ("breast_cancer", ()), ("diabetes", ("split.kind=chronological",))])
def test_every_yardstick_of_these_rows_is_scored_as_every_setting_is(experiment: Make, data: str, overrides: tuple[str, ...]) -> None:
    made = experiment("quick", data=data, overrides=overrides)
    found, missing = found_on(made)
    assert list(found) == list(Fitting(made, lambda: math.inf)._known())
    assert missing == {}
    for item in found.values():
        assert np.isfinite([item.validation_loss, item.test_loss]).all()
        assert len(item.portions) == 16
        assert 0 < item.rows <= item.of_rows
        assert item.name


def test_the_cross_entropy_of_the_class_shares_is_their_entropy(experiment: Make) -> None:
    made = experiment("quick", data="breast_cancer", overrides=["split.kind=in_sample"])
    shares = np.bincount(made.table.target) / len(made.table.target)
    assert found_on(made)[0]["constant"].test_loss == pytest.approx(-(shares * np.log(shares)).sum())


def test_a_huber_loss_is_scored_as_every_setting_is(experiment: Make) -> None:
    made = experiment("quick", data="diabetes", overrides=["train.loss=huber", "train.huber_delta=0.5"])
    found = found_on(made)[0]["constant"]
    assert found.test_loss == pytest.approx(made.constant_test_loss)
    assert found.validation_loss == pytest.approx(made.constant_loss * made.loss_unit, rel=1e-5)


@pytest.mark.parametrize("data", ["diabetes", "breast_cancer"])
def test_boosting_in_stretches_is_scikit_learns_in_one_go(experiment: Make, data: str) -> None:
    made = experiment("quick", data=data)
    (columns, truth), _, (rows, target) = parts_of(made).values()
    found = found_on(made)[0]["boosting"]
    if data == "diabetes":
        model = HistGradientBoostingRegressor(random_state=made.profile.seed).fit(columns, truth)
        expected = np.mean((model.predict(rows) - target) ** 2)
    else:
        model = HistGradientBoostingClassifier(random_state=made.profile.seed).fit(columns, truth)
        expected = -np.log(model.predict_proba(rows)[np.arange(len(rows)), target]).mean()
    assert found.test_loss == pytest.approx(expected)
    assert (found.rows, found.of_rows, found.note) == (len(truth), len(truth), "")
    assert len(found.portions) == 16
    assert found.portions.mean() == pytest.approx(found.test_loss, rel=0.1)  # portions differ by a row at most


def test_boosting_that_stops_early_by_itself_is_not_said_to_be_cut_and_one_without_time_is() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((10_500, 3)).astype(np.float32)
    truth = (features[:, 0] + rng.standard_normal(10_500) > 0).astype(np.int64)
    predict, rounds = ways.boosted(features, truth, 2, np.zeros(3, bool), 0, math.inf)
    model = HistGradientBoostingClassifier(random_state=0).fit(features, truth)
    assert model.n_iter_ < 100
    assert rounds == 100
    np.testing.assert_array_equal(predict(features), model.predict_proba(features))
    assert ways.boosted(features, truth, 2, np.zeros(3, bool), 0, 0.0)[1] == 5  # the first stretch: ten trees, two a round


def test_more_columns_than_rows_give_the_smallest_weights(of_frame: Make) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((60, 300)), columns=[f"x{place}" for place in range(300)])
    made = of_frame(frame.assign(y=frame["x0"] + frame["x1"]))
    found, missing = found_on(made)
    (columns, truth), _, (rows, target) = parts_of(made).values()
    mean, spread = columns.mean(0, dtype=float), columns.std(0, dtype=float)
    scaled = (columns - mean) / spread
    predicted = (rows - mean) / spread @ np.linalg.pinv(scaled) @ (truth - truth.mean()) + truth.mean()
    assert found["linear"].test_loss == pytest.approx(np.mean((predicted - target) ** 2), rel=1e-5)
    assert missing == {}


# What tables may hold


def test_missing_infinite_and_empty_columns_and_categories_are_taken_as_they_are(of_frame: Make) -> None:
    rng = np.random.default_rng(1)
    rows = 200
    frame = pd.DataFrame({"x": rng.standard_normal(rows), "late": rng.standard_normal(rows), "kind": rng.choice(["a", "b", "c"], rows)})
    frame["y"] = frame["x"].fillna(0) + 3.0 * (frame["kind"] == "b") + 0.1 * rng.standard_normal(rows)
    frame.loc[::3, "x"] = np.nan
    frame.loc[5, "x"] = np.inf
    frame.loc[:170, "late"] = np.nan  # none in the training rows
    found, missing = found_on(of_frame(frame, "split.kind=chronological"))
    assert missing == {}
    assert {"constant", "last_known", "linear", "boosting"} <= set(found)
    assert all(math.isfinite(item.test_loss) for item in found.values())
    assert found["linear"].test_loss < 0.5 * found["constant"].test_loss  # the categories are one-hot
    assert found["boosting"].test_loss < found["constant"].test_loss


def test_embedded_categories_are_one_hot_to_the_linear_model(of_frame: Make) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"x": rng.standard_normal(300), "kind": rng.choice(["a", "b", "c", "d"], 300)})
    frame["y"] = frame["x"] + frame["kind"].map({"a": 3.0, "b": 0.0, "c": 2.0, "d": -1.0}) + 0.1 * rng.standard_normal(300)
    found, _ = found_on(of_frame(frame, "model.kind=mlp", "encoding.categories=embedding"))
    assert found["linear"].test_loss == pytest.approx(0.01, rel=0.5)


def test_a_class_that_no_fitted_row_has_gets_probability_nothing() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((80, 2)).astype(np.float32)
    truth = np.where(features[:, 0] > 0, 2, 0)
    for predict in (
        ways.logistic(features.astype(np.float64), truth, 3)[0],
        ways.boosted(features, truth, 3, np.zeros(2, bool), 0, math.inf)[0],
    ):
        found = predict(features)
        assert found.shape == (80, 3)
        assert (found[:, 1] == 0).all()
        np.testing.assert_allclose(found.sum(1), 1)


def test_a_class_of_one_row_among_many_does_not_stop_boosting() -> None:
    rng = np.random.default_rng(0)
    features, truth = rng.standard_normal((10_100, 1)).astype(np.float32), rng.integers(0, 2, 10_100)
    truth[0] = 2
    assert ways.boosted(features, truth, 3, np.zeros(1, bool), 0, 0.0)[0](features).shape == (10_100, 3)


def test_rows_of_a_single_class_leave_out_what_cannot_be_fitted_and_say_why(of_frame: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardsticks, "LINEAR_VALUES", 4)
    monkeypatch.setattr(yardsticks, "FEWEST_A_CLASS", 0)
    frame = pd.DataFrame({"x": np.arange(400.0), "y": np.where(np.arange(400) % 40 == 7, "rare", "usual")})
    found, missing = found_on(of_frame(frame, "split.kind=stratified"))
    assert "linear" not in found
    assert "boosting" in found
    (why,) = missing.items()
    assert why[0] == "scikit-learn's logistic regression with defaults"
    assert "one class" in why[1]


# The last known value


def walk(rows: int = 900, seed: int = 0) -> pd.DataFrame:
    """A random walk, and a feature that has nothing to do with it, in no order."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.standard_normal(rows), "day": pd.date_range("2024-01-01", periods=rows, freq="h")})
    return frame.assign(y=np.cumsum(rng.standard_normal(rows))).sample(frac=1, random_state=0)


def test_the_last_value_of_a_random_walk_beats_every_setting_and_the_second_line_says_so(of_frame: Make) -> None:
    made = of_frame(walk(), "split.kind=chronological", "columns.time=day", *QUICK, "search.yardsticks=true", strategies=["full_batch"])
    search = run(made)
    verdict = verdict_of(search.findings, verdict_text(search.findings))
    last = next(item for item in verdict.yardsticks if item.key == "last_known")
    steps = np.diff(walk().sort_values("day")["y"])
    assert last.test_loss == pytest.approx(np.mean(steps[-180:] ** 2))
    assert last.beats
    assert last.difference == pytest.approx(last.test_loss / verdict.test_loss - 1)  # type: ignore[operator]
    second = verdict.text.splitlines()[1]
    assert second.startswith(f"The last known value has a test loss of {last.test_loss:.4g} against {verdict.test_loss:.4g}, ")
    assert "lower (95% CI " in second
    assert ": use that, or compare a network with --set model.kind=mlp." in second
    assert "No yardstick" not in verdict.text
    assert "better</span>" in yardsticks_table(search.findings, "y²")


def test_the_last_value_is_that_of_the_same_category_where_this_is_better(of_frame: Make) -> None:
    walks = [walk(300, seed) for seed in range(3)]
    parts = [frame.assign(ticker=f"T{place}", y=frame["y"] + 100.0 * place) for place, frame in enumerate(walks)]
    made = of_frame(pd.concat(parts), "split.kind=chronological", "columns.time=day")
    found = found_on(made)[0]["last_known"]
    assert found.note == "of the same ticker"
    assert found.test_loss < 2


def test_the_last_value_lies_before_its_row_and_before_an_embargo_and_is_a_mean_where_a_moment_has_several() -> None:
    times, truth = np.array([3, 1, 1, 2, 5]), np.array([30.0, 10.0, 14.0, 20.0, 50.0])
    alone, rows = np.zeros(5, np.int64), np.arange(5)
    np.testing.assert_array_equal(last_known(times, alone, truth, rows, 0.0, 0), [20, np.nan, np.nan, 12, 30])
    np.testing.assert_array_equal(last_known(times, alone, truth, rows, 2.0, 0), [np.nan, np.nan, np.nan, np.nan, 20])
    np.testing.assert_array_equal(last_known(times, np.array([0, 0, 1, 1, 0]), truth, rows, 0.0, 0), [10, np.nan, np.nan, 14, 30])
    classes = np.array([1, 0, 2, 0, 1])
    np.testing.assert_array_equal(last_known(times, alone, classes, rows, 0.0, 3), [0, -1, -1, 2, 1])


def test_of_classes_the_shares_of_those_that_followed_are_predicted_and_none_is_impossible() -> None:
    found = after_each(np.array([0, 0, 0, -1]), np.array([0, 0, 1, 1]), 2)
    np.testing.assert_allclose(found, [[2.5 / 4, 1.5 / 4], [0.5, 0.5], [0.5 / 2, 1.5 / 2]])


def test_a_class_that_lasts_is_foretold_by_the_last_one(of_frame: Make) -> None:
    rng = np.random.default_rng(0)
    state = np.cumsum(rng.random(800) < 0.05) % 2
    frame = pd.DataFrame({"x": rng.standard_normal(800), "y": np.where(state, "up", "down")})
    found, _ = found_on(of_frame(frame, "split.kind=chronological"))
    assert found["last_known"].test_loss < 0.5 * found["constant"].test_loss


# Caps, time and the setting


def test_what_was_fitted_on_a_part_of_the_rows_says_so(of_frame: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardsticks, "BOOSTED_VALUES", 200)
    monkeypatch.setattr(yardsticks, "LINEAR_VALUES", 300)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((1000, 2)), columns=["a", "b"])
    made = of_frame(frame.assign(y=frame["a"] + 0.1 * frame["b"]))
    found, _ = found_on(made)
    assert (found["boosting"].rows, found["boosting"].of_rows) == (100, 600)
    assert (found["linear"].rows, found["linear"].of_rows) == (150, 600)
    assert (found["constant"].rows, found["constant"].of_rows) == (600, 600)


def test_what_the_caps_leave_too_few_rows_of_a_class_for_is_left_out(of_frame: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardsticks, "BOOSTED_VALUES", 400)
    frame = pd.DataFrame({"x": np.arange(600.0), "y": [f"c{row % 10}" for row in range(600)]})
    found, missing = found_on(of_frame(frame))
    assert list(found)[:2] == ["constant", "linear"]
    assert missing["scikit-learn's gradient boosting with defaults"] == "with 10 classes it would see 40 of 360 rows"


def test_least_squares_of_many_inputs_is_fitted_on_few_rows() -> None:
    assert linear_rows(10, 0) == 500_000
    assert linear_rows(1_000, 0) == 5_000
    assert linear_rows(5_000, 0) == 1_000
    assert linear_rows(50_000, 0) == 100
    assert linear_rows(64, 10) == 7_812


def test_one_setting_turns_yardsticks_off(experiment: Make) -> None:
    search = run(experiment("quick", data="diabetes", strategies=["full_batch"], overrides=[*QUICK, "search.yardsticks=false"]))
    assert search.known.yardsticks == ()
    assert not any("yardstick" in name for name in search.findings.left_out)
    assert "ardstick" not in verdict_text(search.findings)
    assert "<code>search.yardsticks</code> is off" in yardsticks_table(search.findings, "")


def test_what_there_is_no_time_for_is_left_out_by_name(experiment: Make) -> None:
    made = experiment("quick", data="diabetes", strategies=["full_batch"], overrides=[*QUICK, "search.yardsticks=true"])
    found, missing = found_on(made, 0.2)
    assert list(found) == ["constant"]
    assert missing.keys() >= {"least squares", "scikit-learn's gradient boosting with defaults"}
    assert set(missing.values()) == {"no time"}
    search = Search(made)
    search.clock.stopping.set()
    assert search.measuring.with_yardsticks(Known()).left_out == {"yardsticks": "no time"}


# What is claimed


def test_where_no_yardstick_is_better_the_best_one_is_named_near_the_end(found: Findings) -> None:
    assert len(found.yardsticks) >= 3
    assert not any(item.beats for item in found.yardsticks)
    best = min(found.yardsticks, key=lambda item: item.difference or 0.0)
    line = verdict_text(found).splitlines()[-2]
    assert line.startswith(
        f"No yardstick is detectably better; the best one, {best.name}, has a test loss of {best.test_loss:.4g} against "
    )
    table = yardsticks_table(found, "target²")
    assert all(item.name.replace("'", "&#x27;") in table for item in found.yardsticks)
    assert "better</span>" not in table
    whole = page(found, title="t", unit="target²", facts={}, tracking_seconds={}, links={})
    assert f"<h2>Yardsticks</h2>{table}" in whole


@pytest.mark.parametrize(("lower", "beats"), [(0.5, True), (0.005, False)])
def test_a_yardstick_that_is_surely_lower_by_less_than_the_margin_is_not_better(searched: Search, lower: float, beats: bool) -> None:
    known, best = searched.known, searched.findings.best
    assert best is not None
    losses, portions = known.test_losses[best.candidate.setting], known.test_portions[best.candidate.setting]
    surely = replace(known.yardsticks[0], test_loss=float(losses.mean()) * (1 - lower), portions=portions.mean(0) * (1 - lower))
    steady = {best.candidate.setting: np.full(len(losses), losses.mean())}
    alike = {best.candidate.setting: np.tile(portions.mean(0), (len(losses), 1))}
    (result,) = beside(searched.ground, replace(known, yardsticks=[surely], test_losses=steady, test_portions=alike), best)
    assert result.difference_ci is not None
    assert result.difference_ci[1] < 0
    assert result.beats == beats
    said = verdict_text(replace(searched.findings, yardsticks=[result]))
    assert (f" better by more than the margin of {searched.findings.margin:.1%}; the best one, " in said) != beats


def test_of_several_better_ones_the_best_has_the_line_and_the_others_are_named(found: Findings) -> None:
    changed = [item.model_copy(update={"beats": True, "difference": -0.1 * place}) for place, item in enumerate(found.yardsticks, 1)]
    second = verdict_text(replace(found, yardsticks=changed)).splitlines()[1]
    assert second.startswith("Scikit-learn's gradient boosting with defaults has a test loss of ")
    assert second.endswith("Always predicting the mean and least squares are better too.") or second.endswith(
        "Least squares and always predicting the mean are better too."
    )


def test_what_is_particular_of_a_yardstick_is_said_with_it(found: Findings) -> None:
    said = {"difference": -0.5, "difference_ci": (-0.75, -0.25), "beats": True, "rows": 100, "note": "30 of its 100 rounds"}
    second = verdict_text(replace(found, yardsticks=[found.yardsticks[-1].model_copy(update=said)])).splitlines()[1]
    assert second.startswith("Scikit-learn's gradient boosting with defaults (30 of its 100 rounds) has a test loss of ")
    assert ", 50% lower (95% CI 25 to 75%), fitted in " in second
    assert " on 100 of 265 rows: use that, or compare a network" in second


@pytest.mark.parametrize(
    ("difference", "ends", "words"),
    [
        (-0.045, (-0.148, 0.0707), "4.5% lower (95% CI 7.07% higher to 14.8% lower)"),
        (0.045, (-0.01, 0.1), "4.5% higher (95% CI 1% lower to 10% higher)"),
        (0.045, (0.01, 0.1), "4.5% higher (95% CI 1 to 10%)"),
        (-0.045, (-0.1, -0.01), "4.5% lower (95% CI 1 to 10%)"),
        (-0.045, None, "4.5% lower"),
    ],
)
def test_an_interval_that_reaches_both_ways_says_which_way_each_end_lies(
    found: Findings, difference: float, ends: tuple[float, float] | None, words: str
) -> None:
    assert beside_it_in_loss(found.yardsticks[0].model_copy(update={"difference": difference, "difference_ci": ends})) == words


def test_a_retraining_whose_comparison_a_yardstick_beats_says_so(found: Findings) -> None:
    for beats in (True, False):
        other = replace(
            found, yardsticks=[item.model_copy(update={"beats": beats and item.key == "boosting"}) for item in found.yardsticks]
        )
        comparison = Comparison.model_construct(verdict=verdict_of(other, verdict_text(other)))
        said = _beaten(comparison)
        assert [line.startswith("Scikit-learn's gradient boosting with defaults has a test loss of ") for line in said] == [True] * beats
    assert _beaten(None) == []


def test_nothing_is_claimed_on_the_rows_that_were_trained_on(experiment: Make) -> None:
    search = run(experiment("lesson", strategies=["full_batch"], overrides=[*QUICK, "search.yardsticks=true"]))
    assert len(search.findings.yardsticks) >= 3
    assert all((item.difference, item.difference_ci, item.beats) == (None, None, False) for item in search.findings.yardsticks)
    assert "ardstick" not in verdict_text(search.findings)


@pytest.mark.parametrize("divided", [False, True])
def test_the_interval_of_a_difference_holds_the_truth_nineteen_times_in_twenty(divided: bool) -> None:
    rng, held, times = np.random.default_rng(0), 0, 2000
    for _ in range(times):
        rows = 1 + 0.2 * rng.standard_normal(16)  # how hard the rows are, to both
        own = rows + 0.2 * rng.standard_normal(16)
        draws = own + 0.1 * rng.standard_normal(8)[:, None]
        portions = 0.8 * rows + 0.2 * rng.standard_normal(16) + (0.08 * rng.standard_normal() if divided else 0.0)
        yardstick = Yardstick("k", "n", 1.0, float(portions.mean()), portions, 0.0, 1, 1)
        found = difference(yardstick, draws.mean(1), draws, divided)
        held += found.low(0.025) <= -0.2 <= found.high(0.025)
    assert 0.93 <= held / times <= 0.975


def test_what_cannot_be_compared_has_no_interval() -> None:
    yardstick = Yardstick("k", "n", 1.0, 0.5, np.full(4, 0.5), 0.0, 1, 1)
    assert difference(yardstick, np.ones(1), np.ones((1, 4)), False).high(0.025) == math.inf  # one draw
    assert math.isnan(difference(yardstick, np.zeros(3), np.zeros((3, 4)), False).value)  # a loss of nothing
    certain = difference(yardstick, np.ones(3), np.ones((3, 4)), False)
    assert (certain.low(0.025), certain.high(0.025)) == (-0.5, -0.5)


def test_yardsticks_are_saved_and_read_back_bit_for_bit(searched: Search, tmp_path: Path) -> None:
    save(searched.known, tmp_path / "known.npz")
    again = load(tmp_path / "known.npz", Known)
    assert len(again.yardsticks) >= 3
    for one, other in zip(again.yardsticks, searched.known.yardsticks, strict=True):
        np.testing.assert_array_equal(one.portions, other.portions)
        assert replace(one, portions=other.portions) == other
    for setting, portions in searched.known.test_portions.items():
        np.testing.assert_array_equal(again.test_portions[setting], portions)
        np.testing.assert_allclose(portions.mean(1), searched.known.test_losses[setting], rtol=0.2)
