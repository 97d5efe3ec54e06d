"""Windows: a row and those before it, of its group, in the order of time; held against a slow and obvious implementation."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import batchlab
from batchlab.analysis.yardsticks import last_known
from batchlab.config import load_profile
from batchlab.engine.backends.torch_stacked import resident
from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import AdamW
from batchlab.engine.records import Plan, Trial
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.models import Model
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.models.tcn import Tcn
from batchlab.rows.split import split, walk_forward
from batchlab.scoring.predictions import SavedModel, scored
from batchlab.scoring.shipping import GRAPH, export, predicted
from batchlab.search.draws import divided
from batchlab.search.remembering import Remembered
from batchlab.search.sorting import ordered_by_target
from batchlab.serving import graphs
from batchlab.serving.batchlab_serving import Served, UnusableRows, columns_of, sequence_of
from batchlab.sources.parquet import Parquet
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.table import pack
from flows.options import column_overrides
from tests.test_own_modules import LITTLE

CPU = torch.device("cpu")
ROWS, HORIZON = 4, 2


def panel(days: int = 60, seed: int = 0) -> pd.DataFrame:
    """Five tickers a day, a few weeks of which are missing; the hours are those of New York, on both sides of its change of clocks."""
    rng = np.random.default_rng(seed)
    frames = []
    for number, ticker in enumerate(["AAPL", "GOOG", "IBM", "MSFT", "TSLA"]):
        when = pd.date_range("2024-02-10 16:00", periods=days, freq="D", tz="America/New_York")
        frame = pd.DataFrame({"when": when, "ticker": ticker, "close": np.cumsum(rng.normal(size=days)) + 10 * number})
        frame["volume"] = rng.gamma(2.0, size=days)
        frame["sector"] = ["chips", "search"][number % 2]
        frames.append(frame.drop(index=range(20 + number, 33 + number)))
    return pd.concat(frames).sample(frac=1.0, random_state=seed)


def experiment_of(folder: Path, frame: pd.DataFrame, *overrides: str, target: str = "close") -> Experiment:
    path = folder / "panel.parquet"
    frame.to_parquet(path, index=False)
    given = ["columns.time=when", "columns.group=ticker", f"columns.window.rows={ROWS}", f"columns.window.horizon={HORIZON}"]
    settings = load_profile("quick", data=str(path), target=target, overrides=[*given, "split.kind=chronological", *overrides])
    table = pack(settings.source, settings.named_columns(), folder / "tables")
    return Experiment(settings, table, split(table, settings.split, settings.seed))


def obvious(frame: pd.DataFrame, gap: str) -> list[tuple[pd.DataFrame, pd.Series]]:
    """Return every window of the panel with the row that its target comes from, ticker by ticker and row by row."""
    found = []
    for _, own in frame.groupby("ticker"):
        ordered = own.sort_values("when").reset_index(drop=True)
        for last in range(len(ordered)):
            together = ordered.iloc[max(0, last - ROWS + 1) : last + HORIZON + 1]
            if len(together) == ROWS + HORIZON and (together["when"].diff().dropna() <= pd.Timedelta(gap)).all():
                found.append((together.iloc[:ROWS], together.iloc[-1]))
    return found


def numbers_of(window: pd.DataFrame) -> list[float]:
    """Return a window's numbers as an experiment without scaling sees them, oldest row first."""
    parts = [
        [row["close"], row["volume"], 0.0, float(row["sector"] == "chips"), float(row["sector"] == "search")]
        for _, row in window.iterrows()
    ]
    return [number for part in parts for number in part]


def parts_of(experiment: Experiment) -> dict[str, Any]:
    """Return the windows and targets of each part, as the search trains on and judges them."""
    data = experiment.data
    assert data.places is not None
    places = torch.from_numpy(data.places.astype(np.int64))
    return {"train": data.at(places), "validation": (data.validation_features, data.validation_target)}


