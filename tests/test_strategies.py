"""Contract of every strategy: pure in (seed, epoch), every row exactly once an epoch, ragged tails weighted by their rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.errors import BadInput
from batchlab.strategies import STRATEGIES, Population, Strategy
from batchlab.strategies.accumulated import Accumulated
from batchlab.strategies.data_loader import DataLoader
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.growing import Growing
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.strategies.stochastic import Stochastic


def population(rows: int) -> Population:
    rng = np.random.default_rng(rows)
    return Population(rows, classes=rng.integers(0, 3, rows), weights=rng.random(rows) + 0.1)


def variants(rows: int) -> list[Strategy]:
    """Every registered strategy with its defaults, and every way of sampling, with batches that leave a ragged tail."""
    made = [kind(batch_rows=rows) if "batch_rows" in kind.model_fields else kind() for kind in STRATEGIES.values()]
    return [
        *made,
        Accumulated(portion_rows=7),
        MiniBatch(batch_rows=7),
        MiniBatch(batch_rows=7, shuffled=False),
        *(DataLoader(batch_rows=7, sampling=way) for way in SAMPLINGS),
    ]


SAMPLINGS = ("shuffled", "sequential", "stratified")


@given(rows=st.integers(7, 200), seed=st.integers(0, 2**31), epoch=st.integers(0, 50))
def test_every_row_comes_exactly_once_an_epoch(rows: int, seed: int, epoch: int) -> None:
    for strategy in variants(rows):
        order = np.concatenate([block for step in strategy.order(population(rows), seed, epoch) for block in step])
        np.testing.assert_array_equal(np.sort(order), np.arange(rows), err_msg=repr(strategy))


@given(rows=st.integers(7, 200), seed=st.integers(0, 2**31))
def test_the_order_depends_on_seed_and_epoch_alone(rows: int, seed: int) -> None:
    for strategy in [*variants(rows), DataLoader(batch_rows=7, sampling="weighted")]:
        first, again = (list(strategy.order(population(rows), seed, epoch=3)) for _ in range(2))
        for one, other in zip(first, again, strict=True):
            for block, same in zip(one, other, strict=True):
                np.testing.assert_array_equal(block, same)


@pytest.mark.parametrize("strategy", [MiniBatch(batch_rows=10), Stochastic(), DataLoader(batch_rows=10)])
def test_shuffled_orders_differ_between_epochs_and_seeds(strategy: Strategy) -> None:
    orders = [
        tuple(np.concatenate([step[0] for step in strategy.order(Population(50), seed, epoch)])) for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    assert len(set(orders)) == 3


@given(rows=st.integers(7, 100))
def test_a_step_has_the_rows_that_the_strategy_states(rows: int) -> None:
    for strategy in variants(rows):
        sizes = [sum(len(block) for block in step) for step in strategy.order(population(rows), 0, 0)]
        stated = strategy.rows_per_step(rows)
        assert sizes[:-1] == [stated] * (len(sizes) - 1)
        assert 0 < sizes[-1] <= stated


def test_full_batch_and_accumulated_make_one_update_an_epoch() -> None:
    assert [len(step) for step in FullBatch().order(Population(20), 0, 0)] == [1]
    assert [len(block) for block in next(iter(Accumulated(portion_rows=8).order(Population(20), 0, 0)))] == [8, 8, 4]


def test_weighted_sampling_draws_rows_in_proportion_to_their_weights() -> None:
    weights = np.array([0.0, 1.0, 3.0])
    strategy = DataLoader(batch_rows=3, sampling="weighted", weight_column="w")
    drawn = np.concatenate([step[0] for epoch in range(2000) for step in strategy.order(Population(3, weights=weights), 0, epoch)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / len(drawn), [0, 0.25, 0.75], atol=0.02)


def test_stratified_batches_keep_the_shares_of_the_classes() -> None:
    classes = np.repeat([0, 1, 2], [600, 300, 100])
    strategy = DataLoader(batch_rows=50, sampling="stratified")
    for step in strategy.order(Population(1000, classes=classes), 0, 0):
        counts = np.bincount(classes[step[0]], minlength=3)
        assert (np.abs(counts - [30, 15, 5]) <= 2).all()


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (MiniBatch(batch_rows=512), "batch_rows is 512 but the training split has 353 rows; use at most 353, or the full_batch strategy."),
        (DataLoader(batch_rows=354), "batch_rows is 354 but the training split has 353 rows"),
        (DataLoader(sampling="stratified"), "sampling 'stratified' needs classes, but the task is regression"),
        (DataLoader(sampling="weighted"), "sampling 'weighted' needs weight_column"),
    ],
)
def test_a_strategy_that_does_not_fit_the_rows_is_refused(strategy: Strategy, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        strategy.check(Population(353))
    assert expected in str(caught.value)


@given(rows=st.integers(7, 60), seed=st.integers(0, 100), epoch=st.integers(0, 20))
def test_strategies_that_say_they_update_alike_make_the_same_steps(rows: int, seed: int, epoch: int) -> None:
    for strategy in variants(rows):
        own, shared = strategy.order(population(rows), seed, epoch), strategy.updates.order(population(rows), seed, epoch)
        np.testing.assert_array_equal(own.rows, shared.rows)
        np.testing.assert_array_equal(own.steps, shared.steps)


def test_a_growing_batch_doubles_on_schedule_up_to_its_limit() -> None:
    growing = Growing(batch_rows=4, growth="schedule", epochs=3, most_rows=20)
    sizes = [int(growing.order(Population(100), 0, epoch).steps[0]) for epoch in range(12)]
    assert sizes == [4] * 3 + [8] * 3 + [16] * 3 + [20] * 3
    assert int(Growing(batch_rows=4, growth="schedule", epochs=1).order(Population(10), 0, 9).steps[0]) == 10


@pytest.mark.parametrize(
    ("noise", "expected"), [(3.0, 4), (7.9, 4), (8.0, 8), (100.0, 64), (math.inf, 512)], ids=["below", "almost", "twice", "far", "no end"]
)
def test_a_growing_batch_becomes_what_the_noise_asks_for(noise: float, expected: int) -> None:
    assert Growing(batch_rows=4, most_rows=1000).adapted(noise).batch_rows == expected
    assert Growing(batch_rows=64).adapted(3.0).batch_rows == 64
