"""The analysis on constructed curves and numbers whose right answer is known."""

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest

from batchlab.analysis.curves import crossing, level, target_loss
from batchlab.analysis.estimates import Estimate, log_mean, ratio
from batchlab.analysis.frontier import fitted
from batchlab.analysis.noise import noise_scale
from batchlab.analysis.verdict import Outcome, chosen, paired

SEEDS, ROUNDS = 10, 8


def outcome(
    label: str,
    steps: float = 100.0,
    seconds: float = 1e-3,
    *,
    scatter: float = 0.1,
    missed: int = 0,
    diverged: bool = False,
    peak_bytes: float = 1e6,
    loss: float = 1.0,
    batch_rows: int = 8,
    rng: np.random.Generator | None = None,
) -> Outcome:
    """Return a setting whose seeds scatter about `steps` and whose rounds of timing about `seconds` a step by 3%."""
    rng = rng or np.random.default_rng(zlib.crc32(label.encode()))
    made = steps * np.exp(scatter * rng.normal(size=SEEDS))
    made[:missed] = math.nan
    return Outcome(
        label=label,
        name=label.split()[0],
        batch_rows=batch_rows,
        learning_rate=0.1,
        diverged=diverged,
        steps=made,
        rows=made * batch_rows,
        budget_steps=1000.0,
        budget_rows=1000.0 * batch_rows,
        seconds_per_step=seconds * np.exp(0.03 * rng.normal(size=ROUNDS)),
        peak_bytes=peak_bytes * np.exp(0.01 * rng.normal(size=3)),
        validation_loss=loss * np.exp(0.01 * rng.normal(size=SEEDS)),
        test_loss=loss * np.exp(0.01 * rng.normal(size=SEEDS)),
    )


def test_an_exponential_curve_is_crossed_exactly_where_it_should_be() -> None:
    steps = np.arange(0, 100, 7)
    assert crossing(steps, np.exp(-0.05 * steps), 0.1) == pytest.approx(math.log(10) / 0.05, rel=1e-12)


def test_a_target_must_be_held_for_two_evaluations_unless_it_is_the_last() -> None:
    assert crossing([0, 1, 2, 3, 4], [4, 1, 4, 1, 1], 2) == pytest.approx(2.5)
    assert crossing([0, 1, 2], [4, 4, 1], 2) == pytest.approx(1.5)
    assert math.isnan(crossing([0, 1, 2, 3], [4, 1, 4, 4], 2))
    assert math.isnan(crossing([0, 1], [4, math.nan], 2))


def test_a_curve_that_begins_at_the_target_crosses_at_once_and_one_that_reaches_zero_is_no_error() -> None:
    assert crossing([0, 5], [1, 0.5], 2) == 0
    assert crossing([0, 10], [4, 0], 2) == pytest.approx(5)


def test_the_level_of_a_curve_is_no_lucky_point() -> None:
    assert level([5, 4, 3, 0.1, 3, 3, 3, 3]) == pytest.approx(2.42)
    assert level([3, 1]) == 2
    assert math.isinf(level([math.nan, math.nan]))


def test_the_target_leaves_a_fiftieth_of_the_way_and_is_none_where_nothing_was_learnt() -> None:
    assert target_loss(11, [1, 2, math.inf]) == pytest.approx(1.2)
    assert target_loss(1, [1, 2]) is None
    assert target_loss(1, []) is None


def test_intervals_cover_a_geometric_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    held = [log_mean(3 * np.exp(0.4 * rng.normal(size=8))).interval().holds(3) for _ in range(1000)]
    assert 0.935 <= np.mean(held) <= 0.965


def test_a_product_carries_both_uncertainties_through() -> None:
    rng = np.random.default_rng(2)
    held = []
    for _ in range(1000):
        steps, seconds = 100 * np.exp(0.2 * rng.normal(size=10)), 0.01 * np.exp(0.1 * rng.normal(size=5))
        held.append(log_mean(steps).times(log_mean(seconds)).interval().holds(1.0))
    assert 0.935 <= np.mean(held) <= 0.97


