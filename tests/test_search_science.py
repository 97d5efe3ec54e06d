"""What the search builds on, held against theory: steps to a target, the noise scale, and how often a verdict sees what is not there."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from batchlab.analysis.curves import crossing
from batchlab.analysis.verdict import Choice, chosen
from batchlab.engine.backends.choice import chosen_backend
from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import Sgd
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.models import Model
from batchlab.models.custom import Custom
from batchlab.models.linear import Linear
from batchlab.search.evidence import bare_outcome, goal_of
from batchlab.search.space import Setting
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch

CPU = torch.device("cpu")
DIMENSION, SHRINKAGE = 10, 1e-3
SEEDS, GROUP, GROUPS = 1000, 10, 100


def without_bias(features: int, outputs: int) -> nn.Module:
    return nn.Linear(features, outputs, bias=False)


BARE = Custom(factory=f"{__name__}:without_bias")


def noiseless(row_count: int) -> TrainingData:
    """Rows x ~ N(0, I) without label noise; the mean loss on the evaluated rows, whose second moment is exactly I, is ‖δ‖²."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(row_count, DIMENSION, generator=generator, dtype=torch.float64)
    evaluated = torch.linalg.qr(torch.randn(DIMENSION, DIMENSION, generator=generator, dtype=torch.float64))[0] * math.sqrt(DIMENSION)
    truth = torch.full((DIMENSION,), 3.0, dtype=torch.float64)
    held = (evaluated, evaluated @ truth)
    return TrainingData(features, features @ truth, *held, Population(row_count), 1, sample=held)


def best_rate(batch_rows: int) -> float:
    """The best rate in theory; the engine's loss has no ½, so its rate is half of the formula's."""
    return 0.5 / (1 + (DIMENSION + 1) / batch_rows)


def steps_in_theory(batch_rows: int, factor: float = 1.0) -> float:
    """Steps at `factor` times the best rate: ‖δ‖² shrinks by 1 − 2η + η²(1 + (d+1)/B) a step."""
    growth = 1 + (DIMENSION + 1) / batch_rows
    rate = factor / growth
    return math.log(SHRINKAGE) / math.log(1 - 2 * rate + rate**2 * growth)


def measured_steps(batch_rows: int, factors: tuple[float, ...], seeds: int) -> list[float]:
    """Train every rate with all seeds in one epoch over fresh rows, look after every step, and cross the mean curve of each rate."""
    steps = int(1.8 * steps_in_theory(batch_rows)) + 4
    plan = Plan(epochs=1, max_steps=steps, evaluations=steps, precision="float64", averaging=False)
    trials = [Trial(best_rate(batch_rows) * factor, seed) for factor in factors for seed in range(seeds)]
    data = noiseless(max(2000, batch_rows * steps))
    results = train(data, BARE, MiniBatch(batch_rows=batch_rows), trials, plan, Loss("mse"), CPU, weights=False)
    assert all(result.epochs <= 1 for result in results)  # no row came twice
    curves = np.array([result.curve.validation_loss for result in results]).reshape(len(factors), seeds, -1)
    means = (curves / curves[:, :, :1]).mean(1)
    return [crossing(results[0].curve.step, mean, SHRINKAGE) for mean in means]


@pytest.mark.parametrize(("batch_rows", "exact", "seeds"), [(1, 79.39, 1500), (4, 22.27, 600), (16, 7.69, 400), (64, 3.60, 400)])
def test_steps_to_a_target_are_those_of_theory_at_every_batch_size(batch_rows: int, exact: float, seeds: int) -> None:
    assert steps_in_theory(batch_rows) == pytest.approx(exact, abs=0.005)
    assert measured_steps(batch_rows, (1.0,), seeds)[0] == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("batch_rows", [4, 16, 64])
def test_the_best_of_a_grid_of_rates_is_the_best_in_theory(batch_rows: int) -> None:
    factors = (0.5, 0.7, 1.0, 1.4)
    measured = measured_steps(batch_rows, factors, 300)
    assert int(np.argmin(measured)) == factors.index(1.0)
    for steps, factor in zip(measured[:3], factors[:3], strict=True):
        assert steps == pytest.approx(steps_in_theory(batch_rows, factor), rel=0.08)