def sorted_rows(features: Any, target: Any) -> Any:
    together = np.column_stack([np.asarray(features, np.float64), np.asarray(target, np.float64)])
    return together[np.lexsort(together.T)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


# What a window holds


def test_windows_are_those_of_a_slow_and_obvious_implementation(folder: Path) -> None:
    frame = panel()
    experiment = experiment_of(folder, frame, "scale=false", 'columns.window.gap="3 days"')
    parts, windows = parts_of(experiment), obvious(frame, "3 days")
    cuts = pd.Series(experiment.table.side_column("time")).astype("int64")
    labels = experiment.split.labels
    first_held = min(cuts[labels == 1])
    first_tested = min(cuts[labels == 2])

    def moment(value: pd.Timestamp) -> int:
        return int(value.tz_convert("UTC").timestamp() * 1e6)

    expected: dict[str, list[list[float]]] = {"train": [], "validation": [], "test": []}
    bounds = {"train": (-(2**62), part_begin(experiment, 1)), "validation": (part_begin(experiment, 1), part_begin(experiment, 2))}
    bounds["test"] = (part_begin(experiment, 2), 2**62)
    assert first_held >= bounds["validation"][0]
    assert first_tested >= bounds["test"][0]
    for window, later in windows:
        for name, (begin, end) in bounds.items():
            if moment(window["when"].iloc[0]) >= begin and moment(later["when"]) < end:
                expected[name].append([*numbers_of(window), later["close"]])
    assert len(expected["train"]) > 50
    for name in ("train", "validation"):
        rows = np.array(expected[name], np.float32).astype(np.float64)
        np.testing.assert_array_equal(sorted_rows(*parts[name]), rows[np.lexsort(rows.T)])
    tested = experiment.split.rows("test")
    assert len(tested) == len(expected["test"])
    seen = experiment.table.seen(tested).reshape(len(tested), ROWS, -1)
    truth = np.array(expected["test"])
    np.testing.assert_allclose(np.sort(seen[:, -1, 0]), np.sort(truth[:, (ROWS - 1) * 5]), rtol=1e-6)


def part_begin(experiment: Experiment, part: int) -> int:
    """Return the moment at which a part begins: rows before it are in the parts before, whether windows leave them any use or not."""
    settings = experiment.profile.split
    times = np.sort(np.asarray(experiment.table.side_column("time")))
    held = [round(len(times) * (settings.validation + settings.test)), round(len(times) * settings.test)]
    return int(times[len(times) - held[part - 1]])


def test_windows_are_a_view_of_the_rows_which_are_in_memory_once(folder: Path) -> None:
    data = experiment_of(folder, panel()).data
    rows, width = data.features.shape[0], data.features.shape[1] // ROWS
    assert data.features.stride() == (width, 1)
    assert data.features.untyped_storage().nbytes() == (rows + ROWS - 1) * width * data.features.element_size()


def test_windows_stay_a_view_of_the_rows_on_another_device(folder: Path) -> None:
    data = experiment_of(folder, panel()).data
    features, target = resident(data.features, data.target, torch.device("meta"))
    assert (features.device.type, features.shape, features.stride()) == ("meta", data.features.shape, data.features.stride())
    assert features.untyped_storage().nbytes() == data.features.untyped_storage().nbytes()
    same, _ = resident(data.features, data.target, CPU)
    torch.testing.assert_close(same, data.features)
    assert target.shape == data.target.shape


def test_the_targets_own_past_is_a_feature_only_where_a_later_one_is_predicted(folder: Path) -> None:
    later = experiment_of(folder, panel())
    now = experiment_of(folder, panel(), "columns.window.horizon=0")
    assert later.table.schema.features == ("close", "volume", "sector")
    assert now.table.schema.features == ("volume", "sector")


def test_rows_without_a_later_one_are_counted_as_without_a_target_and_no_row_is_lost(folder: Path) -> None:
    frame = panel()
    table = experiment_of(folder, frame, 'columns.window.gap="3 days"').table
    assert table.schema.unlabelled == 5 * 2 * HORIZON  # five tickers in two runs each
    assert table.schema.source_rows == len(frame)
    assert any("20 rows have no target" in note for note in table.notes())


def test_without_a_time_column_rows_follow_each_other_as_they_stand(folder: Path) -> None:
    frame = pd.DataFrame({"ticker": ["a", "b"] * 30, "close": np.arange(60.0), "when": 0})
    path = folder / "rows.csv"
    frame.drop(columns="when").to_csv(path, index=False)
    given = ["columns.group=ticker", "columns.window.rows=3", "split.kind=chronological", "scale=false"]
    settings = load_profile("quick", data=str(path), target="close", task="regression", overrides=given)
    table = pack(settings.source, settings.named_columns(), folder / "tables")
    first = np.flatnonzero(table.has_history(np.arange(table.schema.rows)))[:1]
    seen = table.seen(first)[0]
    assert np.diff(seen).tolist() == [2.0, 2.0]
    assert table.target[first[0]] == seen[-1] + 2
    times = table.side_column("time")
    assert times is not None
    parts = split(table, settings.split, 0)
    assert times[parts.train].max() < times[parts.validation].min() < times[parts.test].min()


# What is trained on


@pytest.mark.parametrize("model", [Linear(), Mlp(widths=(8,)), Tcn(channels=4).for_windows(ROWS, 5)])
def test_training_on_windows_is_training_on_their_copies_bit_for_bit(folder: Path, model: Model) -> None:
    data = experiment_of(folder, panel()).data
    assert data.places is not None
    features, target = data.at(torch.from_numpy(data.places.astype(np.int64)))
    copied = TrainingData(features.contiguous(), target, data.validation_features, data.validation_target, Population(len(target)), 1)
    plan = Plan(epochs=3, optimizer=AdamW(), evaluations=3)
    found = []
    for rows in (data, copied):
        assert data.sample is not None
        trials = [Trial(rate, seed) for rate in (0.01, 0.03) for seed in (0, 1)]
        found.append(train(rows, model, MiniBatch(batch_rows=8), trials, plan, Loss("mse"), CPU))
    for windowed, flat in zip(*found, strict=True):
        for name, values in windowed.weights.items():
            np.testing.assert_array_equal(values, flat.weights[name])
        np.testing.assert_array_equal(windowed.curve.validation_loss, flat.curve.validation_loss)


def test_a_planted_signal_seven_rows_back_is_found_by_the_sequence_model_and_not_by_a_shorter_window(folder: Path) -> None:
    rng = np.random.default_rng(0)
    signal = rng.normal(size=1500)
    frame = pd.DataFrame({"when": np.arange(1500.0), "ticker": "a", "volume": signal, "close": np.roll(signal, 7)})
    frame["close"] += 0.1 * rng.normal(size=1500)
    losses = {}
    for rows in (10, 5):
        model = ["model.kind=tcn", "train.epochs=15", "train.learning_rate=[0.01]", "train.optimizer.kind=adamw"]
        overrides = [f"columns.window.rows={rows}", "columns.window.horizon=0", *model]
        experiment = experiment_of(folder, frame, *overrides)
        (result,) = experiment.train("mini_batch")
        losses[rows] = float(result.curve.validation_loss[-1])
    assert losses[10] < 0.05
    assert losses[5] > 0.8


@pytest.mark.parametrize("kind", ["chronological", "walk_forward"])
def test_no_window_and_no_target_reaches_over_a_cut(folder: Path, kind: str) -> None:
    experiment = experiment_of(folder, panel(200), 'columns.window.gap="30 days"')
    table, rule = experiment.table, experiment.profile.split.model_copy(update={"kind": kind})
    times, ahead = (np.asarray(table.side_column(name)) for name in ("time", "ahead"))
    assert (ahead > times).all()
    for found in walk_forward(table, rule) if kind == "walk_forward" else [split(table, rule, 0)]:
        assert min(found.sizes().values()) > 20
        begins = {part: min(times[rows - ROWS + 1].min() for rows in [found.rows(part)]) for part in ("validation", "test")}
        ends = {part: ahead[found.rows(part)].max() for part in ("train", "validation")}
        assert ends["train"] < begins["validation"]
        assert ends["validation"] < begins["test"]


def test_divisions_of_a_small_table_keep_windows_and_targets_apart(folder: Path) -> None:
    experiment = experiment_of(folder, panel(200), 'columns.window.gap="30 days"')
    data = divided(experiment, 4)
    assert data is not None
    assert data.divisions is not None
    times = np.asarray(experiment.table.side_column("time"))
    for train_rows, held in zip(data.divisions.train, data.divisions.validation, strict=True):  # places are where windows begin
        assert times[train_rows + ROWS - 1 + HORIZON].max() < times[held].min()
    assert data.features.untyped_storage().data_ptr() == experiment.data.features.untyped_storage().data_ptr()


def test_rows_in_the_order_of_their_target_are_the_same_windows(folder: Path) -> None:
    data = experiment_of(folder, panel()).data
    ordered = ordered_by_target(data)
    assert data.places is not None
    assert ordered.places is not None
    assert sorted(ordered.places) == sorted(data.places)
    assert (np.diff(ordered.target.numpy()[ordered.places]) >= 0).all()


def test_what_the_target_was_last_known_to_be_is_as_many_moments_back_as_it_takes_to_be_known(folder: Path) -> None:
    experiment = experiment_of(folder, panel())
    table, rows = experiment.table, experiment.split.rows("test")
    found = Remembered(experiment, experiment.split.train).predicted("ticker", rows)[:, 0]
    own_now = table.seen(rows).reshape(len(rows), ROWS, -1)[:, -1, 0]
    np.testing.assert_allclose(found, own_now, rtol=1e-6)  # the target of two rows ago is this row's close
    times, truth = np.arange(6.0), np.arange(6.0)
    none = np.zeros(6, np.int64)
    assert last_known(times, none, truth, np.arange(6), 0.0, 0, 2).tolist()[2:] == [0.0, 1.0, 2.0, 3.0]
    assert np.isnan(last_known(times, none, truth, np.arange(6), 0.0, 0, 2)[:2]).all()


# What is served


def test_a_saved_model_takes_raw_rows_in_any_order_and_has_no_prediction_without_enough_rows_before(folder: Path) -> None:
    frame = panel()
    experiment = experiment_of(folder, frame, "model.kind=mlp", "train.learning_rate=[0.01]", 'columns.window.gap="3 days"')
    (result,) = experiment.train("mini_batch")
    model, place = experiment.ship(result), folder / "model"
    place.mkdir()
    export(model, experiment.table.schema.columns, place, sequence=experiment.table.schema.sequence)
    served = Served(columns_of(place), graphs.opened(place / GRAPH), sequence_of(place))
    outputs = served.predict(frame)[:, 0]
    every = np.flatnonzero(experiment.table.has_history(np.arange(experiment.table.schema.rows)))
    expected = predicted(model, experiment.table.seen, every)[:, 0]
    last_ones = 5 * 2 * HORIZON  # rows that have no target yet are predicted, too
    assert np.isfinite(outputs).sum() == len(every) + last_ones
    assert np.isnan(outputs).sum() == 5 * 2 * (ROWS - 1)
    assert np.isin(np.round(expected, 9), np.round(outputs, 9)).all()
    with pytest.raises(UnusableRows, match="lack column 'ticker'"):
        served.predict(frame.drop(columns="ticker"))
    assert np.isnan(served.predict(frame.head(2))).all()


def test_a_file_of_raw_rows_is_scored_whole_and_rows_without_enough_before_them_have_no_prediction(folder: Path) -> None:
    frame = panel()
    experiment = experiment_of(folder, frame, "train.learning_rate=[0.01]", 'columns.window.gap="3 days"')
    (result,) = experiment.train("mini_batch")
    place = folder / "model"
    place.mkdir()
    export(experiment.ship(result), experiment.table.schema.columns, place, sequence=experiment.table.schema.sequence)
    served = Served(columns_of(place), graphs.opened(place / GRAPH), sequence_of(place))
    frame.to_parquet(folder / "raw.parquet", index=False)
    model = SavedModel(served, (), "closes", 1, "run")
    rows, without = scored(model, Parquet(path=str(folder / "raw.parquet")), str(folder / "out.csv"), folder / "reading", ("ticker",))
    found = pd.read_csv(folder / "out.csv")
    assert (rows, without) == (len(frame), 5 * 2 * (ROWS - 1))
    assert found.prediction.isna().sum() == without
    np.testing.assert_array_equal(found.prediction, served.predict(frame)[:, 0])
    assert (found.ticker == frame.ticker.to_numpy()).all()


def test_no_window_reaches_over_a_row_that_was_left_out_in_training_or_in_serving(folder: Path) -> None:
    frame = panel().sort_values(["ticker", "when"]).reset_index(drop=True)
    lacking = frame.index[frame.ticker == "IBM"][10]
    holed = frame.assign(close=frame.close.where(frame.index != lacking))
    given = ['columns.window.gap="3 days"', "model.kind=mlp", "train.learning_rate=[0.01]"]
    whole, experiment = (experiment_of(folder, rows, *given) for rows in (frame, holed))
    table = experiment.table
    assert table.schema.unlabelled == whole.table.schema.unlabelled + 1 + HORIZON
    assert table.schema.rows == whole.table.schema.rows - 1 - HORIZON
    every = np.arange(table.schema.rows)
    assert table.has_history(every).sum() == whole.table.has_history(np.arange(whole.table.schema.rows)).sum() - 1 - HORIZON - (ROWS - 1)
    (result,) = experiment.train("mini_batch")
    place = folder / "model"
    place.mkdir()
    export(experiment.ship(result), table.schema.columns, place, sequence=table.schema.sequence)
    outputs = Served(columns_of(place), graphs.opened(place / GRAPH), sequence_of(place)).predict(holed)[:, 0]
    assert np.isnan(outputs[lacking : lacking + ROWS]).all()
    assert np.isfinite(outputs[[lacking - 1, lacking + ROWS]]).all()


def test_rows_that_share_a_moment_are_refused_in_serving_too(folder: Path) -> None:
    frame = panel().reset_index(drop=True)
    experiment = experiment_of(folder, frame, "train.learning_rate=[0.01]")
    (result,) = experiment.train("mini_batch")
    place = folder / "model"
    place.mkdir()
    export(experiment.ship(result), experiment.table.schema.columns, place, sequence=experiment.table.schema.sequence)
    served = Served(columns_of(place), graphs.opened(place / GRAPH), sequence_of(place))
    repeated = pd.concat([frame, frame.iloc[[4]]])
    with pytest.raises(UnusableRows, match=rf"rows 4 and {len(frame)} of one 'ticker' have the same moment"):
        served.predict(repeated)


def test_the_targets_own_past_is_no_leak_however_slowly_it_moves(folder: Path) -> None:
    frame = panel(200).sort_values(["ticker", "when"])
    frame["close"] = frame.groupby("ticker").close.transform(lambda values: 1000 + np.arange(len(values)) * 1.0)
    frame["copied"] = frame["close"]
    (leak,) = [leak for leak in experiment_of(folder, frame, "columns.window.horizon=1").leaks if leak.kind == "target"]
    assert leak.columns == ("copied",)


# What is refused


def test_rows_that_share_a_moment_are_refused_with_what_to_name(folder: Path) -> None:
    frame = panel().drop(columns="ticker").assign(ticker="one")
    with pytest.raises(BadInput, match=r"rows of one 'ticker' have the 'when' of another one, .*remove repeats"):
        experiment_of(folder, frame)


def test_a_window_longer_than_any_run_is_refused_with_the_longest_one(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"no window of 50 rows .* the longest of 10 runs of rows without a gap has 27"):
        experiment_of(folder, panel(), "columns.window.rows=50", 'columns.window.gap="3 days"')


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("split.test=0.01", r"rows, each with the 3 before it in the same part, split .* see fewer at once \(columns.window.rows\)"),
        ("split.kind=random", "windows of rows overlap, so split.kind random would train on rows that it tests on; use chronological"),
        ('columns.window.gap="soon"', "columns.window.gap 'soon' is no duration"),
        ('columns.window.gap="0 days"', "it must be longer than nothing"),
        ("columns.window.rows=1", "columns.window.rows: input should be greater than or equal to 2"),
    ],
)
def test_what_windows_cannot_be_is_refused(folder: Path, override: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        experiment_of(folder, panel(), override)


def test_embedded_categories_are_refused_in_windows(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"encoding\.categories 'embedding' is for models that see one row at a time"):
        Experiment.check(experiment_of(folder, panel(), "columns.window.rows=2", "model.kind=tcn", "encoding.categories=embedding"))


def test_a_sequence_model_without_windows_is_refused_with_the_option() -> None:
    with pytest.raises(BadInput, match=r"model\.kind tcn is for windows of rows; say how many with --window"):
        batchlab.compare(panel(), "close", model="tcn", progress=False)


def test_a_horizon_without_a_window_is_refused() -> None:
    with pytest.raises(BadInput, match="give --window, too"):
        column_overrides(None, None, None, horizon=2)
    with pytest.raises(BadInput, match=r"columns\.window\.rows: field required"):
        load_profile("quick", data="diabetes", overrides=["columns.window.horizon=2"])
    assert column_overrides(None, None, None, window=5, horizon=2)[0] == "columns.window.rows=5"


# From Python to the verdict


class Flattened(nn.Module):
    """A module of one's own: it is given the window's shape."""

    def __init__(self, shape: tuple[int, int], outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(shape[1], 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (shape[0] - 1), outputs))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.layers(rows.transpose(1, 2))


@pytest.mark.parametrize("model", ["tcn", Flattened])
def test_a_comparison_of_windows_recommends_a_setting_whose_code_says_the_windows_shape(model: Any) -> None:
    given = ["columns.time=when", "columns.group=ticker", f"columns.window.rows={ROWS}", "split.kind=chronological"]
    settings = {**LITTLE, "overrides": [*LITTLE["overrides"], *given]}
    found = batchlab.compare(panel(120), "close", model=model, strategies=["mini_batch"], **settings)
    assert found.verdict.strategy is not None
    assert found.verdict.training is not None
    assert found.verdict.training.window == ROWS
    code = found.verdict.code("torch")
    assert f"of the row and the {ROWS - 1} before it, oldest first" in code
    assert "# y [rows]: the target of the row 1 later, less its mean over its spread" in code
    assert f"({ROWS}, 5)" in code