def test_equal_values_have_an_interval_of_no_width_and_one_value_has_none() -> None:
    assert ratio([2, 4], [1, 2]).interval() == Estimate(value=2, low=2, high=2)
    with pytest.raises(ValueError, match="two values or more, got 1"):
        log_mean([1.0])


@pytest.mark.parametrize(("batches", "batch_rows", "sigma", "squared"), [(256, 1, 1.0, 1.0), (128, 4, 0.5, 1.0), (256, 8, 1.0, 0.1)])
def test_the_noise_scale_of_linear_regression_is_the_exact_one_and_its_interval_covers_it(
    batches: int, batch_rows: int, sigma: float, squared: float
) -> None:
    rng, dimension, found = np.random.default_rng(3), 10, []
    exact = dimension + 1 + dimension * sigma**2 / squared  # H = I
    for _ in range(500):
        rows = rng.normal(size=(batches, batch_rows, dimension))
        error = rows @ np.full(dimension, math.sqrt(squared / dimension)) - sigma * rng.normal(size=(batches, batch_rows))
        found.append(noise_scale((rows * error[..., None]).mean(1), batch_rows))
    assert 1 / np.mean([1 / item.value for item in found]) == pytest.approx(exact, rel=0.05)
    assert 0.92 <= np.mean([item.holds(exact) for item in found]) <= 0.98


def test_the_noise_scale_with_any_covariance_is_the_exact_one() -> None:
    rng = np.random.default_rng(4)
    curvatures, delta, sigma = np.array([4.0, 2.0, 1.0, 0.5, 0.1]), np.array([0.3, -0.2, 0.5, 1.0, -2.0]), 0.7
    rows = rng.normal(size=(400_000, 5)) * np.sqrt(curvatures)
    gradients = rows * (rows @ delta - sigma * rng.normal(size=len(rows)))[:, None]
    slope = curvatures * delta
    exact = ((sigma**2 + delta @ slope) * curvatures.sum() + slope @ slope) / (slope @ slope)
    assert noise_scale(gradients, 1).value == pytest.approx(exact, rel=0.05)


def test_pure_noise_has_a_noise_scale_without_an_upper_end() -> None:
    found = noise_scale(np.random.default_rng(5).normal(size=(200, 30)), 4)
    assert math.isinf(found.high)
    with pytest.raises(ValueError, match="3 batches or more, got 2"):
        noise_scale(np.ones((2, 3)), 1)


def test_the_frontier_recovers_what_was_planted() -> None:
    sizes = [4, 16, 64, 256, 1024]
    exact = fitted(sizes, [[50 + 8000 / size] * 10 for size in sizes])
    assert exact is not None
    assert (exact.smallest_steps, exact.smallest_rows, exact.critical_batch.value) == pytest.approx((50, 8000, 160), rel=1e-6)
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(20):
        noisy = fitted(sizes, [(50 + 8000 / size) * np.exp(0.15 * rng.normal(size=10)) for size in sizes])
        assert noisy is not None
        assert not noisy.poor
        covered += noisy.critical_batch.holds(160)
    assert covered >= 17


def test_a_frontier_that_is_none_is_called_poor_and_two_points_are_no_frontier() -> None:
    zigzag = fitted([4, 16, 64, 256], [[100.0] * 5, [10.0] * 5, [100.0] * 5, [10.0] * 5])
    assert zigzag is not None
    assert zigzag.poor
    assert fitted([4, 16], [[100.0], [50.0]]) is None


def test_the_fastest_setting_is_recommended_with_its_ratio_to_the_others() -> None:
    best = chosen([outcome("full_batch", 1000), outcome("mini_batch 8", 100), outcome("mini_batch 32", 300)])
    assert best is not None
    assert best.label == "mini_batch 8"
    assert best.sure
    assert best.value.holds(0.1)
    assert best.runner_up is not None
    assert best.full_batch is not None
    assert best.runner_up.label == "mini_batch 32"
    assert best.runner_up.detectable
    assert best.runner_up.ratio == pytest.approx(3, rel=0.15)
    assert best.full_batch.ratio == pytest.approx(10, rel=0.15)
    assert best.ties == ()


