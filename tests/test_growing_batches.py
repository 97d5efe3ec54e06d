"""Batches that grow with the noise, and plans: how many rows a training sees and when it is looked at."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.engine.schedule import marks, planned_rows, runs
from batchlab.models.linear import Linear
from batchlab.strategies import Population
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.growing import Growing
from batchlab.strategies.mini_batch import MiniBatch

CPU = torch.device("cpu")


def growing_rows(count: int = 200) -> TrainingData:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(count, 4, generator=generator)
    target = features.sum(1) + torch.randn(count, generator=generator)
    return TrainingData(features, target, features[:50], target[:50], Population(count), 1)


def grown(trials: Sequence[Trial], epochs: int = 30) -> list[TrialResult]:
    """Train batches that grow with the noise scale, evaluated after every epoch."""
    plan = Plan(epochs=epochs, evaluations=epochs)
    return train(growing_rows(), Linear(), Growing(batch_rows=2), trials, plan, Loss("mse"), CPU)


def test_a_growing_trial_is_the_same_whatever_trains_beside_it_and_the_same_twice() -> None:
    trials = [Trial(0.1, 0), Trial(0.001, 1), Trial(0.03, 2)]
    together = grown(trials)
    for trial, result in zip(trials, together, strict=True):
        (alone,) = grown([trial])
        assert alone.curve.step == result.curve.step
        assert alone.curve.validation_loss == result.curve.validation_loss


def test_a_batch_grows_with_the_noise_and_never_shrinks() -> None:
    quick, slow = grown([Trial(0.1, 0), Trial(0.0005, 0)])
    for result in (quick, slow):
        steps_an_epoch = np.diff(result.curve.step)
        assert (np.diff(steps_an_epoch) <= 0).all()
        assert np.diff(result.curve.rows_seen).tolist() == [200] * 30
    assert np.diff(quick.curve.step)[0] == 100
    assert quick.steps < 0.5 * slow.steps  # the nearer to the end, the noisier


def test_a_growing_batch_sees_every_row_exactly_once_an_epoch() -> None:
    sizes = iter([3, 7, 50, 400])

    def larger(strategy: Growing) -> Growing:
        return strategy.model_copy(update={"batch_rows": next(sizes, 400)})

    plan = Plan(epochs=9, evaluations=4)
    made = list(runs(Growing(batch_rows=2), Population(40), [5], plan, most_rows=64, adapt=larger))  # type: ignore[arg-type]
    rows = np.concatenate([run.rows[0] for run in made]).reshape(9, 40)
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(40), (9, 1)))
    assert [made[place].first_step for place in range(1, len(made))] == [run.last_step + 1 for run in made[:-1]]
    assert next(sizes, None) is None  # it has grown to the last size
    assert made[-1].evaluated


def test_a_growing_batch_under_max_steps_is_evaluated_no_more_often_than_planned() -> None:
    plan = Plan(epochs=1000, max_steps=400, evaluations=10)
    (result,) = train(growing_rows(), Linear(), Growing(batch_rows=2), [Trial(0.1, 0)], plan, Loss("mse"), CPU)
    assert result.steps == 400
    assert len(result.curve.step) <= 12


# Plans


@pytest.mark.parametrize("strategy", [MiniBatch(batch_rows=7), FullBatch(), Growing(batch_rows=4, growth="schedule", epochs=1)])
@pytest.mark.parametrize("most", [1, 99, 200, 450])
def test_max_rows_ends_a_training_with_the_step_that_reaches_them(strategy: MiniBatch, most: int) -> None:
    plan = Plan(epochs=50, max_rows=most, evaluations=3)
    (result,) = train(growing_rows(), Linear(), strategy, [Trial(0.01, 0)], plan, Loss("mse"), CPU)
    ends: list[int] = []
    for epoch in range(4):
        ends += (200 * epoch + strategy.order(Population(200), 0, epoch).steps).tolist()
    assert result.rows_seen == next(end for end in ends if end >= most)
    assert result.steps == ends.index(result.rows_seen) + 1
    assert result.curve.rows_seen[-1] == result.rows_seen


def test_geometric_evaluations_lie_at_equal_ratios_and_end_with_the_last_row() -> None:
    plan = Plan(epochs=100, max_rows=15_000, evaluations=40, spacing="geometric")
    points = marks(MiniBatch(batch_rows=8), 200, plan)
    assert planned_rows(MiniBatch(batch_rows=8), 200, plan) == 15_000
    np.testing.assert_allclose(np.diff(np.log(points)), np.log(20_000) / 39)
    assert (points[0], points[-1]) == (pytest.approx(0.75), pytest.approx(15_000))
    (result,) = train(growing_rows(), Linear(), MiniBatch(batch_rows=1), [Trial(0.01, 0)], plan, Loss("mse"), CPU)
    assert result.curve.rows_seen == [0, *sorted({math.ceil(round(point, 6)) for point in points})]


def test_weights_that_nobody_asks_for_are_not_returned_and_curves_are_the_same() -> None:
    arguments = (growing_rows(), Linear(), MiniBatch(), [Trial(0.1, 0)], Plan(epochs=3), Loss("mse"), CPU)
    (without,) = train(*arguments, weights=False)
    (with_weights,) = train(*arguments)
    assert without.weights == {}
    assert set(with_weights.weights) == {"weight", "bias"}
    assert without.curve.validation_loss == with_weights.curve.validation_loss
