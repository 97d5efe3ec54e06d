"""The gate: what is better passes, what may be chance, is broken or harms somebody does not, and every decision says why."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.signal import lfilter

from batchlab.errors import BadInput
from batchlab.retraining.calibration import calibration_error
from batchlab.retraining.drift import ColumnDrift, Drift
from batchlab.retraining.gate import Contestant, Holdout, decide
from batchlab.retraining.improvement import Numbers, best_scatter, chance_of_no_harm, holm, improvement, in_blocks
from batchlab.retraining.promotion import Guard, Promotion
from batchlab.rules.retraining import GateRule
from benchmarks.gate import PROBLEMS, repeated

RULE = GateRule()
ROWS, FEATURES, SEEDS = 4_000, 20, 5


def trained_errors(rng: np.random.Generator, excess: float) -> Numbers:
    """Errors of linear weights as training leaves them: in a random direction, costing about `excess` of squared error."""
    direction = rng.standard_normal(FEATURES)
    return direction * math.sqrt(excess * (1 + 0.3 * rng.uniform(-1, 1)) / (direction @ direction))


def retrained(seed: int, effect: float = 0.0, rows: int = ROWS, rule: GateRule = RULE) -> Promotion:
    """The gate's word on a linear regression trained again with other seeds, the champion worse by `effect` of its loss."""
    rng = np.random.default_rng(seed)
    features, noise = rng.standard_normal((rows, FEATURES)), rng.standard_normal(rows)
    trained = [(noise - features @ trained_errors(rng, 0.003)) ** 2 for _ in range(SEEDS)]
    champion = (noise - features @ trained_errors(rng, 0.003 + 1.003 * effect / (1 - effect))) ** 2
    sides = (Contestant(losses, noise[:, None], version) for version, losses in ((1, champion), (2, trained[0])))
    return decide(*sides, [float(losses.mean()) for losses in trained], Holdout(noise), rule)


def contest(
    better_by: float = 0.2, rows: int = 1_000, rule: GateRule = RULE, holdout: Holdout | None = None, **challenger: object
) -> Promotion:
    """The gate's word on a challenger whose every loss is lower by a share, but for what is said of it."""
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=rows)
    champion = Contestant(losses, losses[:, None], 1, 1e-6, 1_000, losses[:200])
    side = Contestant(losses * (1 - better_by), losses[:, None], 2, 1e-6, 1_000, losses[:200])
    seeds = [float(side.losses.sum() / max(rows, 1)) * share for share in (0.9999, 1.0, 1.0001)]
    return decide(champion, replace(side, **challenger), seeds, holdout or Holdout(losses), rule)  # type: ignore[arg-type]


def failed(promotion: Promotion) -> list[str]:
    return [guard.name for guard in promotion.failed]


def test_a_retrain_with_other_seeds_is_refused_and_two_minimum_effects_are_promoted() -> None:
    assert sum(retrained(seed).wins for seed in range(40)) <= 1
    assert sum(retrained(seed, 2 * RULE.minimum_effect).wins for seed in range(40)) >= 34


def test_real_trainings_come_out_as_the_page_says() -> None:
    linear = PROBLEMS[0]
    same, planted = zip(*(repeated(linear, number) for number in range(5)), strict=True)
    assert [case.planted for case in linear.cases] == [0.0, 2 * RULE.minimum_effect]
    assert not any(outcome.promotion.wins for outcome in same)
    assert sum(outcome.promotion.wins for outcome in planted) >= 4


def test_the_interval_covers_the_true_improvement_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        before = rng.exponential(1.0, 600)
        after, scatter = 0.9 * before + 0.3 * rng.standard_normal(600), 0.02
        drawn = 1 + math.sqrt(2) * scatter * rng.standard_normal()  # both sides' luck with their seeds
        found = improvement(before, after + drawn - 1, 0.9 + scatter * rng.standard_normal(SEEDS), 0.975)
        covered += found.low <= 0.1 <= found.high
    assert 135 <= covered <= 150  # 95% of 150 are 142