def test_every_objective_has_its_own_winner() -> None:
    items = [
        outcome("quick", steps=100, batch_rows=64, peak_bytes=4e6, loss=1.2),
        outcome("frugal", steps=400, batch_rows=8, peak_bytes=3e6, loss=1.3),
        outcome("small", steps=900, batch_rows=8, peak_bytes=1e6, loss=1.1),
        outcome("accurate", steps=950, missed=10, batch_rows=8, peak_bytes=5e6, loss=0.5),
    ]
    winners = {objective: chosen(items, objective) for objective in ("time", "rows", "memory", "test_loss")}  # type: ignore[arg-type]
    assert {name: item and item.label for name, item in winners.items()} == {
        "time": "quick",
        "rows": "frugal",
        "memory": "small",
        "test_loss": "accurate",
    }


def test_a_setting_that_misses_the_target_with_one_seed_stands_behind_those_that_never_do() -> None:
    best = chosen([outcome("hot", 50, missed=1), outcome("steady", 100)])
    assert best is not None
    assert (best.label, best.ties) == ("steady", ())
    assert best.runner_up is not None
    assert best.runner_up.at_least
    assert math.isinf(best.runner_up.ratio_ci[1])


def test_where_no_setting_always_reaches_the_target_the_best_is_named_and_not_sure() -> None:
    best = chosen([outcome("half", 50, missed=5), outcome("most", 100, missed=1)])
    assert best is not None
    assert (best.label, best.sure) == ("most", False)


def test_a_censored_setting_counts_as_at_least_its_budget() -> None:
    pair = paired(outcome("full_batch", missed=SEEDS), outcome("mini_batch 8", 100), "time")
    assert pair.at_least
    assert pair.detectable
    assert pair.ratio == pytest.approx(10, rel=0.15)


def test_all_diverged_is_no_choice_and_one_setting_has_no_runner_up() -> None:
    assert chosen([outcome("a", diverged=True), outcome("b", diverged=True)]) is None
    alone = chosen([outcome("a"), outcome("b", diverged=True)])
    assert alone is not None
    assert alone.runner_up is None
    assert outcome("b", diverged=True).status == "diverged"


def test_equal_steps_and_seconds_are_a_tie() -> None:
    twin = outcome("twin")
    best = chosen([twin, twin])
    assert best is not None
    assert best.runner_up is not None
    assert (best.runner_up.ratio, best.runner_up.detectable, best.ties) == (1, False, ("twin",))


def test_of_settings_that_step_alike_and_cannot_be_told_apart_the_first_is_recommended() -> None:
    plain = outcome("plain", 100)
    slightly_faster = replace(
        plain, label="portions", seconds_per_step=plain.seconds_per_step * [0.9, 1.1, 0.95, 1.02, 0.9, 1.05, 1.0, 0.98]
    )
    much_faster = replace(plain, label="quick", seconds_per_step=plain.seconds_per_step / 2)
    for items, expected in (([plain, slightly_faster], "plain"), ([slightly_faster, plain], "portions"), ([plain, much_faster], "quick")):
        best = chosen(items)
        assert best is not None
        assert best.label == expected


@pytest.mark.parametrize("scatter", [0.05, 0.3])
def test_two_names_for_one_strategy_are_called_equal_in_95_of_100(scatter: float) -> None:
    rng = np.random.default_rng(7)
    detected = 0
    for _ in range(400):
        best = chosen([outcome("a", scatter=scatter, rng=rng), outcome("b", scatter=scatter, rng=rng)])
        assert best is not None
        assert best.runner_up is not None
        detected += best.runner_up.detectable
    assert detected <= 20


def test_a_difference_of_one_and_a_half_is_found_in_80_of_100() -> None:
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(400):
        best = chosen([outcome("a", 100, scatter=0.25, rng=rng), outcome("b", 150, scatter=0.25, rng=rng)])
        assert best is not None
        assert best.runner_up is not None
        found += best.label == "a" and best.runner_up.detectable
    assert found >= 320
