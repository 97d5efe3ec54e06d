"""Modules of one's own train as in the loop that their owner would write, alone, stacked and through a traced graph alike."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import batchlab
from batchlab.config import load_profile
from batchlab.engine.averaging import average_share
from batchlab.engine.backends.base import seeded_network
from batchlab.engine.backends.slopes import GROUPS, SURE, TRACING_STEPS, Costs, Way, traced
from batchlab.engine.backends.torch_stacked import SEEDS_APART
from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import AdamW, Sgd
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.models.custom import Custom
from batchlab.models.session import named
from batchlab.networks.layout import Layout, trained_in
from batchlab.rows.preparation import identity
from batchlab.rows.split import split
from batchlab.scoring.shipping import GRAPH, export, predicted, shipped
from batchlab.serving.batchlab_serving import PackedColumn
from batchlab.strategies import Population, Strategy
from batchlab.strategies.accumulated import Accumulated
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.strategies.stochastic import Stochastic
from batchlab.table import pack
from tests.conftest import SMALL

HERE, CPU, FEATURES = __name__, torch.device("cpu"), 16
RATE, EPOCHS = 0.01, 3


def norms(features: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, outputs))


def batch_norm(features: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, outputs))


def dropout(features: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, outputs))


def convolution(features: int, outputs: int) -> nn.Module:
    picture = nn.Unflatten(1, (1, 4, 4))
    return nn.Sequential(picture, nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, outputs))


class Recurrent(nn.Module):
    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, outputs)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(rows.view(len(rows), -1, 4))[0][:, -1])


class Tied(nn.Module):
    """The same matrix forward and, transposed, backward; a frozen layer before it and a mask beside."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, 6).requires_grad_(False)
        self.there, self.back = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.back.weight = self.there.weight
        self.head = nn.Linear(6, outputs)
        self.register_buffer("mask", torch.tensor([True, False, True, True, True, True]))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        inner = torch.tanh(self.there(self.first(rows))) * self.mask
        return self.head(torch.tanh(self.back(inner)))


