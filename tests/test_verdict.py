"""The verdict on constructed outcomes whose right choice is known: loss first, cost second."""

import math
import zlib
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from batchlab.analysis.objectives import Objective
from batchlab.analysis.verdict import CHEAP_SECONDS, MEASURES, Choice, Outcome, Pair, chosen, paired

Numbers = NDArray[np.float64]
DRAWS, ROUNDS, RESAMPLES = 10, 8, 200
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


def outcome(
    label: str,
    *,
    loss: float = 1.0,
    loss_scatter: float = 0.002,
    steps: float = 20_000,
    step_scatter: float = 0.1,
    seconds: float = 1e-3,
    batch_rows: int = 8,
    peak_bytes: float = 1e6,
    reached: bool = True,
    draws: int = DRAWS,
    rounds: int = ROUNDS,
    rng: np.random.Generator | None = None,
    **fields: Any,
) -> Outcome:
    """Return a setting whose draws scatter about `loss` and about `steps` to the target, and whose rounds of timing do by 3% about
    `seconds` a step. All draws share a shift of 10% in their losses; whole trainings have 100,000 steps."""
    rng = rng or np.random.default_rng(zlib.crc32(label.encode()))
    shift = np.exp(0.1 * np.random.default_rng(0).normal(size=draws))
    ways = steps * np.exp(step_scatter * rng.normal(size=draws)) if reached else np.full(draws, math.nan)
    resampled = np.array([ways.mean(), *ways[np.random.default_rng(1).integers(draws, size=(RESAMPLES, draws))].mean(1)])
    made = Outcome(
        label=label,
        name=label.split()[0],
        batch_rows=batch_rows,
        learning_rate=0.1,
        losses=loss * shift * np.exp(loss_scatter * rng.normal(size=draws)),
        portions=None,
        steps=resampled,
        rows=resampled * batch_rows,
        budget_steps=100_000.0,
        budget_rows=100_000.0 * batch_rows,
        seconds_per_step=seconds * np.exp(0.03 * rng.normal(size=rounds)),
        peak_bytes=peak_bytes * np.exp(0.01 * rng.normal(size=3)),
        test_loss=np.ones(draws),
    )
    return replace(made, **fields)


def over_rows(item: Outcome, scatter: float, rng: np.random.Generator) -> Outcome:
    """Return the outcome with 16 portions of validation rows that scatter about its losses."""
    return replace(item, portions=item.losses[:, None] * (1 + scatter * rng.normal(size=16)))


def choice_of(*items: Outcome, objective: Objective = "best", margin: float = 0.01) -> Choice:
    found = chosen(items, objective, margin)
    assert found is not None
    return found


def beside(choice: Choice) -> Pair:
    assert choice.runner_up is not None
    return choice.runner_up


def test_of_settings_that_are_as_good_the_cheapest_is_recommended_with_its_ratio_to_the_others() -> None:
    items = [outcome("full_batch", steps=60_000), outcome("mini_batch 8", steps=6_000), outcome("mini_batch 32", steps=18_000)]
    choice = choice_of(*items)
    assert choice.label == "mini_batch 8"
    assert choice.sure
    assert not choice.cheap
    assert choice.value == choice.loss
    assert choice.seconds.holds(6)
    assert set(choice.as_good) == {"full_batch", "mini_batch 32"}
    assert choice.full_batch is not None
    assert beside(choice).label == "mini_batch 32"
    assert beside(choice).detectable
    assert beside(choice).ratio == pytest.approx(3, rel=0.15)
    assert choice.full_batch.ratio == pytest.approx(10, rel=0.15)
    assert choice.ties == ()


def test_a_lower_loss_wins_over_any_cost() -> None:
    choice = choice_of(outcome("mini_batch 8", loss=0.9, steps=90_000, seconds=0.1), outcome("quick", loss=1.0, steps=100))
    assert (choice.label, choice.best, choice.as_good) == ("mini_batch 8", "mini_batch 8", ())
    assert beside(choice).worse
    assert beside(choice).loss_ratio == pytest.approx(1 / 0.9, rel=0.01)


def above(item: Outcome, ratio: float, scatter: float) -> Numbers:
    """Return losses whose mean is so many times the item's, and whose ratio to them scatters from draw to draw."""
    losses = item.losses * np.exp(scatter * np.random.default_rng(3).normal(size=DRAWS))
    return losses * ratio * item.loss / losses.mean()


def test_a_loss_within_the_margin_is_as_good_only_where_it_is_not_detectably_worse() -> None:
    best, quick = outcome("best", steps=90_000), outcome("quick", steps=500)
    hardly, surely = (replace(quick, losses=above(best, 1.005, scatter)) for scatter in (0.03, 0.001))
    assert (choice_of(best, hardly).label, choice_of(best, hardly).as_good) == ("quick", ("best",))
    assert (choice_of(best, surely).label, choice_of(best, surely).as_good) == ("best", ())


