"""Items that differ each time they are fetched: trainings see several versions of each in turn, losses are told by one that stays."""

import random
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import batchlab
from batchlab.config import load_profile
from batchlab.engine.backends.base import seeded_network
from batchlab.engine.data import Divisions, TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import Sgd
from batchlab.engine.records import Plan, Trial
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.models import Model
from batchlab.models.custom import Custom
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.rows.split import split
from batchlab.search.draws import divided
from batchlab.sources import items
from batchlab.sources.items import FETCHES, fetched
from batchlab.strategies import Population, Strategy
from batchlab.strategies.accumulated import Accumulated
from batchlab.strategies.data_loader import DataLoader
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.table import PackedTable, pack
from tests.test_items import HERE as ITEMS
from tests.test_items import Pictures, flat
from tests.test_own_modules import LITTLE

HERE, CPU = __name__, torch.device("cpu")
COUNT, WIDTH, VERSIONS, EPOCHS, RATE = 97, 5, 3, 7, 0.01
EVERY_STRATEGY = [MiniBatch(batch_rows=32), FullBatch(), Accumulated(portion_rows=40), DataLoader(batch_rows=32, workers=0)]


def augmented() -> Pictures:
    return Pictures(augmented=True)


def network(features: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 4), nn.Tanh(), nn.Linear(4, outputs))


def rows(versions: int = VERSIONS, alike: bool = False) -> TrainingData:
    """Return rows with versions of each behind them, of which the last thirty validate."""
    generator = torch.Generator().manual_seed(2)
    plain = torch.randn(COUNT + 30, WIDTH, generator=generator, dtype=torch.float64)
    target = plain[:, 0] - plain[:, 1] * plain[:, 2]
    others = [plain if alike else plain + torch.randn(plain.shape, generator=generator, dtype=torch.float64) for _ in range(versions)]
    sample, held = (plain[:COUNT], target[:COUNT]), (plain[COUNT:], target[COUNT:])
    data = TrainingData(torch.cat([plain, *others]), target.repeat(1 + versions), *held, Population(COUNT), 1, sample=sample)
    return replace(data, places=np.arange(COUNT, dtype=np.int32), versions=versions)


def trained(data: TrainingData, model: Model, strategy: Strategy, trials: list[Trial], **given: Any) -> Any:
    plan = Plan(epochs=EPOCHS, evaluations=3, optimizer=Sgd(momentum=0.9), averaging=False)
    return train(data, model, strategy, trials, plan, Loss("mse"), CPU, **given)


def by_hand(data: TrainingData, model: Model, strategy: Strategy, seed: int) -> dict[str, torch.Tensor]:
    """Return the weights that a plain loop comes to which takes another version every epoch."""
    net = seeded_network(model, (WIDTH, 1), seed).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
    blocks = data.features.view(1 + data.versions, -1, WIDTH)
    steps = chain.from_iterable(((epoch, step) for step in strategy.order(data.population, seed, epoch)) for epoch in range(EPOCHS))
    for epoch, step in steps:
        optimizer.zero_grad()
        for portion in step:
            own = torch.from_numpy(portion.astype(np.int64))
            error = net(blocks[1 + (epoch + seed) % data.versions][own])[:, 0] - data.target[own]
            (error.square().sum() / sum(len(part) for part in step)).backward()
        optimizer.step()
    return net.state_dict()


@pytest.mark.parametrize("strategy", EVERY_STRATEGY, ids=lambda strategy: strategy.kind)
@pytest.mark.parametrize("model", [Linear(), Mlp(widths=(4,)), Custom(factory=f"{HERE}:network")], ids=lambda model: model.kind)
def test_every_epoch_takes_another_version_as_a_plain_loop_would(model: Model, strategy: Strategy) -> None:
    found = trained(rows(), model, strategy, [Trial(RATE, 1), Trial(RATE, 2)])
    for seed, result in zip((1, 2), found, strict=True):
        for name, value in by_hand(rows(), model, strategy, seed).items():
            np.testing.assert_allclose(result.weights[name], value, rtol=0, atol=1e-10, err_msg=name)


def test_versions_that_are_all_alike_change_nothing() -> None:
    plain = replace(rows(alike=True), versions=0)
    for data in (rows(alike=True), rows(versions=1, alike=True)):
        (found,), (expected,) = (trained(one, Linear(), MiniBatch(batch_rows=16), [Trial(RATE, 1)]) for one in (data, plain))
        np.testing.assert_array_equal(found.weights["weight"], expected.weights["weight"])
        np.testing.assert_array_equal(found.curve.validation_loss, expected.curve.validation_loss)