class Branching(nn.Module):
    """Another layer for rows that are many: nothing that several replicas could do at once."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(features, outputs), nn.Linear(features, outputs)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.high(row[None]) if row.sum().item() > 0 else self.low(row[None]) for row in rows])


STEADY = [norms, batch_norm, convolution, Recurrent, Tied]
EVERY = [*STEADY, dropout, Branching]


def rows(count: int = 97) -> TrainingData:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(count, FEATURES, generator=generator, dtype=torch.float64)
    target = features[:, 0] - features[:, 1] * features[:, 2]
    return TrainingData(features, target, features[:30], target[:30], Population(count), 1)


def trained(factory: Any, trials: list[Trial], strategy: Strategy, **plan: Any) -> list[TrialResult]:
    settings = Plan(**{"epochs": EPOCHS, "evaluations": 3, "optimizer": AdamW(weight_decay=0.1), **plan})
    model = Custom(factory=f"{HERE}:{factory.__name__}")
    return train(rows(), model, strategy, trials, settings, Loss("mse"), CPU)


def by_hand(factory: Any, strategy: Strategy, seed: int) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return the network that a plain loop trains, and the running averages of its parameters and buffers."""
    data, network = rows(), seeded_network(Custom(factory=f"{HERE}:{factory.__name__}"), (FEATURES, 1), seed).double()
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(trained_in(network), lr=RATE, weight_decay=0.1)
    if factory is Branching:  # a loop's AdamW passes over parameters that a step did not use
        optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    steps = chain.from_iterable(strategy.order(data.population, seed, epoch) for epoch in range(EPOCHS))
    average = {name: value.double().clone() for name, value in network.state_dict().items() if name != "mask"}
    for number, step in enumerate(steps, 1):
        optimizer.zero_grad()
        for place, portion in enumerate(step):
            torch.manual_seed(SEEDS_APART * (seed + SEEDS_APART * place) + number)
            error = network(data.features[portion])[:, 0] - data.target[portion]
            (error.square().sum() / sum(len(part) for part in step)).backward()
        optimizer.step()
        for name, value in average.items():
            value += average_share(number) * (network.state_dict()[name] - value)
    return network, average


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that has stacks trained by one way, whatever is quicker."""

    def only(way: Way, size: int | None = None) -> None:
        def parts(costs: Costs, replicas: int, length: int, traces: bool) -> Iterator[tuple[Way, slice]]:
            each = size or replicas
            for start in range(0, replicas, each):
                yield (way if traces or way != "traced" else "stacked"), slice(start, min(start + each, replicas))

        monkeypatch.setattr(Costs, "quickest", parts)

    return only


@pytest.mark.parametrize("factory", EVERY, ids=lambda factory: factory.__name__)
@pytest.mark.parametrize("strategy", [MiniBatch(batch_rows=32), Accumulated(portion_rows=40)], ids=["ragged", "accumulated"])
@pytest.mark.parametrize("averaging", [False, True], ids=["last", "average"])
def test_one_replica_is_what_a_plain_loop_comes_to(factory: Any, strategy: Strategy, averaging: bool) -> None:
    if factory in (batch_norm,) and strategy.kind == "mini_batch":
        strategy = MiniBatch(batch_rows=19)  # 97 = 5 × 19 + 2: batch norm has no loop for a last row alone
    (result,) = trained(
        factory, [Trial(RATE, 1)], strategy, averaging=averaging, optimizer=Sgd() if factory is Branching else AdamW(weight_decay=0.1)
    )
    network, average = by_hand(factory, strategy, seed=1)
    expected = average if averaging else network.state_dict()
    for name, found in result.weights.items():
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("factory", STEADY, ids=lambda factory: factory.__name__)
@pytest.mark.parametrize(("way", "size"), [("alone", 1), ("stacked", None), ("traced", 2), ("traced", None)])
def test_every_way_trains_every_replica_as_if_it_were_alone(factory: Any, way: Way, size: int | None, always: Any) -> None:
    always(way, size)
    trials = [Trial(rate, seed) for rate in (RATE, 0.002) for seed in (1, 2)]
    together = trained(factory, trials, MiniBatch(batch_rows=19))
    for trial, found in zip(trials, together, strict=True):
        (alone,) = trained(factory, [trial], MiniBatch(batch_rows=19))
        for name, value in alone.weights.items():
            np.testing.assert_allclose(found.weights[name], value, rtol=0, atol=1e-10, err_msg=name)
        np.testing.assert_allclose(found.curve.validation_loss, alone.curve.validation_loss, rtol=1e-9)


@pytest.mark.parametrize(("way", "size"), [("stacked", None), ("traced", None)])
def test_replicas_that_are_stacked_drop_out_each_for_itself(way: Way, size: int | None, always: Any) -> None:
    always(way, size)
    twins = trained(dropout, [Trial(RATE, 1), Trial(RATE, 1)], MiniBatch(batch_rows=32), epochs=1, max_steps=1, averaging=False)
    assert np.any(twins[0].weights["3.weight"] != twins[1].weights["3.weight"])
    again = trained(dropout, [Trial(RATE, 1), Trial(RATE, 1)], MiniBatch(batch_rows=32), epochs=1, max_steps=1, averaging=False)
    np.testing.assert_array_equal(twins[0].weights["3.weight"], again[0].weights["3.weight"])


def test_dropout_leaves_torchs_generator_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trained(dropout, [Trial(RATE, 1)], MiniBatch(batch_rows=32))
    assert torch.equal(before, torch.get_rng_state())


def test_batch_norm_counts_its_steps_and_a_row_alone_goes_by_the_running_statistics() -> None:
    (result,) = trained(batch_norm, [Trial(RATE, 1)], MiniBatch(batch_rows=32), averaging=False)
    assert result.steps == 4 * EPOCHS  # 97 rows: the last step of an epoch has one
    assert result.weights["1.num_batches_tracked"] == 3 * EPOCHS
    (single,) = trained(batch_norm, [Trial(RATE, 1)], Stochastic(), averaging=False, epochs=1)
    assert single.weights["1.num_batches_tracked"] == 0
    assert np.isfinite(single.curve.validation_loss).all()


def test_a_replica_that_diverges_keeps_its_last_finite_statistics(always: Any) -> None:
    always("stacked")
    far, near = trained(batch_norm, [Trial(1e200, 1), Trial(RATE, 1)], MiniBatch(batch_rows=19), averaging=False)
    assert far.diverged_at is not None
    assert all(np.isfinite(value).all() for value in far.weights.values())
    (alone,) = trained(batch_norm, [Trial(RATE, 1)], MiniBatch(batch_rows=19), averaging=False)
    np.testing.assert_allclose(near.weights["1.running_var"], alone.weights["1.running_var"], rtol=0, atol=1e-12)


def test_frozen_parameters_stay_as_they_were_and_shared_ones_are_one() -> None:
    (result,) = trained(Tied, [Trial(RATE, 1)], MiniBatch(batch_rows=32))
    before = seeded_network(Custom(factory=f"{HERE}:Tied"), (FEATURES, 1), 1)
    np.testing.assert_array_equal(result.weights["first.weight"], before.get_parameter("first.weight").detach().double().numpy())
    assert set(result.weights) == {"first.weight", "first.bias", "there.weight", "head.weight", "head.bias"}
    assert Layout.of(before).trained.keys() == {"there.weight", "head.weight", "head.bias"}


@pytest.mark.parametrize("factory", EVERY, ids=lambda factory: factory.__name__)
def test_a_training_that_goes_on_is_the_one_that_never_stopped(factory: Any) -> None:
    model, plan = Custom(factory=f"{HERE}:{factory.__name__}"), Plan(epochs=EPOCHS, evaluations=3, optimizer=AdamW())
    (whole,) = train(rows(), model, MiniBatch(batch_rows=19), [Trial(RATE, 1)], plan, Loss("mse"), CPU)
    (half,) = train(rows(), model, MiniBatch(batch_rows=19), [Trial(RATE, 1)], plan, Loss("mse"), CPU, marks=[120], states=True)
    assert half.state is not None
    begun = [half.state]
    (rest,) = train(rows(), model, MiniBatch(batch_rows=19), [Trial(RATE, 1)], plan, Loss("mse"), CPU, begun=begun, marks=[120, 291])
    for name, value in whole.weights.items():
        np.testing.assert_allclose(rest.weights[name], value, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("factory", [norms, batch_norm, dropout, convolution, Tied], ids=lambda factory: factory.__name__)
def test_what_ships_predicts_as_the_network_does_in_eval(factory: Any, tmp_path: Path) -> None:
    (result,) = trained(factory, [Trial(RATE, 1)], MiniBatch(batch_rows=19), averaging=False)
    network, _ = by_hand(factory, MiniBatch(batch_rows=19), seed=1)
    columns = [PackedColumn(f"c{number}", "number") for number in range(FEATURES)]
    scaling = identity(np.zeros(FEATURES), np.ones(FEATURES), target_mean=5.0, target_scale=2.0)
    model = shipped(Custom(factory=f"{HERE}:{factory.__name__}"), (FEATURES, 1), result.weights, scaling, False)
    export(model, columns, tmp_path)
    loaded = torch.export.load(tmp_path / GRAPH).module()
    inputs = np.random.default_rng(0).normal(size=(40, FEATURES)).astype(np.float32)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(inputs).double()).numpy() * 2 + 5
    np.testing.assert_allclose(predicted(loaded, inputs.__getitem__, np.arange(40)), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("factory", "stacks", "draws", "needs_rows"),
    [
        (norms, True, False, False),
        (batch_norm, True, False, True),
        (dropout, True, True, False),
        (convolution, True, False, False),
        (Recurrent, True, False, False),
        (Tied, True, False, False),
        (Branching, False, False, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_a_network_is_like_is_found_out_before_it_trains(factory: Any, stacks: bool, draws: bool, needs_rows: bool) -> None:
    traits = Custom(factory=f"{HERE}:{factory.__name__}").traits(FEATURES, 1)
    assert (traits.unstackable is None, traits.draws, traits.needs_rows) == (stacks, draws, needs_rows)


def known(costs: Costs, way: Way, replicas: int, seconds: float) -> None:
    for _ in range(SURE):
        costs.note(way, 32, replicas, slice(0, replicas), seconds * replicas)


def ways(costs: Costs, replicas: int, traces: bool = True) -> list[tuple[Way, int]]:
    return [(way, part.stop - part.start) for way, part in costs.quickest(replicas, 32, traces)]


def test_what_is_not_known_is_measured_at_work_and_then_the_quickest_way_is_taken() -> None:
    costs = Costs()
    assert ways(costs, 5) == [("alone", 1), ("stacked", 4)]
    known(costs, "alone", 1, 2.0)
    known(costs, "stacked", 5, 1.0)
    assert ways(costs, 5) == [("stacked", 5)]
    costs = Costs()
    known(costs, "alone", 1, 1.0)
    known(costs, "stacked", 5, 2.0)
    assert ways(costs, 5) == [("alone", 1)] * 5


def test_a_graph_is_traced_once_as_much_time_was_spent_as_tracing_takes_and_kept_where_it_is_quicker() -> None:
    costs, replicas = Costs(), sum(GROUPS) + 1
    known(costs, "alone", 1, 1.0)
    known(costs, "stacked", replicas, 0.9)
    assert ways(costs, replicas) == [("stacked", replicas)]
    costs.spent[32] = 0.9 * replicas * TRACING_STEPS
    assert ways(costs, replicas, traces=False) == [("stacked", replicas)]
    assert ways(costs, replicas) == [*(("traced", size) for size in GROUPS), ("alone", 1)]
    known(costs, "traced", GROUPS[0], 5.0)
    assert ways(costs, GROUPS[0] + 1)[0] == ("alone", 1)
    known(costs, "stacked", GROUPS[0], 0.9)
    assert ways(costs, GROUPS[0]) == [("traced", GROUPS[1])] * (GROUPS[0] // GROUPS[1])


def test_a_traced_graph_is_plain_operations_only() -> None:
    def program(weights: torch.Tensor, features: torch.Tensor, target: torch.Tensor) -> Any:
        leaf = weights.detach().requires_grad_()
        losses = (torch.einsum("rf,rbf->rb", leaf, features) - target).square().sum(1)
        return losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0], weights[:, :0]

    example = (torch.randn(2, 3), torch.randn(2, 5, 3), torch.randn(2, 5))
    graph = traced(program, *example)
    other = (torch.randn(2, 3), torch.randn(2, 5, 3), torch.randn(2, 5))
    for found, expected in zip(graph(*other), program(*other), strict=True):
        torch.testing.assert_close(found, expected)


LITTLE: dict[str, Any] = {
    "overrides": [*SMALL, "train.epochs=2", "train.learning_rate=[0.01]", "train.optimizer.kind=sgd", "search.batch_rows=[16]"],
    "max_minutes": 0.45,
    "progress": False,
}
"""So little that it ends long before a limit that leaves no time for processes of their own, which measure memory."""


def small_frame() -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(200, 4))
    return pd.DataFrame(values, columns=list("abcd")).assign(y=values[:, 0] * values[:, 1] + 0.1 * values[:, 2])


@pytest.mark.parametrize(
    ("model", "factory"),
    [
        (nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)), "session:Sequential()"),
        (lambda features, outputs: nn.Sequential(nn.Linear(features, 8), nn.Tanh(), nn.Linear(8, outputs)), "session:<lambda>"),
    ],
    ids=["a module", "a function of this session"],
)
def test_a_frame_is_compared_with_a_network_of_ones_own(model: Any, factory: str) -> None:
    before = [value.clone() for value in model.state_dict().values()] if isinstance(model, nn.Module) else []
    found = batchlab.compare(small_frame(), "y", model=model, strategies=["mini_batch"], **LITTLE)
    assert found.search.experiment.model == Custom(factory=factory)
    assert found.verdict.loss is not None
    code = found.verdict.code("torch")
    assert {"session:Sequential()": "your_network", "session:<lambda>": "<lambda>(4, 1)"}[factory] in code
    if isinstance(model, nn.Module):
        assert all(torch.equal(value, old) for value, old in zip(model.state_dict().values(), before, strict=True))


def test_what_can_be_imported_goes_by_its_name() -> None:
    assert named(norms) == named(f"{HERE}:norms") == f"{HERE}:norms"
    assert named(Branching) == f"{HERE}:Branching"


def test_copies_of_a_given_module_begin_with_weights_of_their_seed() -> None:
    model = Custom(factory=named(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))))
    one, again, other = (seeded_network(model, (4, 1), seed).state_dict()["0.weight"] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_replicas_that_cannot_train_at_once_are_said_once() -> None:
    found = batchlab.compare(small_frame(), "y", model=Branching, strategies=["mini_batch"], **LITTLE)
    (said,) = [note for note in found.verdict.notes if "one after the other" in note]
    assert ".item()" in said


@pytest.mark.parametrize("model", [3, [nn.Linear(4, 1)]])
def test_what_is_no_network_is_refused(model: Any) -> None:
    with pytest.raises(BadInput, match="give an nn"):
        batchlab.compare(small_frame(), "y", model=model)


def pictures(shape: tuple[int, ...], outputs: int) -> nn.Module:
    assert shape == (1, 4, 4)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, outputs))


class Words(nn.Module):
    def __init__(self, length: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 3), nn.Linear(3 * length[0], outputs)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        assert tokens.dtype == torch.int64
        return self.head(self.embedding(tokens).flatten(1))


def array_of(model: Any) -> Any:
    rng = np.random.default_rng(0)
    return rng.normal(size=(150, 1, 4, 4)) if model is pictures else torch.from_numpy(rng.integers(0, 20, (150, 5)))


@pytest.mark.parametrize("model", [pictures, Words], ids=["pictures", "tokens"])
def test_an_arrays_rows_reach_a_module_in_their_shape_and_integers_as_such(model: Any) -> None:
    array = array_of(model)
    target = np.asarray(array.reshape(150, -1)[:, 0], np.float64) + 0.5
    found = batchlab.compare(array, target, model=model, strategies=["mini_batch"], **LITTLE)
    experiment = found.search.experiment
    assert experiment.model == Custom(factory=f"{HERE}:{model.__name__}", shape=tuple(array.shape[1:]), integers=model is Words)
    assert (experiment.preparation.scale == 1).all() == (model is Words)
    assert experiment.preparation.target_scale != 1
    best = found.search.findings.best
    assert best is not None
    packed = torch.from_numpy(np.asarray(array.reshape(150, -1)[:7], np.float32))
    shipped_alone = experiment.ship(best.shown)
    network = shipped_alone.network.network
    inputs = shipped_alone.inputs(packed).reshape(7, *array.shape[1:])
    scaled = network(inputs.long() if model is Words else inputs)
    expected = scaled * experiment.preparation.target_scale + experiment.preparation.target_mean
    torch.testing.assert_close(shipped_alone(packed), expected)


def test_a_linear_model_takes_an_array_flat() -> None:
    array = array_of(pictures)
    found = batchlab.compare(array, array[:, 0, 0, 0], model="linear", strategies=["full_batch"], **LITTLE)
    assert found.search.experiment.shape == (16, 1)


def test_gaps_in_an_array_of_pictures_are_said_with_what_to_do() -> None:
    array = array_of(pictures)
    array[3, 0, 1, 1] = np.nan
    with pytest.raises(BadInput, match=r"X holds 1 missing or infinite numbers in 1 of 150 rows, the first in row 3; fill them or drop"):
        batchlab.compare(array, array[:, 0, 0, 0], model=pictures, **LITTLE)


def mixed(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, outputs))


def test_all_numbers_of_a_channel_are_scaled_alike_where_that_is_asked_for(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(300, 2, 3)) * np.array([1.0, 50.0])[:, None] + np.array([0.0, 1e7])[:, None]
    np.savez(tmp_path / "rows.npz", x=values, y=values[:, 0, 0])

    def experiment(*overrides: str) -> Experiment:
        given = ["scale=channels", "model.kind=custom", f"model.factory={HERE}:mixed", *overrides]
        settings = load_profile("quick", data=str(tmp_path / "rows.npz"), target="y", overrides=given)
        table = pack(settings.source, settings.named_columns(), tmp_path / "tables")
        return Experiment(settings, table, split(table, settings.split, 0))

    found = experiment("model.shape=[2,3]")
    rows = values[found.split.train]
    expected = (rows - rows.mean((0, 2), keepdims=True)) / rows.std((0, 2), keepdims=True)
    np.testing.assert_allclose(found.data.features.numpy().reshape(-1, 2, 3), expected, rtol=1e-4, atol=2e-5)
    with pytest.raises(
        BadInput, match=r"scale 'channels' needs rows of a shape \[channels, …\] \(model.shape\), .* the shape is not given"
    ):
        _ = experiment().preparation