@pytest.mark.parametrize(("margin", "expected"), [(0.01, "accurate"), (0.04, "accurate"), (0.06, "quick")])
def test_the_margin_is_respected(margin: float, expected: str) -> None:
    accurate, quick = outcome("accurate", steps=90_000), outcome("quick", steps=500)
    quick = replace(quick, losses=above(accurate, 1.05, scatter=0.2))
    assert not paired(quick, accurate, "best").worse
    assert choice_of(accurate, quick, margin=margin).label == expected


@pytest.mark.parametrize("seed", range(5))
def test_nothing_that_is_detectably_worse_than_what_people_type_is_recommended(seed: int) -> None:
    rng = np.random.default_rng(seed)
    typed = outcome("typed batch 32 adam 0.001", steps=80_000)
    worse = outcome("mini_batch 8", steps=500, losses=1.005 * typed.losses * np.exp(0.001 * rng.normal(size=DRAWS)))
    lucky = outcome("mini_batch 512", steps=90_000, losses=above(typed, 0.999, scatter=0.2))  # its scatter hides what `typed` shows
    assert paired(worse, typed, "best").worse
    assert not paired(worse, lucky, "best").worse
    choice = choice_of(typed, worse, lucky)
    assert choice.best == "mini_batch 512"
    assert choice.label != "mini_batch 8"
    assert "mini_batch 8" not in choice.as_good


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_recommended_for_its_loss_no_setting_is_detectably_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = [
        outcome(
            f"mini_batch {place}", loss=rng.uniform(1, 1.03), loss_scatter=rng.choice([0.002, 0.02]), steps=rng.uniform(1e3, 9e4), rng=rng
        )
        for place in range(12)
    ]
    for objective in ("best", "loss"):
        choice = choice_of(*items, objective=objective)
        best = next(item for item in items if item.label == choice.label)
        assert not any(paired(best, other, "best").worse for other in items if other is not best)
        assert best.loss <= 1.01 * choice.best_loss.value


def test_draws_that_share_rows_choose_alike_and_call_fewer_worse() -> None:
    """A loss 0.6% higher where differences of single draws scatter by 0.4%: sure for the rows of one table, and not for new ones."""
    best, close = (
        outcome(label, loss=loss, loss_scatter=0.003, seconds=cost) for label, loss, cost in (("a", 1, 1e-2), ("b", 1.006, 1e-3))
    )
    for overlap, worse in ((0.0, True), (1 / 3, False)):
        choice = choice_of(replace(best, overlap=overlap), replace(close, overlap=overlap))
        assert (choice.label, choice.as_good, beside(choice).worse) == ("a", (), worse)


def test_where_every_training_takes_less_than_a_second_cost_decides_nothing() -> None:
    accurate, quick = outcome("accurate", loss=0.999, steps=90_000), outcome("quick", loss=1.0, steps=100)
    costly = choice_of(accurate, quick)
    cheap = choice_of(*(replace(item, seconds_per_step=item.seconds_per_step / 150) for item in (accurate, quick)))
    assert (costly.cheap, costly.label) == (False, "quick")
    assert (cheap.cheap, cheap.label, cheap.ties) == (True, "accurate", ("quick",))
    assert accurate.training_seconds / 150 < CHEAP_SECONDS < accurate.training_seconds


def test_every_objective_has_its_own_winner() -> None:
    items = [
        outcome("quick", steps=1_000, batch_rows=64, peak_bytes=4e6, loss=1.2),
        outcome("frugal", steps=4_000, batch_rows=8, peak_bytes=3e6, loss=1.3),
        outcome("small", steps=9_000, batch_rows=8, peak_bytes=1e6, loss=1.1),
        outcome("accurate", reached=False, batch_rows=8, peak_bytes=5e6, loss=0.5),
    ]
    winners = {objective: choice_of(*items, objective=objective).label for objective in OBJECTIVES}
    expected = {"best": "accurate", "time": "quick", "rows": "frugal", "memory": "small", "loss": "accurate"}
    assert winners.items() >= expected.items()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_an_objective_ranks_by_and_says_and_compares_is_one_measure(objective: Objective) -> None:
    one = outcome("one", steps=4_000, batch_rows=8, peak_bytes=3e6, loss=1.3)
    other = outcome("other", steps=9_000, batch_rows=16, peak_bytes=4e6, loss=1.6, seconds=2e-3)
    measure = MEASURES[objective]
    values = [measure.value(item) for item in (one, other)]
    assert [value.low < value.value < value.high for value in values] == [True, True]
    assert measure.over(other, one).interval().value == pytest.approx(values[1].value / values[0].value, rel=0.01)
    assert choice_of(other, one, objective=objective).label == min((one, other), key=measure.rank).label == "one"