def test_a_training_that_goes_on_takes_the_version_whose_turn_it_is() -> None:
    strategy, trials = MiniBatch(batch_rows=16), [Trial(RATE, 1)]
    (whole,) = trained(rows(), Linear(), strategy, trials)
    (begun,) = trained(rows(), Linear(), strategy, trials, marks=[2.5 * COUNT], states=True)
    (after,) = trained(rows(), Linear(), strategy, trials, begun=[begun.state])
    np.testing.assert_array_equal(after.weights["weight"], whole.weights["weight"])


def test_each_division_trains_on_versions_of_its_own_rows() -> None:
    data = rows()
    parts = [np.sort(np.random.default_rng(number).permutation(COUNT + 30)).reshape(1, -1) for number in range(2)]
    train_rows = np.concatenate([part[:, :COUNT] for part in parts]).astype(np.int32)
    data = replace(data, places=None, divisions=Divisions(train_rows, train_rows[:, :10]))
    order = np.tile(np.arange(COUNT, dtype=np.int32), (2, 1))
    found = data.in_pool(order, np.array([0, 1]), seeds=(0, 1), rows_before=COUNT)
    np.testing.assert_array_equal(found[0], (COUNT + 30) * 2 + train_rows[0])
    np.testing.assert_array_equal(found[1], (COUNT + 30) * 3 + train_rows[1])
    assert found.dtype == np.int32


def test_items_that_differ_are_fetched_several_times_the_same_ones_for_a_seed() -> None:
    random.seed(4)
    torch.manual_seed(4)
    expected = random.random(), torch.rand(()).item()
    random.seed(4)
    torch.manual_seed(4)
    found = fetched(augmented(), seed=7)
    assert (random.random(), torch.rand(()).item()) == expected
    assert found.versions is not None
    assert found.versions.shape == (FETCHES, 200, 1, 8, 8)
    assert all(np.any(version != found.inputs) for version in found.versions)
    np.testing.assert_array_equal(fetched(augmented(), seed=7).versions, found.versions)
    assert np.any(fetched(augmented(), seed=8).versions != found.versions)
    assert (
        "trainings take 8 further fetches of every item in turn, one an epoch; losses are told by the items as they were" in found.notes[1]
    )


def test_losses_are_told_by_the_items_without_their_augmentation() -> None:
    found = fetched(augmented(), plain=Pictures(), fetches=2)
    np.testing.assert_array_equal(found.inputs, fetched(Pictures()).inputs)
    assert found.versions is not None
    assert len(found.versions) == 2
    assert found.notes[1].endswith(
        "trainings take 2 further fetches of every item in turn, one an epoch; losses are told by those of plain"
    )


def test_items_that_are_always_the_same_are_fetched_once() -> None:
    assert fetched(Pictures()).versions is None
    assert fetched(augmented(), fetches=1).versions is None
    pictures = Pictures()
    doubled = [(2 * picture, label) for picture, label in (pictures[number] for number in range(len(pictures)))]
    changed = fetched(doubled, plain=pictures)
    assert changed.versions is not None
    assert len(changed.versions) == 1
    np.testing.assert_array_equal(changed.versions[0], 2 * changed.inputs)


def test_no_further_version_is_fetched_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "VERSIONS_SECONDS", 0.0)
    found = fetched(augmented())
    assert found.versions is not None
    assert len(found.versions) == 1
    assert "(8 were asked for, these took 0 s)" in found.notes[1]


def test_plain_items_that_are_the_same_or_change_themselves_are_said() -> None:
    same = fetched(Pictures(), plain=Pictures())
    assert same.versions is None
    assert same.notes[-1] == "the items are those of plain"
    assert fetched(augmented(), plain=augmented(), fetches=2).notes[-1].startswith("of plain, too, item 0 is another one each time")


@pytest.mark.parametrize("fetches", [0, -1, 2.5, "many"])
def test_a_number_of_fetches_that_is_none_is_refused(fetches: Any) -> None:
    with pytest.raises(BadInput, match=r"fetches is .*; it must be a whole number, 1 or more"):
        fetched(augmented(), fetches=fetches)
    with pytest.raises(BadInput, match="fetches goes with a map-style data set"):
        batchlab.compare(np.zeros((9, 2)), np.zeros(9), fetches=2)
    with pytest.raises(BadInput, match="plain is the text 'pics:plain'; give the data set itself"):
        batchlab.compare(augmented(), plain="pics:plain")


