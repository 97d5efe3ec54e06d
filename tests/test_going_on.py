"""Parts of a training: going on from where it halted, looking and stopping at marks, stopping when told to, and divisions of the rows."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import Any

import numpy as np
import pytest
import torch

from batchlab.engine.data import Divisions, TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.memory import footprint, replicas_that_fit
from batchlab.engine.optimizers import AdamW, Optimizer, Sgd
from batchlab.engine.pace import Schedule
from batchlab.engine.records import Plan, Trial, TrialResult, TrialState
from batchlab.models import Model
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.strategies import Population, Strategy
from batchlab.strategies.accumulated import Accumulated
from batchlab.strategies.data_loader import DataLoader
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.growing import Growing
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.strategies.streaming import Streaming

CPU = torch.device("cpu")
BACKENDS = pytest.mark.parametrize("backend", ["kernels", "torch"])
TRIALS = [Trial(0.01, 0), Trial(0.03, 0), Trial(0.01, 7)]
STRATEGIES: list[Strategy] = [
    MiniBatch(batch_rows=16),
    Accumulated(portion_rows=70),
    Streaming(batch_rows=16, block_rows=8, buffer_rows=64),
    DataLoader(batch_rows=16, sampling="weighted", weight_column="w"),
    Growing(batch_rows=4, growth="schedule", epochs=1),
    Growing(batch_rows=4),
]
"""The last one adapts to the noise that it measures after 200, 300, 450, 675, … rows."""
HALTS = (1, 37, 200, 330, 1000)
"""In the middle of steps, at the end of an epoch where a batch that adapts is asked, and soon after it was."""


def rows(count: int = 200) -> TrainingData:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    target = features.sum(1) + torch.randn(count, generator=generator, dtype=torch.float64)
    population = Population(count, weights=np.linspace(1, 2, count))
    return TrainingData(features, target, features[:30], target[:30], population, 1)


def plan_of(backend: str, **plan: Any) -> Plan:
    return Plan(**{"epochs": 5, "evaluations": 4, "backend": backend, **plan})


def trained(
    strategy: Strategy, plan: Plan, trials: Sequence[Trial] = TRIALS, model: Model | None = None, **options: Any
) -> list[TrialResult]:
    return train(rows(), model or Mlp(widths=(5,)), strategy, trials, plan, Loss("mse"), CPU, states=True, **options)


def in_parts(strategy: Strategy, plan: Plan, halts: Sequence[int] = HALTS, **options: Any) -> list[TrialResult]:
    """Train up to each of the halts in turn, each time from what the time before left."""
    results = trained(strategy, plan, marks=halts[:1], **options)
    for halt in halts[1:]:
        results = trained(strategy, plan, marks=[halt], begun=[state_of(result) for result in results], **options)
    return results


def state_of(result: TrialResult) -> TrialState:
    assert result.state is not None
    return result.state


def flat(result: TrialResult) -> np.ndarray:
    return np.concatenate([value.ravel() for value in result.weights.values()])


def assert_same(one: TrialResult, other: TrialResult) -> None:
    """Two results are the same bit for bit, and so is what they can go on from; time apart."""
    np.testing.assert_array_equal(flat(one), flat(other))
    for name in ("weights", "average", "memory", "steps", "rows_seen", "strategy", "look", "diverged_at", "stopped"):
        np.testing.assert_array_equal(getattr(state_of(one), name), getattr(state_of(other), name), err_msg=name)
    for name in ("trial", "steps", "rows_seen", "epochs", "kept", "diverged_at", "stopped"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("step", "epoch", "rows_seen", "train_loss", "validation_loss", "last_validation_loss", "portions"):
        np.testing.assert_array_equal(getattr(one.curve, name), getattr(other.curve, name), err_msg=name)


@BACKENDS
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: f"{strategy.kind}-{getattr(strategy, 'growth', '')}")
@pytest.mark.parametrize("optimizer", [Sgd(momentum=0.9), AdamW()], ids=["momentum", "adamw"])
def test_a_training_in_parts_is_one_training_bit_for_bit(backend: str, strategy: Strategy, optimizer: Optimizer) -> None:
    for more in ({}, {"averaging": False, "schedule": Schedule(kind="cosine", warmup=0.3)}):
        plan = plan_of(backend, optimizer=optimizer, **more)
        whole, parts = trained(strategy, plan, marks=HALTS), in_parts(strategy, plan)
        for one, other in zip(whole, parts, strict=True):
            assert_same(one, other)
            assert other.curve.wall_seconds == sorted(other.curve.wall_seconds)
            if strategy.adapts:
                assert state_of(one).strategy != strategy  # it has grown


@BACKENDS
def test_where_nobody_looked_changes_no_bit_either(backend: str) -> None:
    plan = plan_of(backend, optimizer=AdamW())
    for one, other in zip(trained(MiniBatch(batch_rows=16), plan, marks=[1000]), in_parts(MiniBatch(batch_rows=16), plan), strict=True):
        np.testing.assert_array_equal(flat(one), flat(other))
        assert one.curve.validation_loss[-1] == other.curve.validation_loss[-1]


@pytest.mark.parametrize("limit", [{"max_steps": 120}, {"max_rows": 777}, {}], ids=["steps", "rows", "epochs"])
@pytest.mark.parametrize("strategy", [Growing(batch_rows=4, growth="schedule", epochs=1), Growing(batch_rows=4), MiniBatch(batch_rows=7)])
def test_going_on_ends_where_the_plan_ends_and_no_later(strategy: Strategy, limit: dict[str, int]) -> None:
    plan = plan_of("kernels", **limit)
    for one, other in zip(trained(strategy, plan), in_parts(strategy, plan, (50, 555, 10_000, 20_000)), strict=True):
        assert (one.steps, one.rows_seen) == (other.steps, other.rows_seen)
        np.testing.assert_array_equal(flat(one), flat(other))


@BACKENDS
def test_trials_that_have_left_stay_as_they_were_and_the_others_go_on(backend: str) -> None:
    plan = plan_of(backend, epochs=100)
    trials = [Trial(0.01, 0), Trial(1e9, 0)]
    calm, wild = whole = trained(MiniBatch(batch_rows=16), plan, trials, Linear(), marks=[2500, 3000, 5000])
    assert wild.diverged_at is not None
    assert calm.diverged_at is None
    for one, other in zip(whole, in_parts(MiniBatch(batch_rows=16), plan, (2500, 3000, 5000), trials=trials, model=Linear()), strict=True):
        assert_same(one, other)


def test_what_cannot_go_on_is_refused() -> None:
    strategy, plan = MiniBatch(batch_rows=16), plan_of("kernels")
    early, late = (state_of(trained(strategy, plan, marks=[halt])[0]) for halt in (100, 200))
    with pytest.raises(ValueError, match="stand at one place, these at 2"):
        trained(strategy, plan, TRIALS[:2], begun=[early, late])
    with pytest.raises(ValueError, match="other than its last weights cannot go on"):
        trained(strategy, plan_of("kernels", patience=3), TRIALS[:1], begun=[early])


# Marks and stops


@BACKENDS
def test_losses_are_looked_at_when_so_many_rows_have_first_been_seen_and_the_last_mark_ends_it(backend: str) -> None:
    def seen(marks: list[float], **plan: Any) -> list[int]:
        (result,) = trained(MiniBatch(batch_rows=64), plan_of(backend, **plan), TRIALS[:1], marks=marks)
        assert (result.rows_seen, result.steps) == (result.curve.rows_seen[-1], result.curve.step[-1])
        return result.curve.rows_seen

    assert seen([1, 64, 64.5, 100, 190, 230]) == [0, 64, 128, 192, 264]  # steps end at 64, 128, 192, 200, 264, …
    assert seen([50, 10_000]) == [0, 64, 1000]
    assert seen([50, 10_000], max_rows=300) == [0, 64, 328]


@BACKENDS
def test_a_training_that_is_told_to_stop_has_all_trials_at_the_same_rows_and_can_go_on(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchlab.engine.loop.RUN_ROWS", 60)
    strategy, plan, marks = MiniBatch(batch_rows=16), plan_of(backend), [100, 700]
    answers = chain([False, False, False], repeat(True))
    stopped = trained(strategy, plan, marks=marks, should_stop=lambda: next(answers))
    assert {result.rows_seen for result in stopped} == {
        248
    }  # runs of 64, 48, 64 and 72 rows: one ends at the mark, one holds an epoch's short step
    assert {tuple(result.curve.rows_seen) for result in stopped} == {(0, 112, 248)}
    rest = trained(strategy, plan, marks=marks, begun=[state_of(result) for result in stopped])
    for one, other in zip(trained(strategy, plan, marks=marks), rest, strict=True):
        np.testing.assert_array_equal(flat(one), flat(other))
        assert (one.steps, one.rows_seen, one.curve.rows_seen) == (other.steps, 712, [0, 112, 712])


# Divisions

POOL = rows(120)
ORDERS = np.array([np.random.default_rng(number).permutation(120) for number in range(3)], np.int32)
DIVISIONS = Divisions(ORDERS[:, :80], ORDERS[:, 80:])


def divided() -> TrainingData:
    """Three divisions of a pool into 80 training and 40 validation rows."""
    return replace(POOL, divisions=DIVISIONS, population=Population(80))


def alone(division: int) -> TrainingData:
    """The rows of one division by themselves."""
    train_rows, held_out = torch.from_numpy(DIVISIONS.train[division]), torch.from_numpy(DIVISIONS.validation[division])
    return TrainingData(
        POOL.features[train_rows], POOL.target[train_rows], POOL.features[held_out], POOL.target[held_out], Population(80), 1
    )


@BACKENDS
@pytest.mark.parametrize(
    "strategy", [FullBatch(), MiniBatch(batch_rows=16), Growing(batch_rows=2), DataLoader(batch_rows=16)], ids=lambda item: item.kind
)
def test_a_trial_of_a_division_is_the_same_trial_on_just_those_rows(backend: str, strategy: Strategy) -> None:
    trials = [Trial(0.01, seed, division=division) for seed, division in ((0, 0), (0, 1), (5, 1), (5, 2))]
    model, plan, loss = Mlp(widths=(5,)), plan_of(backend), Loss("mse")
    for trial, result in zip(trials, train(divided(), model, strategy, trials, plan, loss, CPU), strict=True):
        (expected,) = train(alone(trial.division), model, strategy, [Trial(0.01, trial.seed)], plan, loss, CPU)
        assert result.steps == expected.steps
        atol = 0 if backend == "kernels" else 1e-12
        np.testing.assert_allclose(flat(result), flat(expected), rtol=0, atol=atol)
        np.testing.assert_allclose(result.curve.train_loss, expected.curve.train_loss, rtol=0, atol=atol)
        np.testing.assert_allclose(result.curve.portions, expected.curve.portions, rtol=0, atol=atol)


def test_other_divisions_of_the_same_pool_are_evaluated_on_their_own_rows() -> None:
    data = divided()
    first = data.evaluated_in(0)
    turned = replace(data, divisions=Divisions(DIVISIONS.train[::-1], DIVISIONS.validation[::-1])).evaluated_in(0)
    for one, other in zip(turned, divided().evaluated_in(2), strict=True):
        assert torch.equal(one[0], other[0])
    assert not torch.equal(first[1][0], turned[1][0])


def test_thinned_divisions_are_evaluated_on_some_of_their_own_rows_evenly_spread_and_train_on_all() -> None:
    few = divided().thinned(20, 10, seed=0)
    assert few.divisions is not None
    for division in range(3):
        (train_rows, _), (held_out, _) = few.evaluated_in(division)
        assert (len(train_rows), len(held_out)) == (20, 10)
        assert torch.equal(held_out, POOL.features[torch.from_numpy(DIVISIONS.validation[division, ::4])])
    np.testing.assert_array_equal(few.divisions.train, DIVISIONS.train)
    assert len(few.thinned(5, 100, seed=0).evaluated_in(0)[1][0]) == 10


def test_trials_of_one_seed_in_several_divisions_are_counted_with_an_order_each() -> None:
    arguments = (divided(), Linear(), MiniBatch(batch_rows=16))
    needed = footprint(*arguments, plan_of("kernels"), CPU).of(2, seeds=2)
    trials = [Trial(0.01, 0, division=division) for division in range(3)]
    assert replicas_that_fit(*arguments, trials, plan_of("kernels"), CPU, needed) == 2