def test_every_objective_says_its_own_value() -> None:
    item = outcome("only", steps=5_000, batch_rows=4, peak_bytes=3e6)
    values = {objective: choice_of(item, objective=objective).value for objective in OBJECTIVES}
    assert values["best"] == values["loss"] == item.loss_estimate()
    assert {name: found.value for name, found in values.items() if name in ("time", "rows", "memory")} == pytest.approx(
        {"time": 5, "rows": 20_000, "memory": 3e6}, rel=0.15
    )


def test_a_setting_that_does_not_reach_the_target_stands_behind_those_that_do() -> None:
    choice = choice_of(outcome("hot", reached=False, budget_steps=50.0), outcome("steady"), objective="time")
    assert (choice.label, choice.ties, choice.sure) == ("steady", (), True)
    assert beside(choice).at_least
    assert math.isinf(beside(choice).ratio_ci[1])


def test_where_no_setting_reaches_the_target_the_best_is_named_and_not_sure() -> None:
    items = (outcome("worse", reached=False, loss=2.0), outcome("better", reached=False))
    for objective in OBJECTIVES:
        choice = choice_of(*items, objective=objective)
        assert (choice.label, choice.sure) == ("better", False)


def test_a_setting_that_never_gets_there_counts_as_at_least_its_budget() -> None:
    pair = paired(outcome("full_batch", reached=False), outcome("mini_batch 8", steps=10_000), "time")
    assert pair.at_least
    assert pair.detectable
    assert pair.ratio == pytest.approx(10, rel=0.15)


def test_a_curve_that_begins_at_the_target_has_a_finite_ratio_to_one_that_does_not() -> None:
    at_once = outcome("at once", steps=0, step_scatter=0)
    for objective in ("rows", "time"):
        found = paired(outcome("mini_batch 8"), at_once, objective)
        assert 0 < found.ratio < math.inf
        assert np.isfinite(found.ratio_ci).all()


def test_all_diverged_is_no_choice_and_one_setting_has_no_runner_up() -> None:
    now_and_then = outcome("b", losses=np.array([1.0, math.inf] * 5))
    assert now_and_then.status == "diverged"
    assert (now_and_then.loss, now_and_then.loss_estimate().low, now_and_then.loss_of_one_more().high) == (math.inf, 0, math.inf)
    for objective in OBJECTIVES:
        assert chosen([now_and_then, now_and_then], objective) is None
        assert chosen([], objective) is None
        alone = choice_of(outcome("a"), now_and_then, objective=objective)
        assert (alone.label, alone.runner_up) == ("a", None)


def test_a_setting_left_behind_is_never_chosen_and_is_compared_all_the_same() -> None:
    left = outcome("mini_batch 512", loss=0.5, steps=10, behind=True)
    kept = outcome("mini_batch 8", loss=1.0)
    assert left.status == "behind"
    assert choice_of(left, kept).label == "mini_batch 8"
    assert chosen([left]) is None
    assert paired(left, kept, "time").at_least


def test_equal_steps_and_seconds_are_a_tie() -> None:
    twin = outcome("twin")
    choice = choice_of(twin, twin)
    assert (beside(choice).ratio, beside(choice).detectable, beside(choice).worse, choice.ties) == (1, False, False, ("twin",))


@pytest.mark.parametrize("step_scatter", [0.05, 0.3])
def test_two_names_for_one_strategy_are_called_equal_in_95_of_100(step_scatter: float) -> None:
    rng, detected, worse = np.random.default_rng(7), 0, 0
    for _ in range(400):
        choice = choice_of(*(outcome(name, step_scatter=step_scatter, rng=rng) for name in ("a", "b")))
        detected += beside(choice).detectable
        worse += beside(choice).worse
    assert detected <= 20
    assert worse <= 20


def test_a_difference_of_one_and_a_half_in_cost_is_found_in_95_of_100() -> None:
    rng, found = np.random.default_rng(8), 0
    for _ in range(400):
        choice = choice_of(*(outcome(name, steps=steps, step_scatter=0.15, rng=rng) for name, steps in (("a", 10_000), ("b", 15_000))))
        found += choice.label == "a" and beside(choice).detectable
    assert found >= 380


