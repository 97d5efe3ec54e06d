"""The first look on constructed costs: with what a race of so many seconds begins."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.engine import rates
from batchlab.engine.optimizers import AdamW, Sgd
from batchlab.experiment import Experiment
from batchlab.search.confirming import rows_looked_at
from batchlab.search.draws import sampled
from batchlab.search.known import Known, Start
from batchlab.search.looking import (
    FEWEST_DRAWS,
    FEWEST_EVALUATED,
    FEWEST_ROWS,
    FEWEST_SETTINGS,
    SHARE,
    Costs,
    first_look,
    started,
)
from batchlab.search.search import Search
from batchlab.search.space import USUAL_SIZE, Setting, widely
from batchlab.search.work import FIRST_MARKS
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.mini_batch import MiniBatch
from tests.test_race import Law, World, entry, flat, raced, standing, terms

SIZES, OPTIMIZERS = (1, 8, 32, 128, 512, 2048), (Sgd(), Sgd(momentum=0.9), AdamW())
TYPED = (Setting(MiniBatch(batch_rows=32), AdamW(), 0.001, typed=True), Setting(MiniBatch(batch_rows=10), Sgd(), 0.01, typed=True))
SEARCHED = tuple(
    Setting(MiniBatch(batch_rows=size), optimizer, rate) for size in SIZES for optimizer in OPTIMIZERS for rate in rates.first(optimizer, 5)
)
ALL = widely((*SEARCHED, *TYPED), 10_000)
HELD_OUT = 4000
SMALL_NETWORK, WIDE_NETWORK = Costs(row=2e-6, look=2e-6, stack=0.01), Costs(row=2e-4, look=3e-5, stack=0.05)


def begins(costs: Costs, seconds: float, **fields: int) -> Start:
    """Return how a race of all settings begins, its cost for looking left out."""
    return replace(started(terms(**{"draws": 4, **fields}), ALL, costs, seconds, HELD_OUT), look_seconds=0.0)


def test_where_there_is_time_a_race_begins_with_all_that_there_is() -> None:
    assert begins(SMALL_NETWORK, 600.0) == Start(2048, 4, len(ALL), HELD_OUT)


def test_without_a_limit_nothing_depends_on_what_was_measured() -> None:
    whole = Start(2048, 2, len(ALL), HELD_OUT)
    assert started(terms(), ALL, WIDE_NETWORK, math.inf, HELD_OUT) == started(terms(), ALL, SMALL_NETWORK, math.inf, HELD_OUT) == whole
    assert rows_looked_at(standing(entry(ALL[0], flat(1.0))), whole.look_seconds, 25, HELD_OUT) == HELD_OUT


def test_where_time_is_short_it_looks_at_less_then_draws_less_then_trains_less_then_begins_with_fewer_settings() -> None:
    chosen = [begins(WIDE_NETWORK, seconds) for seconds in (10_000.0, 5000.0, 2000.0, 1000.0, 500.0, 60.0, 6.0)]
    assert chosen[0] == Start(2048, 4, len(ALL), HELD_OUT)
    assert all(later.rows_evaluated <= sooner.rows_evaluated and later.settings <= sooner.settings for sooner, later in pairwise(chosen))
    for start in chosen:
        if start.rows < 2048:
            assert start.draws == FEWEST_DRAWS
        if start.settings < len(ALL):
            assert start.rows <= FEWEST_ROWS
        if start.rows < FEWEST_ROWS:
            assert start.settings == FEWEST_SETTINGS
    assert (chosen[-1].settings, chosen[-1].draws, chosen[-1].rows_evaluated) == (FEWEST_SETTINGS, FEWEST_DRAWS, FEWEST_EVALUATED)


def test_steps_that_cost_beside_their_rows_make_small_batches_dear_and_leave_the_others_their_rows() -> None:
    own = Costs(row=1e-6, look=1e-6, stack=0.01, step=1e-3, row_count=10_000)
    start = begins(own, 60.0)
    sizes = [setting.updates.rows_per_step(10_000) for setting in ALL[: start.settings]]
    assert start.rows >= FEWEST_ROWS
    assert own.of(start, ALL) <= SHARE * 60.0
    assert own.of(start, ALL) == pytest.approx(
        replace(own, step=0.0).of(start, ALL) + start.draws * sum(start.rows / size for size in sizes) * own.step
    )
    as_dear_as_the_smallest = begins(Costs(row=1e-3, look=1e-6, stack=0.01), 60.0)
    assert as_dear_as_the_smallest.settings < start.settings


def test_a_minute_for_a_wide_network_begins_with_some_settings_that_see_rows_enough_to_tell_them_apart() -> None:
    start = begins(WIDE_NETWORK, 60.0)
    assert start.rows >= FEWEST_ROWS
    assert FEWEST_SETTINGS <= start.settings < 40
    assert WIDE_NETWORK.of(start, ALL) <= SHARE * 60.0


@given(
    costs=st.builds(Costs, *[st.floats(0, 1e-2)] * 2, st.floats(0, 1)),
    seconds=st.floats(0.01, 1e6),
    draws=st.integers(1, 8),
    rows=st.integers(1, 2048),
    held_out=st.integers(1, 8192),
    count=st.integers(1, len(ALL)),
)
def test_a_first_rung_takes_its_share_of_the_time_unless_there_is_no_less_to_begin_with(
    costs: Costs, seconds: float, draws: int, rows: int, held_out: int, count: int
) -> None:
    settings = ALL[:count]
    start = started(terms(draws=draws, first_rows=rows), settings, costs, seconds, held_out)
    assert 1 <= start.rows <= rows
    assert min(draws, FEWEST_DRAWS) <= start.draws <= draws
    assert min(count, FEWEST_SETTINGS) <= start.settings <= count
    assert min(held_out, FEWEST_EVALUATED) <= start.rows_evaluated <= held_out
    fewest = Start(1, min(draws, FEWEST_DRAWS), min(count, FEWEST_SETTINGS), start.rows_evaluated, costs.look)
    assert costs.of(start, settings) <= 1.000001 * max(
        SHARE * seconds, 2 * costs.of(fewest, settings)
    )  # never more for looks than for rows


def test_the_first_few_settings_are_what_people_type_and_middle_rates_at_usual_sizes_of_every_optimizer() -> None:
    assert set(ALL[:2]) == set(TYPED)
    usual = ALL[2:5]
    assert {item.optimizer for item in usual} == set(OPTIMIZERS)
    assert {item.updates for item in usual} == {MiniBatch(batch_rows=USUAL_SIZE)}
    for item in usual:
        assert item.learning_rate == sorted(rates.first(item.optimizer, 5))[2]
    assert {item.updates for item in ALL[2 : 2 + len(SIZES) * len(OPTIMIZERS)]} == {item.updates for item in SEARCHED}
    assert sorted(map(repr, ALL)) == sorted(map(repr, (*SEARCHED, *TYPED)))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_settings_are_put_in_order_whatever_rates_and_strategies_a_user_names(count: int) -> None:
    given_rates = [0.1 * 3**place for place in range(count)]
    settings = [Setting(FullBatch(), Sgd(), rate) for rate in given_rates]
    assert sorted(item.learning_rate for item in widely(settings, 500)) == given_rates
    assert widely([], 500) == []


def test_a_first_look_tells_what_a_row_a_look_and_a_stack_take(experiment: Callable[..., Experiment]) -> None:
    search = Search(experiment("quick"))
    costs = first_look(search.worker, search.known.standings, search.terms)
    assert 0 < costs.row < 1
    assert 0 < costs.look < 1
    assert 0 <= costs.stack < 60


def test_a_search_that_is_taken_up_begins_as_it_had_begun(experiment: Callable[..., Experiment]) -> None:
    start = Start(rows=40, draws=2, settings=3, rows_evaluated=30)
    made = experiment("quick", overrides=["search.max_minutes=1"])
    standings = Search(made).known.standings
    search = Search(made, known=Known(standings=standings, start=start))
    part = next(search.parts())
    assert part.label.startswith("race")  # it has looked before
    part.run()
    trained = [entry for entry in search.known.standings.entries.values() if entry.trials]
    assert len(trained) == 3
    assert {len(entry.trials) for entry in trained} == {2}
    assert sum(entry.setting.typed for entry in trained) == 2
    assert len(search.worker.data.evaluated_in(0)[1][1]) == 30
    assert search.worker.held_out > 30


def test_no_time_at_all_still_begins_with_something_and_trains_for_as_long_as_it_looks() -> None:
    start = started(terms(), ALL, WIDE_NETWORK, 1e-9, HELD_OUT)
    looks = (1 + FIRST_MARKS) * start.rows_evaluated * WIDE_NETWORK.look
    assert start.settings == FEWEST_SETTINGS
    assert 0.9 * looks <= start.rows * WIDE_NETWORK.row <= looks
    assert started(terms(), ALL, replace(WIDE_NETWORK, look=0.0), 1e-9, HELD_OUT).rows == 1


@pytest.mark.parametrize("seconds", [6.0, 30.0, 60.0, 120.0])
def test_where_rows_are_dear_several_settings_still_race_and_none_that_begins_with_a_plateau_is_lost(seconds: float) -> None:
    """Every curve is flat for 40 steps, when the usual size at a middle rate of the optimizer that adapts is the best."""

    def law(item: Setting) -> Law:
        size = item.updates.rows_per_step(10_000)
        middle = sorted(rates.first(item.optimizer, 5))[2]
        away = abs(math.log10(item.learning_rate / middle)) + 0.1 * abs(math.log2(size / USUAL_SIZE)) + (item.optimizer != AdamW())
        return lambda rows: 1.0 if rows < 40 * size else 0.1 + 0.9 * (rows / (40 * size)) ** (-1 / (1 + away))

    costs = Costs(row=1e-4, look=2e-6, stack=0.02)
    settings = [item for item in ALL if item.updates.rows_per_step(10_000) <= 2048]
    start = started(terms(draws=4), settings, costs, seconds, HELD_OUT)
    world = World(law, a_row=lambda branch: costs.row, a_look=(1 + FIRST_MARKS) * start.rows_evaluated * costs.look, scatter=0.02)
    limits = {"limit": 0.55 * seconds, "confirming": 0.25 * seconds}
    after = raced(world, settings, first_rows=start.rows, draws=start.draws, beginners=start.settings, **limits)
    leader = after.leader
    assert leader is not None
    assert sum(len(entry.trials) > 0 and entry.rows >= leader.rows / 8 for entry in after.entries.values()) >= 4
    typed = [after.entries[item] for item in TYPED]
    assert all(entry.rows >= leader.rows / 4 for entry in typed)
    if seconds >= 30:
        assert leader.loss <= 1.02 * min(law(item)(leader.rows) for item in (*TYPED, *ALL[2:5]))


def test_looking_at_all_rows_leaves_the_data_as_they_are_and_at_fewer_takes_as_small_a_part_of_the_training_rows(
    experiment: Callable[..., Experiment],
) -> None:
    data = Search(experiment("quick", data="diabetes")).worker.data
    (_, train), (_, held_out) = data.evaluated_in(0)
    assert sampled(data, len(held_out), 0) is data
    (_, fewer_train), (_, fewer) = sampled(data, len(held_out) // 4, 0).evaluated_in(0)
    assert len(fewer) == len(held_out) // 4
    assert 0.15 * len(train) < len(fewer_train) <= len(train) / 4 + 1
