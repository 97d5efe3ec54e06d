"""The one loop against plain PyTorch, stacked against alone, accumulated against full batch."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import Adam, AdamW, Optimizer, Sgd
from batchlab.engine.pace import Schedule
from batchlab.engine.records import Curve, Plan, Trial, TrialResult, best
from batchlab.models import Model
from batchlab.models.custom import Custom
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.strategies import Population, Strategy
from batchlab.strategies.accumulated import Accumulated
from batchlab.strategies.data_loader import DataLoader
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.strategies.stochastic import Stochastic

CPU = torch.device("cpu")
OPTIMIZERS: list[tuple[Optimizer, Callable[..., torch.optim.Optimizer]]] = [
    (Sgd(), lambda weights, rate: torch.optim.SGD(weights, rate)),
    (Sgd(weight_decay=0.1), lambda weights, rate: torch.optim.SGD(weights, rate, weight_decay=0.1)),
    (Sgd(momentum=0.9), lambda weights, rate: torch.optim.SGD(weights, rate, momentum=0.9)),
    (Sgd(momentum=0.9, nesterov=True), lambda weights, rate: torch.optim.SGD(weights, rate, momentum=0.9, nesterov=True)),
    (Adam(weight_decay=0.1), lambda weights, rate: torch.optim.Adam(weights, rate, weight_decay=0.1)),
    (AdamW(), lambda weights, rate: torch.optim.AdamW(weights, rate)),
]
MODELS: list[tuple[Model, str]] = [
    (Linear(), "mse"),
    (Mlp(widths=(8, 5), activation="tanh"), "huber"),
    (Mlp(widths=(6,), activation="relu"), "cross_entropy"),
]


def rows(loss: str, count: int = 53, precision: torch.dtype = torch.float64) -> TrainingData:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(count, 4, generator=generator, dtype=precision)
    if loss == "cross_entropy":
        target, outputs = torch.randint(0, 3, (count,), generator=generator), 3
    else:
        target, outputs = features.sum(1) + torch.randn(count, generator=generator, dtype=precision), 1
    classes = target.numpy().copy() if outputs > 1 else None  # a copy: loader workers move the tensor to shared memory
    return TrainingData(features, target, features[:20], target[:20], Population(count, classes=classes), outputs)


def small_network(features: int, outputs: int) -> nn.Module:
    return Mlp(widths=(8, 5), activation="tanh").network(features, outputs)


def small_classifier(features: int, outputs: int) -> nn.Module:
    return Mlp(widths=(6,), activation="relu").network(features, outputs)


MODULES: list[tuple[Model, str]] = [
    (Custom(factory=f"{__name__}:small_network"), "huber"),
    (Custom(factory=f"{__name__}:small_classifier"), "cross_entropy"),
]
"""Networks of the user's own, which no kernel knows."""
RUNS: list[tuple[str, Model, str]] = [
    *(("kernels", model, loss) for model, loss in MODELS),
    *(("torch", model, loss) for model, loss in MODELS),
    *(("torch", model, loss) for model, loss in MODULES),
]
NAMES = [f"{backend}-{model.kind}-{loss}" for backend, model, loss in RUNS]


def trained(model: Model, loss: str, strategy: Strategy, trials: list[Trial], **plan: object) -> list[TrialResult]:
    settings = Plan(**{"epochs": 3, "evaluations": 3, **plan})  # type: ignore[arg-type]
    return train(rows(loss), model, strategy, trials, settings, Loss(loss, 0.7), CPU)  # type: ignore[arg-type]