class Gone(Pictures):
    """Whose numbers, or targets, are lost in the second fetch."""

    def __init__(self, target: bool) -> None:
        super().__init__(20, augmented=True)
        self.target, self.counts = target, [0] * 20

    def __getitem__(self, number: int) -> Any:
        picture, label = super().__getitem__(number)
        self.counts[number] += 1
        if number == 9 and self.counts[number] > 1 + number:
            return (picture, "another") if self.target else (picture * torch.nan, label)
        return picture, label


@pytest.mark.parametrize(
    ("data", "plain", "said"),
    [
        (lambda: Pictures(20, augmented=True), lambda: Pictures(19), "has 20 items and plain 19; plain must hold the same ones"),
        (lambda: Pictures(augmented=True), lambda: [(torch.zeros(3), "digit 0")] * 200, r"item 0 has inputs of shape \(1, 8, 8\)"),
        (lambda: Pictures(augmented=True), lambda: [(torch.zeros(1, 8, 8), "b")] * 200, "item 0 has the target digit 0, and b in plain"),
        (lambda: np.zeros((3, 2)), lambda: Pictures(), "plain goes with a map-style data set"),
    ],
)
def test_plain_items_that_are_not_the_same_ones_are_refused(data: Any, plain: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        batchlab.compare(data(), None if callable(getattr(data(), "__getitem__", None)) else "y", model=flat, plain=plain(), progress=False)


@pytest.mark.parametrize(
    ("target", "said"), [(False, "item 9 holds a missing or infinite number"), (True, "item 9 has the target another")]
)
def test_an_item_that_is_lost_in_a_later_fetch_is_named(target: bool, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        fetched(Gone(target), fetches=20)


def test_a_comparison_trains_on_versions_and_is_judged_by_plain_items() -> None:
    found = batchlab.compare(augmented(), model=flat, plain=Pictures(), fetches=3, strategies=["mini_batch"], **LITTLE)
    experiment, held = found.search.experiment, fetched(augmented(), plain=Pictures(), fetches=3)
    assert held.versions is not None
    np.testing.assert_array_equal(experiment.table.features, held.inputs.reshape(200, -1))
    pool = np.concatenate([experiment.split.train, experiment.split.validation])
    assert experiment.data.versions == 3
    blocks = experiment.data.features.view(4, len(pool), 64).numpy()
    preparation = experiment.preparation
    for number, version in enumerate((held.inputs, *held.versions)):
        by_itself = (version.reshape(200, -1)[pool] - preparation.mean) / preparation.scale
        np.testing.assert_allclose(blocks[number], by_itself, rtol=0, atol=1e-5)
    divisions = divided(experiment, 4)
    assert divisions is not None
    assert divisions.versions == 3
    assert divisions.features is experiment.data.features
    assert any("trainings take 3 further fetches of every item" in note for note in found.verdict.notes)


def test_versions_are_kept_beside_the_packed_table_for_whoever_opens_it(tmp_path: Path) -> None:
    overrides = [f"source.plain={ITEMS}:pictures", "source.fetches=2", "model.kind=mlp"]
    settings = load_profile("quick", data=f"{HERE}:augmented", overrides=overrides)
    packed = pack(settings.source, settings.named_columns(), tmp_path, seed=3)
    table = PackedTable.open(packed.path)
    expected = fetched(augmented(), plain=Pictures(), fetches=2, seed=3)
    np.testing.assert_array_equal(table.versions, expected.versions)
    assert Experiment(settings, table, split(table, settings.split, 0)).data.versions == 2
    again = pack(settings.source, settings.named_columns(), tmp_path, seed=4)
    assert again.path != packed.path
    np.save(packed.path / "versions.npy", np.zeros((2, 7, 1, 8, 8), np.float32))
    with pytest.raises(BadInput, match="versions"):
        _ = PackedTable.open(packed.path).versions


def test_more_versions_than_memory_holds_and_rows_left_out_are_refused(tmp_path: Path) -> None:
    settings = load_profile("quick", data=f"{HERE}:augmented", overrides=["model.kind=mlp", "source.fetches=2"])
    table = pack(settings.source, settings.named_columns(), tmp_path)
    few = Experiment(settings, replace(table, schema=table.schema.model_copy(update={"rows": 150})), split(table, settings.split, 0))
    with pytest.raises(BadInput, match="versions"):
        _ = few.data
    small = load_profile("quick", data=f"{HERE}:augmented", overrides=["model.kind=mlp", "source.fetches=2", "memory_gib=0.0001"])
    with pytest.raises(BadInput, match=r"2 versions of 160 items × 64 inputs take 0.1 MiB, and there are 0.1 MiB for rows"):
        _ = Experiment(small, table, split(table, settings.split, 0)).data
