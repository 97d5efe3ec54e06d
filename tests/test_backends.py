"""One meaning: kernels, stacked torch and the user's own modules give the same numbers, whatever the cores, tiles and company."""

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from torch import nn

from batchlab.engine import memory
from batchlab.engine.backends import numba_cpu
from batchlab.engine.backends.choice import WIDE, uses_kernels
from batchlab.engine.data import TrainingData
from batchlab.engine.kernels import compiled
from batchlab.engine.loop import train
from batchlab.engine.losses import LOSSES, Loss
from batchlab.engine.optimizers import OPTIMIZERS as REGISTERED
from batchlab.engine.optimizers import Adam, AdamW, Optimizer, Sgd
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.models import Model
from batchlab.models.custom import Custom
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.networks.activations import ACTIVATIONS
from batchlab.scoring.evaluation import row_losses
from batchlab.strategies import Population, Strategy
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.mini_batch import MiniBatch

CPU = torch.device("cpu")
RESIDUAL = "tests.test_models:residual"
OPTIMIZERS: list[tuple[Optimizer, type[torch.optim.Optimizer], dict[str, object]]] = [
    (Sgd(weight_decay=0.01), torch.optim.SGD, {"weight_decay": 0.01}),
    (Sgd(momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    (Sgd(momentum=0.9, nesterov=True), torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (Adam(), torch.optim.Adam, {}),
    (AdamW(weight_decay=0.1), torch.optim.AdamW, {"weight_decay": 0.1}),
]


def test_every_registered_optimizer_is_under_contract() -> None:
    assert {optimizer.kind for optimizer, _, _ in OPTIMIZERS} == set(REGISTERED)


@pytest.mark.parametrize(("optimizer", "kind", "settings"), OPTIMIZERS, ids=[repr(optimizer) for optimizer, _, _ in OPTIMIZERS])
def test_both_forms_of_an_optimizer_are_torchs(
    optimizer: Optimizer, kind: type[torch.optim.Optimizer], settings: dict[str, object]
) -> None:
    generator, rate = torch.Generator().manual_seed(3), 0.02
    reference = nn.Parameter(torch.randn(7, generator=generator, dtype=torch.float64))
    stepper = kind([reference], lr=rate, **settings)  # type: ignore[arg-type]
    stacked, alone = reference.detach().clone()[None], reference.detach().numpy().copy()
    memory, own_memory = torch.zeros(optimizer.slots, 1, 7, dtype=torch.float64), np.zeros((optimizer.slots, 7))
    for step in range(1, 6):
        gradient = torch.randn(7, generator=generator, dtype=torch.float64)
        reference.grad = gradient.clone()
        stepper.step()
        stacked = optimizer.updated(
            stacked, gradient[None], torch.full((1, 1), rate, dtype=torch.float64), memory, torch.tensor(step, dtype=torch.float64)
        )
        before = alone.copy()
        optimizer.kernel(before, gradient.numpy(), own_memory, rate, step, np.array(optimizer.settings), alone)
        np.testing.assert_allclose(stacked[0].numpy(), reference.detach().numpy(), rtol=0, atol=1e-13)
        np.testing.assert_allclose(alone, reference.detach().numpy(), rtol=0, atol=1e-13)


seen: list[str] = []


def watching(features: int, outputs: int) -> nn.Module:
    class Watching(nn.Linear):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cuda.matmul.fp32_precision)
            return super().forward(rows)

    return Watching(features, outputs)


def rows(loss: str, count: int = 300, precision: torch.dtype = torch.float64) -> TrainingData:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(count, 6, generator=generator, dtype=torch.float64).to(precision)
    if LOSSES[loss].classes:  # type: ignore[index]
        target, outputs = torch.randint(0, 3, (count,), generator=generator), 3
    else:
        target, outputs = (features[:, 0] - features[:, 1] * features[:, 2]).to(precision), 1
    return TrainingData(features, target, features[:50], target[:50], Population(count), outputs)


def trained(
    model: Model, loss: str, strategy: Strategy, trials: list[Trial], data: TrainingData, bytes_allowed: int | None = None, **plan: object
) -> list[TrialResult]:
    settings = Plan(**{"epochs": 3, "evaluations": 3, **plan})  # type: ignore[arg-type]
    return train(data, model, strategy, trials, settings, Loss(loss, 0.7), CPU, memory_bytes=bytes_allowed)  # type: ignore[arg-type]


def flat(result: TrialResult) -> np.ndarray:
    return np.concatenate([value.ravel() for value in result.weights.values()])


def by_hand(
    network: nn.Module, loss: str, strategy: Strategy, optimizer: torch.optim.Optimizer, data: TrainingData, seed: int
) -> np.ndarray:
    criterion = {"mse": nn.MSELoss(), "huber": nn.HuberLoss(delta=0.7), "cross_entropy": nn.CrossEntropyLoss()}[loss]
    for epoch in range(3):
        for step in strategy.order(data.population, seed, epoch):
            indices = np.concatenate(step)
            outputs = network(data.features[indices])
            optimizer.zero_grad()
            criterion(outputs if loss == "cross_entropy" else outputs[:, 0], data.target[indices]).backward()
            optimizer.step()
    return torch.cat([weight.detach().flatten() for weight in network.parameters()]).numpy()


@pytest.mark.parametrize("backend", ["kernels", "torch"])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_activation_loss_and_optimizer_is_that_of_plain_pytorch(backend: str, activation: str, loss: str) -> None:
    model, data, strategy = Mlp(widths=(9, 7, 5), activation=activation), rows(loss), MiniBatch(batch_rows=32)  # type: ignore[arg-type]
    for optimizer, kind, settings in OPTIMIZERS:
        (result,) = trained(model, loss, strategy, [Trial(0.003, 1)], data, optimizer=optimizer, backend=backend, averaging=False)
        torch.manual_seed(1)
        network = model.network(6, data.output_count).double()
        expected = by_hand(network, loss, strategy, kind(network.parameters(), lr=0.003, **settings), data, seed=1)  # type: ignore[arg-type]
        np.testing.assert_allclose(flat(result), expected, rtol=0, atol=1e-10, err_msg=repr(optimizer))


def test_your_own_module_is_that_of_plain_pytorch_with_every_loss_and_optimizer() -> None:
    model, strategy = Custom(factory=RESIDUAL), MiniBatch(batch_rows=32)
    for loss, (optimizer, kind, settings) in itertools.product(LOSSES, OPTIMIZERS):
        data = rows(loss)
        (result,) = trained(model, loss, strategy, [Trial(0.003, 1)], data, optimizer=optimizer, averaging=False)
        torch.manual_seed(1)
        network = model.network(6, data.output_count).double()
        expected = by_hand(network, loss, strategy, kind(network.parameters(), lr=0.003, **settings), data, seed=1)  # type: ignore[arg-type]
        np.testing.assert_allclose(flat(result), expected, rtol=0, atol=1e-10, err_msg=f"{loss} {optimizer!r}")


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss_scores_predictions_as_it_trains(name: str) -> None:
    data, loss = rows(name), Loss(name, 0.7)
    outputs = torch.randn(300, data.output_count, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    predictions = outputs.softmax(1) if LOSSES[name].classes else outputs  # type: ignore[index]
    found = row_losses(data.target.numpy(), predictions.numpy(), loss, target_scale=1.0)
    np.testing.assert_allclose(found, loss.per_row(outputs[None], data.target[None])[0], rtol=1e-12)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_an_activations_value_and_slope_belong_together(name: str) -> None:
    activation = ACTIVATIONS[name]  # type: ignore[index]
    for z in (-3.0, -0.4, 0.3, 2.0):
        value, slope = activation.value_and_slope(z)
        leaf = torch.tensor(z, dtype=torch.float64, requires_grad=True)
        of_torch = getattr(nn, activation.layer)()(leaf)
        of_torch.backward()
        assert math.isclose(value, of_torch.item(), rel_tol=1e-12, abs_tol=1e-14)
        assert leaf.grad is not None
        assert math.isclose(slope, leaf.grad.item(), rel_tol=1e-12, abs_tol=1e-14)


@pytest.mark.parametrize("model", [Linear(), Mlp(widths=(64, 64)), Mlp(widths=(24,), activation="silu")], ids=repr)
@pytest.mark.parametrize("strategy", [MiniBatch(batch_rows=32), MiniBatch(batch_rows=700), FullBatch()], ids=["32", "700", "full"])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two cores")
def test_the_number_of_cores_changes_no_bit(model: Model, strategy: Strategy, replicas: int) -> None:
    data = rows("mse", 2000, torch.float32)
    trials = [Trial(0.01 / (1 + number), number) for number in range(replicas)]
    both = trained(model, "mse", strategy, trials, data, optimizer=Adam())
    numba.set_num_threads(1)
    try:
        one = trained(model, "mse", strategy, trials, data, optimizer=Adam())
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    for alone, shared in zip(one, both, strict=True):
        np.testing.assert_array_equal(flat(alone), flat(shared))
        assert alone.curve.train_loss == shared.curve.train_loss


@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_tiles_change_nothing(backend: str) -> None:
    model, data, strategy = Mlp(widths=(16,)), rows("mse"), MiniBatch(batch_rows=50)
    trials = [Trial(rate, seed) for rate in (0.01, 0.1) for seed in range(4)]
    together = trained(model, "mse", strategy, trials, data, backend=backend)
    predicted = memory.footprint(data, model, strategy, Plan(backend=backend), CPU)  # type: ignore[arg-type]
    told: list[float] = []
    settings = Plan(epochs=3, evaluations=3, backend=backend)  # type: ignore[arg-type]
    tiled = train(
        data, model, strategy, trials, settings, Loss("mse"), CPU, lambda progress: told.append(progress.rows_seen), predicted.of(3)
    )
    for one, other in zip(together, tiled, strict=True):
        np.testing.assert_allclose(flat(one), flat(other), rtol=0, atol=0 if backend == "kernels" else 1e-12)
        np.testing.assert_allclose(one.curve.validation_loss, other.curve.validation_loss, rtol=1e-12)
    assert told == sorted(told)
    assert told[-1] == 900


def test_a_replica_that_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(BadInput, match=r"one replica of mlp needs about .* GiB .* 0.00 GiB may be used"):
        trained(Mlp(), "mse", FullBatch(), [Trial(0.1, 0)], rows("mse"), bytes_allowed=1000)


@pytest.mark.parametrize("model", [Linear(), Mlp(widths=(32, 32)), Mlp(widths=(20,), activation="gelu")], ids=repr)
def test_curves_in_float32_agree_between_backends_over_200_steps(model: Model) -> None:
    data, trials = rows("mse", 640, torch.float32), [Trial(0.01, 0), Trial(0.05, 1)]
    plan = {"epochs": 10, "evaluations": 20, "optimizer": Sgd(momentum=0.5)}
    kernels, stacked = (
        trained(model, "mse", MiniBatch(batch_rows=32), trials, data, backend=backend, **plan) for backend in ("kernels", "torch")
    )
    for one, other in zip(kernels, stacked, strict=True):
        assert one.steps == 200
        np.testing.assert_allclose(one.curve.train_loss, other.curve.train_loss, rtol=1e-5)


@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_those_who_leave_are_carried_no_further_and_the_others_do_not_notice(backend: str) -> None:
    data, strategy = rows("mse"), MiniBatch(batch_rows=50)
    rates = [0.01, 1e9, 0.02, 1e9, 1e9, 0.005]
    plan = {"epochs": 8, "evaluations": 8, "backend": backend}
    together = trained(Linear(), "mse", strategy, [Trial(rate, 0) for rate in rates], data, **plan)
    assert [result.diverged_at is not None for result in together] == [rate == 1e9 for rate in rates]
    for rate, result in zip(rates, together, strict=True):
        (alone,) = trained(Linear(), "mse", strategy, [Trial(rate, 0)], data, **plan)
        np.testing.assert_allclose(flat(result), flat(alone), rtol=1e-12, atol=1e-12)
        assert (result.steps, result.rows_seen, result.diverged_at) == (alone.steps, alone.rows_seen, alone.diverged_at)


def test_wide_networks_go_to_torch_and_kernels_refuse_what_they_cannot_run() -> None:
    assert uses_kernels(Mlp(widths=(64, 64)), Plan(), CPU, WIDE)
    assert uses_kernels(Mlp(widths=(WIDE, WIDE)), Plan(), CPU, WIDE - 1)
    assert not uses_kernels(Mlp(widths=(WIDE, WIDE)), Plan(), CPU, WIDE)
    assert uses_kernels(Mlp(widths=(WIDE,)), Plan(backend="kernels"), CPU, WIDE)
    for model, plan in ((Custom(factory="a:b"), Plan(backend="kernels")), (Linear(), Plan(backend="kernels", precision="bf16"))):
        with pytest.raises(BadInput, match="runs linear and mlp on the CPU"):
            uses_kernels(model, plan, CPU, 32)


def test_kernels_that_cannot_run_a_profile_are_refused_before_anything_trains(experiment: Callable[..., Experiment]) -> None:
    with pytest.raises(BadInput, match="runs linear and mlp on the CPU"):
        experiment("quick", strategies=["mini_batch"], overrides=["train.backend=kernels", "train.precision=bf16"])


def test_bf16_rounds_products_and_keeps_float32_weights() -> None:
    data = rows("mse", precision=torch.float32)
    (exact,) = trained(Mlp(widths=(16,)), "mse", MiniBatch(batch_rows=30), [Trial(0.05, 0)], data, epochs=20)
    (rounded,) = trained(Mlp(widths=(16,)), "mse", MiniBatch(batch_rows=30), [Trial(0.05, 0)], data, epochs=20, precision="bf16")
    assert flat(exact).tolist() != flat(rounded).tolist()
    assert rounded.validation_loss == pytest.approx(exact.validation_loss, rel=0.1)


def test_tf32_is_on_while_it_trains_and_off_again_after() -> None:
    seen.clear()
    before = torch.backends.cuda.matmul.fp32_precision
    data = rows("mse", precision=torch.float32)
    trained(Custom(factory=f"{__name__}:watching"), "mse", MiniBatch(batch_rows=30), [Trial(0.05, 0)], data, precision="tf32")
    assert seen[-1] == "tf32"
    assert torch.backends.cuda.matmul.fp32_precision == before != "tf32"


def test_a_source_of_the_kernels_that_changes_compiles_them_anew() -> None:
    folder = Path(compiled.__file__).parent
    parts = {path.name for path in folder.glob("*.py")} - {"__init__.py", "compiled.py", "compiling.py"}
    others = {"networks/activations.py", "engine/averaging.py", "engine/losses.py", "engine/optimizers.py"}
    assert set(compiled.SOURCES) == {f"engine/kernels/{name}" for name in parts} | others


def test_a_training_compiles_no_kernel_that_warming_has_not() -> None:
    numba_cpu.warm()
    data = rows("mse", precision=torch.float32)
    for strategy, seeds in itertools.product((MiniBatch(batch_rows=30), FullBatch()), (1, 2)):
        trained(Linear(), "mse", strategy, [Trial(0.01, seed) for seed in range(seeds)], data, evaluations=1)
    signatures = [str(signature) for kernel in compiled._kernels().values() for signature in kernel.signatures]  # type: ignore[attr-defined]
    assert not [signature for signature in signatures if "readonly" in signature or ", A)" in signature]


@pytest.mark.slow
def test_the_process_that_needs_kernels_first_comes_to_the_numbers_of_those_after_it(tmp_path: Path) -> None:
    script = """
import numpy as np, torch
from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import AdamW
from batchlab.engine.records import Plan, Trial
from batchlab.models.mlp import Mlp
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch
torch.manual_seed(1)
features = torch.randn(500, 7)
target = features @ torch.randn(7) + 0.1 * torch.randn(500)
data = TrainingData(features, target, features, target, Population(500), 1)
plan, device = Plan(epochs=20, optimizer=AdamW()), torch.device("cpu")
for result in train(data, Mlp(widths=(9,)), MiniBatch(batch_rows=32), [Trial(0.03, seed) for seed in range(3)], plan, Loss("mse"), device):
    print([weights.tobytes().hex() for weights in result.weights.values()])
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, then = (subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True) for _ in range(2))
    assert first.returncode == then.returncode == 0, first.stderr + then.stderr
    assert first.stdout
    assert first.stdout == then.stdout


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the high-water mark of memory is reset through Linux's /proc")
@pytest.mark.parametrize("backend", ["kernels", pytest.param("torch", marks=pytest.mark.slow)])
def test_a_sweep_stays_within_the_memory_it_is_given(backend: str) -> None:
    """In a process of its own: 40 replicas of a network of a million weights, of which a few fit at a time."""
    script = f"""
import gc, torch
from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.records import Plan, Trial
from batchlab.models.mlp import Mlp
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

x = torch.randn(256, 20)
data = TrainingData(x, x[:, 0], x[:20], x[:20, 0], Population(256), 1)
def sweep(count, allowed):
    plan = Plan(epochs=1, evaluations=1, backend="{backend}")
    trials = [Trial(0.01, seed) for seed in range(count)]
    model, strategy = Mlp(widths=(1000, 1000)), MiniBatch(batch_rows=64)
    return train(data, model, strategy, trials, plan, Loss("mse"), torch.device("cpu"), memory_bytes=allowed)
sweep(1, None)
gc.collect()
open("/proc/self/clear_refs", "w").write("5")
before = peak()
results = sweep(40, 400 * 2**20)
kept = sum(w.nbytes for r in results for w in r.weights.values())
print(len(results), kept, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=280)
    count, kept, grown = (int(word) for word in done.stdout.split())
    assert count == 40
    assert kept < grown < kept + 1.1 * 400 * 2**20
