"""The running average of the weights against slow arithmetic and theory, and the losses that are told of it and of the last weights."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import AdamW, Optimizer, Sgd
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.models import Model
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.strategies import Population, Strategy
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.strategies.stochastic import Stochastic

CPU = torch.device("cpu")
BACKENDS = pytest.mark.parametrize("backend", ["kernels", "torch"])
MODEL, BATCHES, EPOCHS = Mlp(widths=(6,), activation="tanh"), MiniBatch(batch_rows=10), 70
"""420 steps: every step counts up to the 256th, then every 8th."""


def rows(count: int = 60, held_out: int = 53) -> TrainingData:
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(count + held_out, 3, generator=generator, dtype=torch.float64)
    target = features.sum(1) + torch.randn(count + held_out, generator=generator, dtype=torch.float64)
    return TrainingData(features[:count], target[:count], features[count:], target[count:], Population(count), 1)


def trained(model: Model, strategy: Strategy, trials: list[Trial], data: TrainingData | None = None, **plan: Any) -> list[TrialResult]:
    settings = Plan(**{"epochs": EPOCHS, "evaluations": 7, **plan})
    return train(data or rows(), model, strategy, trials, settings, Loss("mse"), CPU, states=True)


def flat(result: TrialResult) -> np.ndarray:
    return np.concatenate([value.ravel() for value in result.weights.values()])


def last(result: TrialResult) -> np.ndarray:
    """The weights as the last step left them."""
    assert result.state is not None
    return result.state.weights


def share(step: int) -> float:
    """How much of the average the weights after a step make up."""
    if step <= 256:
        return max(1 / step, 1 / (1 + 0.15 * step))
    return 8 / (1 + 0.15 * step) if step % 8 == 0 else 0.0


def averaged(path: np.ndarray) -> np.ndarray:
    """The average of weights `[steps, parameters]`, those after the first step first."""
    average = np.zeros(path.shape[1])
    for step, weights in enumerate(path, start=1):
        average = (1 - share(step)) * average + share(step) * weights
    return average


@cache
def path_of_plain_pytorch(kind: Callable[..., torch.optim.Optimizer]) -> np.ndarray:
    """The weights after each step `[steps, parameters]` of a loop as anyone would write it."""
    data = rows()
    torch.manual_seed(5)
    network = MODEL.network(3, 1).double()
    stepper = kind(network.parameters(), lr=0.02)
    path = []
    for epoch in range(EPOCHS):
        for step in BATCHES.order(data.population, 5, epoch):
            indices = np.concatenate(step)
            stepper.zero_grad()
            nn.functional.mse_loss(network(data.features[indices])[:, 0], data.target[indices]).backward()
            stepper.step()
            path.append(torch.cat([weight.detach().flatten() for weight in network.parameters()]).numpy())
    return np.array(path)


@BACKENDS
@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [(Sgd(), torch.optim.SGD), (Sgd(momentum=0.9), partial(torch.optim.SGD, momentum=0.9)), (AdamW(), torch.optim.AdamW)],
    ids=["sgd", "momentum", "adamw"],
)
def test_what_is_shipped_is_the_average_of_the_weights_that_plain_pytorch_goes_through(
    backend: str, optimizer: Optimizer, kind: Callable[..., torch.optim.Optimizer]
) -> None:
    path = path_of_plain_pytorch(kind)
    (result,) = trained(MODEL, BATCHES, [Trial(0.02, 5)], optimizer=optimizer, backend=backend)
    assert result.steps == len(path) == 420
    np.testing.assert_allclose(flat(result), averaged(path), rtol=0, atol=1e-10)
    np.testing.assert_allclose(last(result), path[-1], rtol=0, atol=1e-10)
    assert np.abs(averaged(path) - path[-1]).max() > 1e-4


@BACKENDS
def test_the_average_of_noiseless_descent_on_a_quadratic_is_its_closed_form(backend: str) -> None:
    """Along each curvature the weights after step t are off by (1 − rate·curvature)ᵗ of what they were off by at first."""
    data, rate, steps = rows(), 0.01, 400
    columns = np.c_[data.features.numpy(), np.ones(60)]
    curvatures, directions = np.linalg.eigh(2 * columns.T @ columns / 60)
    optimum = np.linalg.lstsq(columns, data.target.numpy(), rcond=None)[0]
    (result,) = trained(
        Linear(), FullBatch(), [Trial(rate, 0, start={"weight": np.ones((1, 3)), "bias": np.ones(1)})], epochs=steps, backend=backend
    )
    off = averaged((1 - rate * curvatures) ** np.arange(1, steps + 1)[:, None])
    np.testing.assert_allclose(flat(result), optimum + directions @ (off * (directions.T @ (1 - optimum))), rtol=0, atol=1e-12)


def test_the_average_removes_nine_tenths_of_the_stationary_loss_that_gradient_noise_leaves_as_theory_says() -> None:
    """With fresh standardised rows the weights' errors at a constant rate are correlated by (1 − 2·rate)ᵏ over k steps, exactly."""
    rate, steps, seeds = 0.02, 2000, 200
    generator = torch.Generator().manual_seed(8)
    features = torch.randn(40_000, 3, generator=generator, dtype=torch.float64)
    target = features.sum(1) + torch.randn(40_000, generator=generator, dtype=torch.float64)
    data = TrainingData(features, target, features[:10], target[:10], Population(40_000), 1)
    optimum = np.linalg.lstsq(np.c_[features.numpy(), np.ones(40_000)], target.numpy(), rcond=None)[0]
    trials = [Trial(rate, seed) for seed in range(seeds)]
    results = trained(Linear(), Stochastic(), trials, data, epochs=1, max_rows=steps, evaluations=1)
    excess_of_average, excess_of_last = (
        np.mean([np.sum((weights(result) - optimum) ** 2) for result in results]) for weights in (flat, last)
    )
    parts = averaged(np.eye(steps))
    lags = np.abs(np.arange(steps)[:, None] - np.arange(steps))
    expected = parts @ (1 - 2 * rate) ** lags @ parts
    assert expected < 0.1
    assert excess_of_average / excess_of_last == pytest.approx(expected, rel=0.2)