def test_the_best_of_several_seeds_scatters_less_than_one() -> None:
    drawn, shares = np.random.default_rng(0).standard_normal((2, 4_000, 8)), (0.0, 0.8, 1.0)
    for share in shares:
        losses, validation = drawn[0], share * drawn[0] + math.sqrt(1 - share**2) * drawn[1]
        shipped = losses[np.arange(4_000), validation.argmin(1)]
        found = [best_scatter(*both) for both in zip(losses[:500], validation[:500], strict=True)]
        assert math.sqrt(np.square(found).mean()) == pytest.approx(shipped.std(), rel=0.07)
    assert math.isnan(best_scatter([1.0]))
    assert best_scatter([1.0, 3.0], [1.0, 3.0]) == best_scatter([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert best_scatter([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0.0
    assert best_scatter([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]) == 1.0


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_other_seeds_alone_are_promoted_no_oftener_than_the_confidence_allows(share: float) -> None:
    promoted, rng = 0, np.random.default_rng(1)
    for _ in range(200):
        losses = 1 + 0.02 * rng.standard_normal((2, 8))
        validation = share * losses + math.sqrt(1 - share**2) * (1 + 0.02 * rng.standard_normal((2, 8)))
        champion, challenger = (side[best] for side, best in zip(losses, validation.argmin(1), strict=True))
        rows = np.ones(50)
        promoted += improvement(champion * rows, challenger * rows, losses[1], 0.95, validation[1]).low > 0
    assert promoted <= 14  # 5% of 200 are 10


def test_neighbours_that_are_alike_do_not_count_as_much_evidence() -> None:
    sure = {"in time": 0, "shuffled": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        moods = lfilter([1.0], [1.0, -0.7], rng.standard_normal(2_000))  # each is 0.7 of the one before, and something of its own
        before, order = np.full(2_000, 10.0), rng.permutation(2_000)
        for name, after in (("in time", before + moods), ("shuffled", (before + moods)[order])):
            sure[name] += improvement(before, after, [10.0, 10.0], 0.975).low > 0
    assert sure["in time"] <= 6
    assert sure["shuffled"] > 1.5 * sure["in time"]  # what taking rows for independent would claim


def test_the_same_decision_twice_is_the_same() -> None:
    assert retrained(3, 0.02) == retrained(3, 0.02)


def test_a_promotion_says_its_numbers_and_survives_json() -> None:
    promotion = contest()
    assert (promotion.decision, promotion.champion, promotion.challenger) == ("promoted", 1, 2)
    assert promotion.improvement == pytest.approx(0.2)
    assert "20.00% lower" in promotion.text
    assert "1,000 holdout rows" in promotion.text
    assert Promotion.model_validate_json(promotion.model_dump_json()) == promotion


def test_a_refusal_names_in_its_sentence_all_that_failed() -> None:
    losses = np.random.default_rng(0).exponential(size=1_000)
    text = contest(-0.5, holdout=Holdout(losses, quarantined_share=0.2)).text
    assert text.startswith("The champion is kept. The challenger's mean loss is 50.00% higher")
    assert text.endswith(" Not met either: contract, slices.")
    spoilt = contest(0.2, holdout=Holdout(losses, quarantined_share=0.2)).text
    assert spoilt == "The champion is kept. 20.00% of the fresh rows could not be used; only 5.00% are allowed."


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["losses", "predictions", "old_losses", "seconds_per_row", "seed_losses"])
def test_what_is_not_finite_never_wins(place: str, value: float) -> None:
    losses = np.random.default_rng(0).exponential(size=500)
    spoilt = {"losses": losses / 2, "predictions": losses[:, None] / 2, "old_losses": losses / 2}
    for name in spoilt.keys() & {place}:
        spoilt[name] = np.where(np.arange(500) == 77, value, spoilt[name].T).T
    challenger = Contestant(**spoilt, version=2, seconds_per_row=value if place == "seconds_per_row" else 1e-6)
    seeds = [0.5, value if place == "seed_losses" else 0.5, 0.5]
    holdout = Holdout(losses, constant_losses=10 * losses)
    for champion in (Contestant(losses, losses[:, None], 1, 1e-6, None, losses), None, Contestant(losses * math.nan, losses[:, None], 1)):
        promotion = decide(champion, challenger, seeds, holdout, RULE)
        alone = champion is None or not math.isfinite(champion.loss)
        assert promotion.decision == "kept" or (alone and place == "seconds_per_row")  # which has nothing to be compared with
        assert promotion.reasons


def test_a_broken_champion_loses_only_to_a_finite_challenger() -> None:
    losses = np.ones(400)
    broken = Contestant(np.where(np.arange(400) == 5, math.nan, losses), losses[:, None], 7)
    won = decide(broken, Contestant(losses, losses[:, None], 8), [1.0, 1.0], Holdout(losses, constant_losses=2 * losses), RULE)
    assert (won.decision, won.champion_loss) == ("promoted", None)
    assert "champion's mean loss on the 400 holdout rows is not finite" in won.text
    useless = decide(broken, Contestant(losses, losses[:, None], 8), [1.0, 1.0], Holdout(losses, constant_losses=losses / 2), RULE)
    assert useless.decision == "kept"
    assert failed(useless) == ["constant"]
    assert decide(broken, replace(broken, version=8), [1.0, 1.0], Holdout(losses), RULE).decision == "kept"


def test_the_first_champion_has_to_beat_a_constant() -> None:
    losses = np.linspace(0, 2, 50)
    first = decide(None, Contestant(losses, losses[:, None], 1), [1.0], Holdout(losses, constant_losses=losses + 1), RULE)
    assert (first.decision, first.champion, first.improvement) == ("first", None, None)
    useless = decide(None, Contestant(losses, losses[:, None], 1), [1.0], Holdout(losses, constant_losses=losses), RULE)
    assert useless.decision == "kept"
    assert useless.text.startswith("There is still no champion. Its mean loss is 1, not below the 1 of")


def test_what_cannot_be_told_is_refused_with_the_reason() -> None:
    assert "which may be chance" not in contest().text
    few = contest(rows=99)
    assert (few.decision, failed(few)) == ("kept", ["rows"])
    assert "99 holdout rows; a decision needs 100 or more" in few.text
    small = contest(better_by=0.005)
    assert (small.decision, failed(small)) == ("kept", [])
    assert "less than the minimum effect of 1.00%" in small.text
    losses = np.ones(300)
    side = Contestant(losses / 2, losses[:, None], 2)
    alone = decide(Contestant(losses, losses[:, None], 1), side, [0.5], Holdout(losses), RULE)
    assert failed(alone) == ["seeds"]
    assert "surely worse" in contest(better_by=-0.05).text


def test_equal_and_perfect_champions_are_kept() -> None:
    same = contest(better_by=0.0)
    assert (same.decision, same.improvement) == ("kept", 0.0)
    nothing = np.zeros(200)
    for losses in (nothing, nothing + 1e-9):
        perfect = decide(
            Contestant(nothing, losses[:, None]),
            Contestant(losses, losses[:, None]),
            [0.0, 0.0],
            Holdout(nothing),
            GateRule(minimum_effect=0),
        )
        assert perfect.decision == "kept"
        assert "leaves nothing to improve" in " ".join(perfect.reasons)


def test_rows_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(BadInput, match="no rows"):
        contest(rows=0)
    with pytest.raises(ValueError, match="999 values for 1000 holdout rows"):
        contest(losses=np.ones(999))


def test_a_time_or_a_group_that_is_much_worse_blocks_a_better_mean() -> None:
    rng = np.random.default_rng(1)
    champion = rng.exponential(size=2_000)
    cities = rng.choice(["Rome", "Oslo", "Bern"], 2_000, p=[0.6, 0.3, 0.1])
    late, in_bern = np.arange(2_000) >= 1_500, cities == "Bern"
    for harmed, name in ((late, "period 4 of 4"), (in_bern, "city = Bern")):
        losses = np.where(harmed, 1.5, 0.5) * champion
        sides = Contestant(champion, champion[:, None], 1), Contestant(losses, losses[:, None], 2)
        promotion = decide(*sides, [float(losses.mean())] * 2, Holdout(champion, labels={"city": cities}), RULE)
        assert promotion.improvement is not None
        assert promotion.improvement > 0.1
        assert (promotion.decision, failed(promotion)) == ("kept", ["slices"])
        assert name in promotion.text
    assert {item.name for item in promotion.slices} >= {"period 1 of 4", "city = Rome", "city = Oslo", "city = Bern"}


def test_many_small_groups_do_not_block_by_chance() -> None:
    blocked = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal(4_000)
        champion, losses = (noise + 0.4 * rng.standard_normal(4_000)) ** 2, (noise + 0.3 * rng.standard_normal(4_000)) ** 2
        shops = [*rng.integers(0, 100, 3_990), *(None,) * 5, *("rare",) * 5]
        sides = Contestant(champion, champion[:, None], 1), Contestant(losses, losses[:, None], 2)
        promotion = decide(*sides, [float(losses.mean())] * 2, Holdout(noise, labels={"shop": shops}), RULE)
        assert sum(item.harm > RULE.largest_harm for item in promotion.slices) >= 5  # by chance alone
        assert not {"shop = None", "shop = rare"} & {item.name for item in promotion.slices}
        blocked += "slices" in failed(promotion)
    assert blocked <= 1


def test_overconfident_probabilities_block_a_lower_loss() -> None:
    rng = np.random.default_rng(0)
    truly = rng.uniform(0.02, 0.98, 6_000)
    truth = (rng.random(6_000) < truly).astype(np.int64)
    vague, sure = 0.5 + 0.3 * (truly - 0.5), np.clip(0.5 + 1.3 * (truly - 0.5), 0.01, 0.99)
    both = [np.stack([1 - probability, probability], axis=1) for probability in (vague, sure, truly)]
    assert calibration_error(truth, both[2]) < 0.02
    assert calibration_error(truth, both[0]) == pytest.approx(0.7 * np.abs(truly - 0.5).mean(), abs=0.02)
    losses = [-np.log(outputs[np.arange(6_000), truth]) for outputs in both]
    sides = [Contestant(loss, outputs, version) for version, (loss, outputs) in enumerate(zip(losses, both, strict=True), start=1)]
    holdout = Holdout(truth, classes=2)
    promotion = decide(sides[2], replace(sides[1], losses=losses[2] * 0.9), [0.5, 0.5], holdout, RULE)
    assert failed(promotion) == ["calibration"]
    assert "its probabilities are off by" in promotion.text.lower()
    assert decide(sides[0], sides[2], [losses[2].mean()] * 2, holdout, RULE).decision == "promoted"


def test_calibration_of_several_classes_is_their_average() -> None:
    truth = np.repeat([0, 1, 2], 400)
    known = np.eye(3)[truth]
    assert calibration_error(truth, known) == 0
    assert calibration_error(truth, np.full((1_200, 3), 1 / 3)) == pytest.approx(0)
    assert calibration_error(truth, np.tile([1.0, 0.0, 0.0], (1_200, 1))) == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) / 3)


@pytest.mark.parametrize(
    ("guard", "challenger", "words"),
    [
        ("latency", {"seconds_per_row": 2.1e-6}, "takes 2.1 times as long"),
        ("size", {"size_bytes": 3_001}, "3 times as large"),
        ("forgetting", {"old_losses": np.random.default_rng(0).exponential(size=1_000)[:200] * 1.2}, "200 old holdout rows"),
    ],
)
def test_a_guard_blocks_what_the_mean_does_not_see(guard: str, challenger: dict[str, object], words: str) -> None:
    promotion = contest(**challenger)
    assert failed(promotion) == [guard]
    assert words in promotion.text
    assert "lower" in promotion.reasons[1]


def test_unusable_rows_block_and_drift_is_told_or_blocks() -> None:
    column = ColumnDrift(name="x", kind="number", psi=1.0, p_value=0.0, drifted=True, missing_before=0, missing_now=0, change="")
    drifted = Drift(columns=(column,), target=column, predictions=None, reference_rows=9, fresh_rows=9, drifted=True, text="x drifted.")
    truth = np.ones(1_000)
    assert failed(contest(holdout=Holdout(truth, quarantined_share=0.06))) == ["contract"]
    told = contest(holdout=Holdout(truth, drift=drifted))
    assert told.decision == "promoted"
    assert "x drifted." in told.reasons
    assert failed(contest(holdout=Holdout(truth, drift=drifted), rule=GateRule(on_drift="keep"))) == ["drift"]


@pytest.mark.parametrize(
    "change",
    [
        {"guards": (Guard(name="finite", passed=True, said=""), Guard(name="rows", passed=False, said=""))},
        {"guards": ()},
        {"improvement": math.nan},
        {"improvement": math.inf},
        {"improvement": 0.009},
        {"interval": (0.0, 0.3)},
        {"interval": (math.nan, 0.3)},
        {"challenger_loss": math.inf},
        {"seed_losses": (0.5, math.nan)},
        {"reasons": ()},
        {"decision": "first"},
    ],
)
def test_a_promotion_without_evidence_cannot_be_made(change: dict[str, object]) -> None:
    made = contest().model_dump()
    assert Promotion.model_validate(made).decision == "promoted"
    with pytest.raises(ValidationError):
        Promotion.model_validate(made | change)
    if "reasons" not in change and "decision" not in change:
        assert Promotion.model_validate(made | change | {"decision": "kept"}).decision == "kept"


losses_of_any_kind = st.lists(st.floats(0, 1e308) | st.sampled_from([0.0, 1.0, math.nan, math.inf]), min_size=12, max_size=12)


@given(champion=losses_of_any_kind, challenger=losses_of_any_kind, seeds=st.lists(st.floats(), min_size=1, max_size=4))
def test_whatever_the_losses_a_decision_is_made(champion: list[float], challenger: list[float], seeds: list[float]) -> None:
    sides = [Contestant(np.array(losses), np.zeros((12, 1)), version) for version, losses in ((1, champion), (2, challenger))]
    rule = GateRule(fewest_rows=10)
    for first in (sides[0], None):
        promotion = decide(first, sides[1], seeds, Holdout(np.zeros(12)), rule)
        assert promotion.decision == "kept" or np.isfinite([*challenger, *seeds]).all()
        assert promotion.text


def test_corrections_and_blocks_are_what_they_are_defined_to_be() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # statsmodels' multipletests, method holm
    assert in_blocks(np.ones(27)).tolist() == [3.0] * 9
    assert len(in_blocks(np.ones(2_000_000))) == 1_000
    assert in_blocks(np.ones(10)).sum() == 10
    assert chance_of_no_harm(np.ones(90), np.ones(90)) == 1
    assert chance_of_no_harm(np.ones(90), 2 * np.ones(90)) == 0