@pytest.mark.parametrize("portions", [False, True])
def test_a_difference_of_a_twentieth_in_loss_is_found_in_90_of_100(portions: bool) -> None:
    rng, found = np.random.default_rng(9), 0
    for _ in range(200):
        items = [outcome(name, loss=loss, loss_scatter=0.02, rng=rng) for name, loss in (("a", 1.0), ("b", 1.05))]
        choice = choice_of(*(over_rows(item, 0.015, rng) for item in items) if portions else items)
        found += choice.label == "a" and beside(choice).worse
    assert found >= 180


def test_the_interval_of_a_loss_covers_its_mean_about_95_times_in_100_and_that_of_one_more_the_next_training() -> None:
    rng, held, next_one = np.random.default_rng(10), 0, 0
    for _ in range(1000):
        item = outcome("a", losses=2 + 0.3 * rng.normal(size=6))
        held += item.loss_estimate().holds(2)
        next_one += item.loss_of_one_more().holds(2 + 0.3 * rng.normal())
    assert 935 <= held <= 965
    assert 935 <= next_one <= 965


@pytest.mark.parametrize(("draws", "least"), [(12, 915), (20, 930)])
def test_the_interval_of_losses_that_lie_askew_holds_nearly_as_often(draws: int, least: int) -> None:
    rng, held = np.random.default_rng(13), 0
    for _ in range(1000):
        held += outcome("a", losses=0.06 * rng.gamma(3.3, 1 / 3.3, size=draws)).loss_estimate().holds(0.06)  # of skewness 1.1
    assert held >= least


def test_an_interval_of_a_loss_never_ends_below_nothing_and_reaches_further_above() -> None:
    found = outcome("a", losses=np.array([0.1, 0.2, 1.5])).loss_estimate()
    assert 0 < found.low < found.value
    assert found.high - found.value > found.value - found.low
    assert found.low * found.high == pytest.approx(found.value**2)


def test_scatter_over_shared_validation_rows_widens_the_interval_of_a_loss() -> None:
    rng = np.random.default_rng(11)
    item = outcome("a", loss_scatter=0.0)
    narrow, wide = item.loss_estimate(), over_rows(item, 0.5, rng).loss_estimate()
    assert narrow.value == wide.value
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


@pytest.mark.parametrize("portions", [False, True])
def test_intervals_are_finite_with_two_draws(portions: bool) -> None:
    rng = np.random.default_rng(12)
    items = [outcome(name, draws=2, rng=rng) for name in ("a", "b", "c")]
    items = [over_rows(item, 0.1, rng) for item in items] if portions else items
    for objective in OBJECTIVES:
        choice = choice_of(*items, objective=objective)
        estimates = (choice.value, choice.loss, choice.one_more, choice.seconds, choice.best_loss)
        assert np.isfinite([[item.value, item.low, item.high] for item in estimates]).all()
        assert np.isfinite([*beside(choice).ratio_ci, *beside(choice).loss_ratio_ci]).all()


def test_equal_draws_have_an_interval_of_no_width() -> None:
    found = outcome("a", losses=np.full(3, 2.0)).loss_estimate()
    assert (found.value, found.low, found.high) == (2, 2, 2)


@pytest.mark.parametrize(("own", "its"), [(8, 2), (2, 8), (4, 5), (2, 2)])
def test_settings_with_timings_of_different_lengths_can_be_compared(own: int, its: int) -> None:
    choice = choice_of(outcome("quick", steps=5_000, rounds=own), outcome("slow", steps=50_000, rounds=its))
    assert (choice.label, beside(choice).label) == ("quick", "slow")
    assert beside(choice).ratio == pytest.approx(10, rel=0.15)
    assert beside(choice).ratio_ci[0] < 10 < beside(choice).ratio_ci[1]


def test_a_peak_that_was_not_measured_decides_nothing_and_breaks_nothing() -> None:
    unknown = np.full(2, math.nan)
    choice = choice_of(outcome("a", peak_bytes=2e6), replace(outcome("b"), peak_bytes=unknown), objective="memory")
    assert (choice.label, beside(choice).detectable) == ("a", False)


def test_a_loader_that_makes_the_same_updates_is_recommended_only_where_it_is_detectably_quicker() -> None:
    plain = outcome("mini_batch 8", seconds=1.0)
    as_quick = plain.seconds_per_step * (1 + 0.02 * np.cos(np.pi * np.arange(ROUNDS)) - 0.001)
    loader = replace(plain, label="data_loader 8", name="data_loader", seconds_per_step=as_quick)
    found = chosen([plain, loader, outcome("full_batch", loss=2.0)])
    assert found is not None
    assert found.label == "mini_batch 8"
    quicker = replace(loader, seconds_per_step=plain.seconds_per_step * 0.5)
    found = chosen([plain, quicker, outcome("full_batch", loss=2.0)])
    assert found is not None
    assert found.label == "data_loader 8"
