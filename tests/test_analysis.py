"""The analysis on constructed curves and numbers whose right answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchlab.analysis.curves import HELD, crossing
from batchlab.analysis.estimates import Estimate, LogMean, Spread, log_mean, ratio
from batchlab.analysis.frontier import fitted
from batchlab.analysis.noise import noise_scale

DRAWS, RESAMPLES = 10, 200


@given(st.floats(0.2, 1e9), st.floats(0.5, 0.9999))
def test_an_interval_reaches_as_far_as_the_t_distribution_says(degrees: float, confidence: float) -> None:
    from scipy import stats

    found = LogMean(0.0, (Spread(1e-6, degrees),)).interval(confidence)
    reach = 1e-3 * float(stats.t.ppf(0.5 + confidence / 2, degrees))
    assert math.log(found.high) == pytest.approx(reach, rel=1e-9, abs=1e-12)


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


def test_a_dip_below_the_target_counts_from_where_it_is_held_and_no_target_is_met_below_all_losses() -> None:
    assert HELD == 2
    assert crossing([0, 1, 2, 3, 4, 5], [4, 1, 4, 2, 1, 1], 2) == 3
    assert crossing([0, 1, 2, 3], [4, 3, 2, 1], 2) == 2
    assert math.isnan(crossing([0, 1, 2], [4, 3, 2], 1.9))


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


def resampled(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over draws `[sizes, draws]` as they are, then of resamples that are alike for all sizes `[sizes, 1 + resamples]`."""
    chosen = np.random.default_rng(0).integers(draws.shape[1], size=(RESAMPLES, draws.shape[1]))
    return np.column_stack([draws.mean(1), draws[:, chosen].mean(2)])


def test_the_frontier_recovers_what_was_planted() -> None:
    sizes = np.array([4, 16, 64, 256, 1024])
    planted = np.repeat(50 + 8000 / sizes[:, None], 1 + RESAMPLES, axis=1)
    exact = fitted(sizes.tolist(), planted)
    assert exact is not None
    assert (exact.smallest_steps, exact.smallest_rows, exact.critical_batch.value) == pytest.approx((50, 8000, 160), rel=1e-6)
    assert exact.misfit == pytest.approx(0, abs=1e-6)
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(20):
        noisy = fitted(sizes.tolist(), resampled(planted[:, :DRAWS] * np.exp(0.15 * rng.normal(size=(len(sizes), DRAWS)))))
        assert noisy is not None
        assert not noisy.poor
        assert noisy.within
        covered += noisy.critical_batch.holds(160)
    assert covered >= 17


def test_one_column_of_steps_is_enough_for_a_frontier() -> None:
    found = fitted([4, 16, 64], [[50 + 8000 / size] for size in (4, 16, 64)])
    assert found is not None
    assert found.critical_batch.value == pytest.approx(160, rel=1e-6)
    assert found.steps_at(8) == pytest.approx(1050, rel=1e-6)
    assert not found.within


def test_what_all_draws_have_in_common_widens_no_critical_batch() -> None:
    sizes, rng = np.array([4, 16, 64, 256]), np.random.default_rng(7)
    shift = np.exp(0.3 * rng.normal(size=DRAWS))  # a draw that needs more steps at one size needs more at all
    found = fitted(sizes.tolist(), resampled((50 + 8000 / sizes[:, None]) * shift))
    assert found is not None
    assert found.critical_batch.high / found.critical_batch.low < 1.001


def test_a_frontier_that_is_none_is_called_poor_and_two_points_are_no_frontier() -> None:
    zigzag = fitted([4, 16, 64, 256], [[100.0] * 5, [10.0] * 5, [100.0] * 5, [10.0] * 5])
    assert zigzag is not None
    assert zigzag.poor
    assert fitted([4, 16], [[100.0], [50.0]]) is None