def flat(weights: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([value.ravel() for value in weights.values()])


def plain_pytorch(
    model: Model,
    loss: str,
    strategy: Strategy,
    trial: Trial,
    optimizer: Callable[..., torch.optim.Optimizer],
    epochs: int,
    factors: Sequence[float] | None = None,
) -> np.ndarray:
    """A training loop as anyone would write it: nn.Module, autograd, torch.optim, and `factors` on the rate, one for each step."""
    data = rows(loss)
    torch.manual_seed(trial.seed)
    network = model.network(4, data.output_count).double()
    criterion = {"mse": nn.MSELoss(), "huber": nn.HuberLoss(delta=0.7), "cross_entropy": nn.CrossEntropyLoss()}[loss]
    stepper = optimizer(network.parameters(), trial.learning_rate)
    pace = torch.optim.lr_scheduler.LambdaLR(stepper, lambda step: 1.0 if factors is None else [*factors, 0.0][step])
    for epoch in range(epochs):
        for step in strategy.order(data.population, trial.seed, epoch):
            indices = np.concatenate(step)
            outputs = network(data.features[indices])
            value = criterion(outputs if loss == "cross_entropy" else outputs[:, 0], data.target[indices])
            stepper.zero_grad()
            value.backward()
            stepper.step()
            pace.step()
    return torch.cat([weight.detach().flatten() for weight in network.parameters()]).numpy()


@pytest.mark.parametrize(("backend", "model", "loss"), RUNS, ids=NAMES)
@pytest.mark.parametrize(("optimizer", "reference"), OPTIMIZERS, ids=["sgd", "decay", "momentum", "nesterov", "adam", "adamw"])
@pytest.mark.parametrize(
    "strategy", [FullBatch(), Accumulated(portion_rows=10), MiniBatch(batch_rows=10), Stochastic(), DataLoader(batch_rows=10)]
)
def test_a_trial_is_the_same_as_a_plain_pytorch_loop(
    backend: str, model: Model, loss: str, optimizer: Optimizer, reference: Callable[..., torch.optim.Optimizer], strategy: Strategy
) -> None:
    trial = Trial(0.02, seed=5)
    (result,) = trained(model, loss, strategy, [trial], optimizer=optimizer, backend=backend, averaging=False)
    np.testing.assert_allclose(flat(result.weights), plain_pytorch(model, loss, strategy, trial, reference, epochs=3), rtol=0, atol=1e-10)


def warmed_up(seen: int, after: int, total: int, falling: Callable[[float], float], warmup: float) -> float:
    """The factor of a step from `seen` rows to those `after` it: rising over the warm-up's share of all rows, then falling."""
    begun = seen / total
    return min(after / (warmup * total), 1.0) if begun < warmup else falling((begun - warmup) / (1 - warmup))


@pytest.mark.parametrize("backend", ["kernels", "torch"])
@pytest.mark.parametrize("warmup", [0.0, 0.3])
@pytest.mark.parametrize(
    ("kind", "falling"),
    [("constant", lambda share: 1.0), ("linear", lambda share: 1 - share), ("cosine", lambda share: (1 + math.cos(math.pi * share)) / 2)],
)
def test_a_schedule_is_torchs_lambda_lr_with_the_same_factors(
    backend: str, warmup: float, kind: str, falling: Callable[[float], float]
) -> None:
    model, loss = Mlp(widths=(8, 5), activation="tanh"), "huber"
    trials, schedule = [Trial(0.02, 5), Trial(0.05, 6)], Schedule(kind=kind, warmup=warmup)  # type: ignore[arg-type]
    for strategy in (FullBatch(), Accumulated(portion_rows=10), MiniBatch(batch_rows=10), DataLoader(batch_rows=10)):
        for optimizer, reference in OPTIMIZERS[2], OPTIMIZERS[5]:
            plan = {"epochs": 4, "optimizer": optimizer, "backend": backend, "averaging": False, "schedule": schedule}
            ends = np.concatenate([[0], *(53 * epoch + strategy.order(Population(53), 5, epoch).steps for epoch in range(4))]).tolist()
            factors = [warmed_up(seen, after, ends[-1], falling, warmup) for seen, after in pairwise(ends)]
            for trial, result in zip(trials, trained(model, loss, strategy, trials, **plan), strict=True):
                expected = plain_pytorch(model, loss, strategy, trial, reference, 4, factors)
                np.testing.assert_allclose(flat(result.weights), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("backend", "model", "loss"), RUNS, ids=NAMES)
@pytest.mark.parametrize("optimizer", [Sgd(), Sgd(momentum=0.9), Adam()], ids=["sgd", "momentum", "adam"])
def test_accumulation_matches_full_batch_with_a_ragged_tail(backend: str, model: Model, loss: str, optimizer: Optimizer) -> None:
    plan = {"epochs": 50, "optimizer": optimizer, "backend": backend}
    (full,) = trained(model, loss, FullBatch(), [Trial(0.01, 0)], **plan)
    (accumulated,) = trained(model, loss, Accumulated(portion_rows=10), [Trial(0.01, 0)], **plan)
    assert full.steps == accumulated.steps == 50
    np.testing.assert_allclose(flat(accumulated.weights), flat(full.weights), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("backend", "model", "loss"), RUNS, ids=NAMES)
@pytest.mark.parametrize("strategy", [Accumulated(portion_rows=10), MiniBatch(batch_rows=10), DataLoader(batch_rows=10)])
@pytest.mark.parametrize("optimizer", [Sgd(momentum=0.9), Adam()], ids=["momentum", "adam"])
def test_a_replica_is_the_same_trial_as_one_trained_alone(
    backend: str, model: Model, loss: str, strategy: Strategy, optimizer: Optimizer
) -> None:
    trials = [Trial(rate, seed) for rate in (0.001, 0.01, 0.1) for seed in (0, 7)]
    together = trained(model, loss, strategy, trials, optimizer=optimizer, backend=backend)
    for trial, result in zip(trials, together, strict=True):
        (alone,) = trained(model, loss, strategy, [trial], optimizer=optimizer, backend=backend)
        np.testing.assert_allclose(flat(result.weights), flat(alone.weights), rtol=0, atol=1e-10)
        np.testing.assert_allclose(result.curve.validation_loss, alone.curve.validation_loss, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sampling", ["shuffled", "sequential", "stratified"])
def test_loader_workers_change_nothing_but_who_fetches(sampling: str) -> None:
    results = [
        trained(Linear(), "cross_entropy", DataLoader(batch_rows=10, workers=workers, sampling=sampling), [Trial(0.1, 3)])[0]  # type: ignore[arg-type]
        for workers in (0, 2)
    ]
    np.testing.assert_array_equal(flat(results[0].weights), flat(results[1].weights))


def test_curves_are_evaluated_on_the_same_schedule_of_rows_for_every_strategy() -> None:
    for strategy in (FullBatch(), Stochastic(), MiniBatch(batch_rows=53)):
        (result,) = trained(Linear(), "mse", strategy, [Trial(0.01, 0)], epochs=6)
        assert result.curve.rows_seen == [0, 106, 212, 318]
        assert result.curve.epoch == [0, 2, 4, 6]
        assert (result.steps, result.rows_seen, result.epochs) == (result.curve.step[-1], 318, 6)
        assert result.curve.wall_seconds == sorted(result.curve.wall_seconds)


def test_max_steps_ends_a_training_and_its_last_weights_are_evaluated() -> None:
    (result,) = trained(Linear(), "mse", MiniBatch(batch_rows=10), [Trial(0.01, 0)], epochs=100, max_steps=11)
    assert (result.steps, result.curve.step[-1], result.rows_seen) == (11, 11, 103)


def test_progress_is_told_to_the_end() -> None:
    seen = []
    data = rows("mse")
    train(data, Linear(), MiniBatch(batch_rows=10), [Trial(0.01, 0)], Plan(epochs=5), Loss("mse"), CPU, seen.append)
    assert seen[-1].rows_seen == seen[-1].rows_total == 5 * 53
    assert [item.rows_seen for item in seen] == sorted(item.rows_seen for item in seen)


def test_early_stopping_keeps_the_best_weights_and_leaves_the_other_replicas_alone() -> None:
    trials = [Trial(0.0001, 0), Trial(0.05, 0)]
    slow, noisy = trained(Linear(), "mse", Stochastic(), trials, epochs=40, evaluations=40, patience=3)
    assert noisy.stopped == "patience"
    assert noisy.steps < slow.steps
    assert noisy.kept == int(np.argmin(noisy.curve.validation_loss)) < len(noisy.curve.step) - 1
    assert noisy.validation_loss == min(noisy.curve.validation_loss)
    data = rows("mse")
    outputs = data.validation_features.numpy() @ noisy.weights["weight"].T + noisy.weights["bias"]
    assert ((outputs[:, 0] - data.validation_target.numpy()) ** 2).mean() == pytest.approx(noisy.validation_loss, rel=1e-12)


@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_a_diverged_replica_is_frozen_at_its_last_finite_state_and_the_others_go_on(backend: str) -> None:
    trials = [Trial(0.01, 0), Trial(30.0, 0), Trial(0.02, 0)]
    results = trained(Linear(), "mse", FullBatch(), trials, epochs=400, evaluations=2, backend=backend)
    calm, wild, other = results
    assert (calm.diverged_at, other.diverged_at, calm.steps, other.steps) == (None, None, 400, 400)
    assert wild.diverged_at == wild.steps + 1 < 400
    assert np.isfinite(flat(wild.weights)).all()
    assert best(results) is not wild
    (alone,) = trained(Linear(), "mse", FullBatch(), [trials[0]], epochs=400, evaluations=2, backend=backend)
    np.testing.assert_allclose(flat(calm.weights), flat(alone.weights), rtol=0, atol=1e-10)


def test_a_loss_that_is_finite_but_a_million_times_the_first_counts_as_diverged() -> None:
    (result,) = trained(Linear(), "mse", FullBatch(), [Trial(3.0, 0)], epochs=20, evaluations=5)
    assert result.diverged_at is not None
    assert np.isfinite(result.curve.train_loss).all()


def test_a_rate_is_judged_by_the_last_tenth_of_its_evaluations_not_by_one_lucky_point() -> None:
    def ended(rate: float, losses: list[float], diverged_at: int | None = None) -> TrialResult:
        curve = Curve(validation_loss=losses)
        return TrialResult(Trial(rate, 0), diverged_at, None, 20, 20, 1.0, 0.0, 0.0, curve, len(losses) - 1, {})

    steady, lucky, wild = ended(0.01, [1.0] * 20), ended(0.1, [2.0] * 19 + [0.9]), ended(1.0, [0.1] * 20, diverged_at=3)
    assert lucky.validation_loss < steady.validation_loss
    assert (steady.settled_loss, lucky.settled_loss, wild.settled_loss) == (1.0, 1.45, np.inf)
    assert best([lucky, steady, wild]) is steady


def test_training_leaves_torchs_own_generator_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    trained(Mlp(), "mse", MiniBatch(batch_rows=10), [Trial(0.01, 0)])
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device on this machine; the same code runs on the CPU in the tests above"
)
def test_cuda_trains_the_same_trial_as_the_cpu() -> None:
    data = rows("mse")
    for strategy in (MiniBatch(batch_rows=10), DataLoader(batch_rows=10)):
        arguments = (data, Mlp(widths=(8,)), strategy, [Trial(0.01, 0), Trial(0.1, 1)], Plan(epochs=3), Loss("mse"))
        for here, there in zip(train(*arguments, CPU), train(*arguments, torch.device("cuda")), strict=True):
            np.testing.assert_allclose(flat(there.weights), flat(here.weights), rtol=0, atol=1e-10)