@BACKENDS
def test_averaging_changes_what_is_judged_and_not_what_is_trained(backend: str) -> None:
    trials = [Trial(0.02, 0), Trial(0.05, 1)]
    plain, both = (trained(MODEL, BATCHES, trials, averaging=averaging, backend=backend) for averaging in (False, True))
    for one, other in zip(plain, both, strict=True):
        np.testing.assert_array_equal(last(one), last(other))
        np.testing.assert_array_equal(last(one), flat(one))
        assert one.curve.last_validation_loss == one.curve.validation_loss == other.curve.last_validation_loss
        assert other.curve.validation_loss[0] == other.curve.last_validation_loss[0]
        assert other.curve.validation_loss[1:] != other.curve.last_validation_loss[1:]


@BACKENDS
@pytest.mark.parametrize(("held_out", "portions"), [(53, 16), (5, 5)])
def test_portions_are_the_mean_losses_of_equal_parts_of_the_rows_and_their_weighted_mean_is_the_loss(
    backend: str, held_out: int, portions: int
) -> None:
    data = rows(held_out=held_out)
    for result in trained(Linear(), BATCHES, [Trial(0.01, 0), Trial(0.02, 1)], data, epochs=2, backend=backend):
        outputs = data.validation_features.numpy() @ result.weights["weight"][0] + result.weights["bias"]
        parts = np.split((outputs - data.validation_target.numpy()) ** 2, np.arange(1, portions) * held_out // portions)
        np.testing.assert_allclose(result.curve.portions[-1], [part.mean() for part in parts], rtol=1e-12)
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        means = [np.average(of_point, weights=sizes) for of_point in result.curve.portions]
        np.testing.assert_allclose(means, result.curve.validation_loss, rtol=1e-12)
