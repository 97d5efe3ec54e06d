"""Paired differences of losses, on numbers whose truth is known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from batchlab.analysis.paired import Difference, Sample, differences
from batchlab.search.terms import Terms

Numbers = NDArray[np.float64]
PORTIONS = 16


def alike(rng: np.random.Generator, count: int, draws: int, *, portions: bool = False, scatter: float = 0.05) -> list[Sample]:
    """Return settings whose losses have one mean: draws shift all of them together, and each scatters by itself."""
    shift, hardness = np.exp(0.2 * rng.normal(size=draws)), np.exp(0.3 * rng.normal(size=PORTIONS))
    found = []
    for _ in range(count):
        losses = shift * np.exp(scatter * rng.normal(size=draws))
        if portions:
            of_rows = losses[:, None] * hardness * (1 + scatter * rng.normal(size=PORTIONS))
            found.append(Sample(of_rows.mean(1), of_rows))
        else:
            found.append(Sample(losses))
    return found


def behind(samples: Sequence[Sample], error: float = 0.025) -> list[bool]:
    """Return who is surely behind the first one."""
    return [found.low(error) > 0 for found in differences(samples, 0)[1:]]


def pair(leader: Sample, other: Sample) -> Difference:
    return differences([leader, other], 0)[1]


def test_what_draws_have_in_common_cancels() -> None:
    rng = np.random.default_rng(1)
    shift, noise = np.exp(0.5 * rng.normal(size=6)), np.exp(0.005 * rng.normal(size=6))
    plain, shifted = pair(Sample(np.ones(6)), Sample(1.03 * noise)), pair(Sample(shift), Sample(1.03 * shift * noise))
    assert plain.low(0.025) > 0
    assert shifted.low(0.025) > 0
    assert shifted.value == pytest.approx(0.03, abs=0.01)
    unpaired = pair(Sample(shift), Sample(1.03 * np.exp(0.5 * rng.normal(size=6))))
    assert unpaired.low(0.025) < 0 < unpaired.high(0.025)


def test_a_common_factor_of_all_losses_changes_no_difference() -> None:
    first, second = alike(np.random.default_rng(2), 2, 5, portions=True)
    factor = 1234.5
    assert first.portions is not None
    assert second.portions is not None
    scaled = pair(Sample(factor * first.losses, factor * first.portions), Sample(factor * second.losses, factor * second.portions))
    found = pair(first, second)
    assert (scaled.value, scaled.variance, scaled.degrees) == pytest.approx((found.value, found.variance, found.degrees))


def test_hard_portions_of_the_validation_rows_cancel_and_what_portions_disagree_on_does_not() -> None:
    rng = np.random.default_rng(3)
    hard, draws = np.exp(rng.normal(size=PORTIONS)), np.exp(0.001 * rng.normal(size=(4, 1)))
    leader = Sample((draws * hard).mean(1), draws * hard)
    same_rows = 1.02 * draws * hard * np.exp(0.002 * rng.normal(size=PORTIONS))
    other_rows = 1.02 * draws * hard * np.exp(0.5 * rng.normal(size=PORTIONS))
    assert behind([leader, Sample(same_rows.mean(1), same_rows)]) == [True]
    disagreeing = Sample(1.02 * leader.losses, other_rows / other_rows.mean() * 1.02 * hard.mean())
    assert behind([leader, disagreeing]) == [False]
    assert behind([leader, Sample(1.02 * leader.losses * np.exp(0.001 * rng.normal(size=4)))]) == [True]  # draws alone would call it


@pytest.mark.parametrize(("count", "draws", "portions"), [(2, 2, False), (2, 4, True), (2, 10, False), (12, 2, False), (12, 4, True)])
def test_where_means_are_equal_false_alarms_come_about_as_often_as_allowed(count: int, draws: int, portions: bool) -> None:
    rng, runs, alarms = np.random.default_rng(4), 3000 if count == 2 else 500, {0.05: 0, 0.0125: 0}
    for _ in range(runs):
        for found in differences(alike(rng, count, draws, portions=portions), 0)[1:]:
            for error in alarms:
                alarms[error] += found.low(error) > 0
    for error, seen in alarms.items():
        assert seen / runs / (count - 1) <= error * 1.5 + 0.004


@pytest.mark.parametrize("told", [True, False])
def test_windows_in_time_that_overlap_are_no_further_rows(told: bool) -> None:
    """Four windows share three quarters of their rows: draws that each stand for one of them repeat what its rows happen to say."""
    rng, runs, draws, width, alarms = np.random.default_rng(7), 2000, 20, PORTIONS, 0
    rule = Terms(100, 1000, 10, 4, draws, False, (), rows_overlap=True)
    windows = [draw % 4 for draw in range(draws)]
    for _ in range(runs):
        rows = np.exp(0.2 * rng.normal(size=(2, width + 3 * width // 4)))
        samples = []
        for losses in rows:
            seen = np.array([losses[(3 - window) * width // 4 :][:width] for window in windows])
            seen = seen * np.exp(0.01 * rng.normal(size=(draws, 1)))
            samples.append(Sample(seen.mean(1), rule.shared(seen, windows) if told else None))
        alarms += behind(samples)[0]
    assert alarms / runs <= 0.035 if told else alarms / runs >= 0.15


@pytest.mark.parametrize("told", [True, False])
def test_divisions_of_one_table_are_no_further_rows(told: bool) -> None:
    """What a hundred rows happen to say is in every division of them, however many there are."""
    rng, runs, alarms = np.random.default_rng(8), 2000, 0
    for _ in range(runs):
        rows = np.exp(0.2 * rng.normal(size=(2, 100)))
        held = [rng.choice(100, 25, replace=False) for _ in range(20)]
        losses = np.array([rows[:, places].mean(1) for places in held]) * np.exp(0.01 * rng.normal(size=(20, 2)))
        alarms += behind([Sample(one, overlap=told * 25 / 75) for one in losses.T])[0]
    assert alarms / runs <= 0.035 if told else alarms / runs >= 0.1


def test_two_settings_alone_borrow_no_certainty_from_themselves() -> None:
    first, second = Sample(np.array([1.0, 1.0])), Sample(np.array([1.08, 1.12]))
    found = pair(first, second)
    assert (found.value, found.degrees) == (pytest.approx(0.1), 1)
    assert found.low(0.025) == pytest.approx(1.1 * math.exp(-12.706 * 0.02 / 1.1) - 1, rel=1e-3)  # t with one degree of freedom


def test_a_planted_difference_of_a_twentieth_is_found() -> None:
    rng, runs, found = np.random.default_rng(5), 400, 0
    for _ in range(runs):
        samples = alike(rng, 8, 4, portions=True, scatter=0.015)
        worse = samples[-1]
        assert worse.portions is not None
        found += behind([*samples[:-1], Sample(1.05 * worse.losses, 1.05 * worse.portions)])[-1]
    assert found >= 0.9 * runs


def test_a_loss_many_times_as_high_is_surely_higher_however_it_scatters() -> None:
    draws = np.array([1.0, 1.1, 0.9, 1.05])
    far = pair(Sample(draws, overlap=0.4), Sample(50 * np.array([1.2, 0.7, 1.3, 0.8]), overlap=0.4))
    assert far.value == pytest.approx(49, rel=0.02)
    assert far.low(0.0125) > 5
    nothing = pair(Sample(draws), Sample(np.zeros(4)))
    assert nothing.value == nothing.low(0.025) == nothing.high(0.025) == -1.0


def test_losses_that_are_not_finite_are_infinitely_far_behind() -> None:
    leader = Sample(np.array([1.0, 1.1, 1.2]))
    for spoilt in ([1.0, math.inf, 1.0], [math.nan, 1.0, 1.0], []):
        found = pair(leader, Sample(np.array(spoilt, np.float64)))
        assert found.value == found.low(1e-9) == math.inf
    steady = differences([leader, Sample(np.array([1.0, math.inf, 1.0])), Sample(np.array([1.01, 1.1, 1.2]))], 0)
    assert math.isfinite(steady[2].variance)


def test_close_settings_tell_each_other_how_much_differences_scatter() -> None:
    rng = np.random.default_rng(6)
    close = [Sample(1.02 * np.exp(0.01 * rng.normal(size=2))) for _ in range(20)]
    leader, worse = Sample(np.array([1.0, 1.01])), Sample(np.array([1.13, 1.10]))
    assert behind([leader, worse]) == [False]
    assert behind([leader, worse, *close])[0]
    assert differences([leader, worse, *close], 0)[1].degrees == 9


def test_settings_far_off_do_not_tell_how_much_close_ones_scatter() -> None:
    rng = np.random.default_rng(7)
    leader, *close = (Sample(np.exp(0.01 * rng.normal(size=3))) for _ in range(6))
    wild = [Sample(5 * np.exp(0.2 * rng.normal(size=3))) for _ in range(10)]
    assert differences([leader, *close, *wild], 0)[:6] == differences([leader, *close], 0)


def test_settings_are_compared_on_the_draws_that_they_share() -> None:
    leader = Sample(np.array([1.0, 1.1, 5.0, 7.0]))
    assert pair(leader, Sample(np.array([1.05, 1.15]))).value == pytest.approx(2.2 / 2.1 - 1)


def test_a_single_draw_says_nothing_by_itself_and_something_beside_others() -> None:
    leader, once = Sample(np.array([1.0, 1.02, 0.98])), Sample(np.array([1.3]))
    assert (pair(leader, once).low(0.025), pair(leader, once).high(0.025)) == (-1.0, math.inf)
    rng = np.random.default_rng(8)
    close = [Sample(1.02 * np.exp(0.01 * rng.normal(size=3))) for _ in range(10)]
    assert behind([leader, once, *close])[0]


def test_a_setting_is_no_distance_from_itself_and_a_loss_of_nothing_from_another() -> None:
    nothing = Sample(np.zeros(3))
    own, same, worse = differences([nothing, nothing, Sample(np.ones(3))], 0)
    assert (own.value, own.low(0.025), own.high(0.025)) == (0, 0, 0)
    assert (same.low(0.025), worse.low(0.025)) == (0, math.inf)