@pytest.mark.parametrize(
    ("model", "backend"), [(BARE, "torch"), (Linear(), "torch"), (Linear(), "kernels")], ids=["bare", "torch", "kernels"]
)
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_a_backends_noise_scale_is_the_exact_one_of_linear_regression(model: Model, backend: str, sigma: float) -> None:
    rng = np.random.default_rng(1)
    curvatures = np.array([2.0, 1.0, 1.0, 0.5, 0.1])
    truth = np.array([0.6, -0.5, 0.8, 1.0, -2.0])
    features = rng.normal(size=(2**16, 5)) * np.sqrt(curvatures)
    target = features @ truth + sigma * rng.normal(size=2**16)
    rows = (torch.from_numpy(features), torch.from_numpy(target))
    data = TrainingData(*rows, rows[0][:10], rows[1][:10], Population(2**16), 1)
    plan = Plan(precision="float64", backend=backend)  # type: ignore[arg-type]
    trained = chosen_backend(data, model, MiniBatch(), [Trial(0.1, 4), Trial(0.1, 7)], plan, Loss("mse"), CPU)
    found = trained.noise_scale(1, data, 2**12)
    weights = trained.weights()[1].astype(np.float64)
    bias = float(weights[5]) if model is not BARE else 0.0
    exact = exact_noise_scale(curvatures, weights[:5] - truth, bias, sigma, has_bias=model is not BARE)
    assert found.value == pytest.approx(exact, rel=0.05)
    assert found.low < exact < found.high


def exact_noise_scale(curvatures: NDArray[np.float64], delta: NDArray[np.float64], bias: float, sigma: float, has_bias: bool) -> float:
    """Gaussian features, and the same with a constant feature beside the Gaussian ones, whose weight is off by `bias`."""
    slope = curvatures * delta
    squared_gradient = slope @ slope + bias**2
    trace = curvatures.sum()
    squares = trace * (delta @ slope) + 2 * slope @ slope + bias**2 * trace + sigma**2 * trace
    if has_bias:
        squares += delta @ slope + bias**2 + sigma**2
    return float((squares - squared_gradient) / squared_gradient)


@pytest.fixture(scope="module")
def trainings() -> list[list[TrialResult]]:
    """Trainings `[2, seeds]` of one setting under two names, which have seeds of their own."""
    plan = Plan(epochs=1, max_steps=40, evaluations=40, precision="float64", averaging=False)
    trials = [Trial(best_rate(4), seed) for seed in range(2 * SEEDS)]
    results = train(noiseless(2000), Linear(), MiniBatch(batch_rows=4), trials, plan, Loss("mse"), CPU, weights=False)
    first = np.mean([result.curve.validation_loss[0] for result in results])
    steps = [crossing(result.curve.step, result.curve.validation_loss, 0.02 * first) for result in results]
    assert np.isfinite(steps).all()
    assert 0.1 < np.log(steps).std() < 0.5  # neither trivial nor hopeless
    return [results[:SEEDS], results[SEEDS:]]


ONE = Setting(MiniBatch(batch_rows=4), Sgd(), best_rate(4))


def verdicts(trainings: list[list[TrialResult]], slower: float = 1.0) -> list[Choice]:
    """Draw both names' seeds without replacement into groups, and a verdict from each; a step of the second name is `slower`."""
    rng = np.random.default_rng(2)
    groups = [rng.permutation(SEEDS).reshape(GROUPS, GROUP) for _ in trainings]
    found = []
    for places in zip(*groups, strict=True):
        drawn = [[results[place] for place in some] for results, some in zip(trainings, places, strict=True)]
        first = float(np.mean([result.curve.validation_loss[0] for result in drawn[0]]))
        goal = goal_of({ONE: drawn[0]}, margin=0.01, given=0.02 * first)
        assert goal is not None
        shared = rng.normal(size=8)  # a slow round is slow for both
        outcomes = []
        for label, results, factor in zip(("one", "other"), drawn, (1.0, slower), strict=True):
            seconds = factor * 1e-5 * np.exp(0.1 * shared + 0.03 * rng.normal(size=8))
            outcomes.append(replace(bare_outcome(label, results, goal), seconds_per_step=seconds))
        choice = chosen(outcomes, "time")
        assert choice is not None
        found.append(choice)
    return found


def test_one_strategy_under_two_names_is_called_equal_in_95_of_100_verdicts_of_real_trainings(trainings: list[list[TrialResult]]) -> None:
    found = verdicts(trainings)
    assert sum(choice.runner_up is not None and not choice.runner_up.detectable for choice in found) >= 95
    assert 30 <= sum(choice.label == "one" for choice in found) <= 70  # neither name is favoured


def test_one_and_a_half_times_the_seconds_are_found_in_95_of_100_verdicts_of_real_trainings(trainings: list[list[TrialResult]]) -> None:
    found = verdicts(trainings, slower=1.5)
    right = [choice for choice in found if choice.label == "one" and choice.runner_up is not None and choice.runner_up.detectable]
    assert len(right) >= 95
    covered = [choice.runner_up.ratio_ci[0] <= 1.5 <= choice.runner_up.ratio_ci[1] for choice in right if choice.runner_up]
    assert np.mean(covered) >= 0.9
