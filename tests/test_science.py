"""The verified numbers: the lesson, least squares, the largest stable rate, the accuracy of real data sets."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import Adam, Sgd
from batchlab.engine.records import Plan, Trial, best
from batchlab.engine.stability import largest_curvature, largest_stable_rate
from batchlab.experiment import Experiment
from batchlab.models.linear import Linear
from batchlab.scoring.evaluation import mean_loss, scores
from batchlab.scoring.shipping import predicted
from batchlab.strategies import Population
from batchlab.strategies.full_batch import FullBatch
from batchlab.table.target import Target

Make = Callable[..., Experiment]


def test_full_batch_reaches_the_least_squares_optimum_of_the_lesson(experiment: Make) -> None:
    lesson = experiment("lesson", overrides=["train.learning_rate=0.01"])
    (result,) = lesson.train("full_batch")
    outputs = predicted(lesson.ship(result), lesson.table.seen, lesson.split.train)
    loss = mean_loss(lesson.table.target, outputs, lesson.loss, lesson.preparation.target_scale)
    fit = LinearRegression().fit(lesson.table.features.astype(float), lesson.table.target)
    optimum = ((fit.predict(lesson.table.features.astype(float)) - lesson.table.target) ** 2).mean()
    assert loss == pytest.approx(104.9476, abs=1e-3)
    assert loss == pytest.approx(optimum, abs=1e-3)


def test_the_notebook_as_written_diverges_under_every_strategy_and_is_told_why(experiment: Make) -> None:
    raw = experiment("lesson-raw")
    assert largest_curvature(raw.data.features.double().numpy(), raw.loss) == pytest.approx(6770, rel=0.01)
    for strategy in raw.profile.strategies:
        (result,) = raw.train(strategy)
        reason = raw.reason(result)
        assert result.diverged_at is not None
        assert reason is not None
        for words in ("learning rate 0.01", "33.8 times the largest stable one (0.000295)", "scale=true"):
            assert words in reason


@pytest.mark.parametrize("optimizer", [Sgd(), Sgd(momentum=0.9), Sgd(momentum=0.9, nesterov=True), Sgd(weight_decay=0.5)], ids=repr)
def test_the_largest_stable_rate_is_where_full_batch_descent_turns(optimizer: Sgd) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 3)) * [1.0, 2.0, 5.0]
    target = torch.tensor(features.sum(1) + rng.normal(size=40))
    rows = torch.tensor(features)
    data = TrainingData(rows, target, rows, target, Population(40), 1)
    rate = largest_stable_rate(features, Loss("mse"), optimizer)
    assert rate is not None
    plan = Plan(epochs=4000, evaluations=4, optimizer=optimizer)
    below, above = train(
        data, Linear(), FullBatch(), [Trial(rate * 0.99, 0), Trial(rate * 1.01, 0)], plan, Loss("mse"), torch.device("cpu")
    )
    assert below.diverged_at is None
    assert below.curve.train_loss[-1] < below.curve.train_loss[0]
    assert above.diverged_at is not None


def test_no_stable_rate_is_claimed_where_none_is_known(experiment: Make) -> None:
    assert largest_stable_rate(np.ones((3, 1)), Loss("mse"), Adam()) is None
    assert experiment("quick", overrides=["model.kind=mlp"]).stable_rate is None


def test_the_spectrum_of_standardised_diabetes_is_the_known_one() -> None:
    features, _ = load_diabetes(return_X_y=True)
    standardised = (features - features.mean(0)) / features.std(0)
    assert largest_curvature(standardised, Loss("mse")) == pytest.approx(2 * 4.0242, abs=1e-3)


@pytest.mark.parametrize("strategy", ["full_batch", "accumulated", "mini_batch", "stochastic", "data_loader"])
def test_every_strategy_comes_within_two_hundredths_of_least_squares_on_diabetes(experiment: Make, strategy: str) -> None:
    made = experiment("quick", data="diabetes")
    table, split = made.table, made.split
    fit = LinearRegression().fit(table.features[split.train].astype(float), table.target[split.train])
    expected = fit.score(table.features[split.test].astype(float), table.target[split.test])
    outputs = predicted(made.ship(best(made.train(strategy))), table.seen, split.test)
    assert scores(table.target[split.test], outputs, table.schema.target)["r2"] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("dataset", "model"), [("digits", "mlp"), ("breast_cancer", "linear"), ("wine", "linear")])
def test_mini_batches_classify_real_data(experiment: Make, dataset: str, model: str) -> None:
    made = experiment("quick", data=dataset, overrides=[f"model.kind={model}", "train.epochs=40"])
    outputs = predicted(made.ship(best(made.train("mini_batch"))), made.table.seen, made.split.test)
    found = scores(made.table.target[made.split.test], outputs, made.table.schema.target)
    assert (found["accuracy"] or 0) >= 0.94
    assert (found["roc_auc"] or 0) >= 0.98


def test_features_and_target_are_scaled_with_training_rows_only_and_a_constant_column_by_one(experiment: Make) -> None:
    made = experiment("quick", data="digits")  # digits has columns that are always 0
    train_rows = made.table.features[made.split.train].astype(float)
    constant = train_rows.min(0) == train_rows.max(0)
    assert constant.any()
    np.testing.assert_array_equal(made.preparation.scale[constant], 1.0)
    np.testing.assert_allclose(made.preparation.mean, train_rows.mean(0))
    np.testing.assert_allclose(made.data.features.numpy().std(0)[~constant], 1.0, rtol=1e-4)
    diabetes = experiment("quick", data="diabetes")
    assert diabetes.preparation.target_mean == pytest.approx(diabetes.table.target[diabetes.split.train].mean())
    assert experiment("quick", data="diabetes", overrides=["scale=false"]).preparation.target_scale == 1.0


def test_scores_are_the_textbooks() -> None:
    target = Target(name="y", task="regression")
    truth, outputs = np.array([1.0, 2.0, 4.0]), np.array([[1.0], [3.0], [2.0]])
    found = scores(truth, outputs, target)
    assert found == pytest.approx({"rmse": math.sqrt(5 / 3), "mae": 1.0, "r2": 1 - 5 / (14 / 3)})
    assert mean_loss(truth, outputs, Loss("mse"), 1.0) == pytest.approx(5 / 3)
    assert mean_loss(truth, outputs, Loss("huber", 0.5), 3.0) == pytest.approx((0 + 0.5 + 1.5 * (2 - 0.75)) / 3)
    assert scores(np.ones(3), outputs, target)["r2"] is None


def test_class_scores_count_each_class_and_leave_out_what_the_rows_cannot_give() -> None:
    target = Target(name="y", task="multiclass", classes=("a", "b", "c"))
    outputs = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    found = scores(np.array([0, 1, 1]), outputs, target)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.7, 0.3]).mean())
    assert found["roc_auc"] is None
    certain = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert mean_loss(np.array([1, 1]), certain, Loss("cross_entropy"), 1.0) == pytest.approx((708.396 - math.log(0.5)) / 2, rel=1e-4)
    assert (found["rows_of_class/b"], found["predicted_as_class/b"], found["correct_of_class/b"], found["rows_of_class/c"]) == (2, 1, 1, 0)


def test_weights_of_rows_reach_the_sampler(experiment: Make, tmp_path: object) -> None:
    import pandas as pd

    path = f"{tmp_path}/rows.csv"
    pd.DataFrame({"x": np.arange(100.0), "w": np.r_[np.zeros(50), np.ones(50)], "y": np.arange(100.0) % 7}).to_csv(path, index=False)
    overrides = [
        "strategies.data_loader.sampling=weighted",
        "strategies.data_loader.weight_column=w",
        "strategies.data_loader.batch_rows=10",
    ]
    made = experiment("quick", data=path, target="y", strategies=["data_loader"], overrides=overrides)
    assert made.table.schema.features == ("x",)
    drawn = np.concatenate([step[0] for step in made.profile.strategies["data_loader"].order(made.data.population, 0, 0)])
    assert (made.table.features[made.split.train[drawn], 0] >= 50).all()
