"""The verdict in words: what comes in which order, what is said of loss and of cost, and what was left out."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from batchlab.analysis.verdict import Pair
from batchlab.analysis.yardsticks import BOOSTING, LEAST_SQUARES
from batchlab.engine.records import Curve
from batchlab.report.brief import brief
from batchlab.report.wording import against, beside, left_words, listed, verdict_text
from batchlab.search.findings import Finding, Findings, on_its_way
from batchlab.search.search import Search
from batchlab.search.standings import Left
from batchlab.snippets.quantities import number
from tests.verdicts import again, changed, cheap, dear, departed, further, losing, missed, ruined, without


def pair(ratio: float, low: float, high: float, *, at_least: bool = False, loss: float = 1.0) -> Pair:
    """Another setting that takes so many times as much, and has so many times the loss."""
    return Pair(label="b", ratio=ratio, ratio_ci=(low, high), at_least=at_least, loss_ratio=loss, loss_ratio_ci=(loss, loss))


def test_the_text_says_setting_loss_cost_batch_sizes_typed_yardstick_and_what_was_left_out_in_this_order(found: Findings) -> None:
    short = dear(replace(found, left_out={"peak memory": "no time", "loaders": "no time", "sorted order": "it would take a copy"}))
    setting, loss, cost, sizes, typed, yardstick, search = verdict_text(short).splitlines()
    best, choice = short.best, short.choice
    assert best is not None
    assert choice is not None
    rows, epochs = best.outcome.budget_rows, best.outcome.budget_rows / found.row_count
    candidate, at = best.candidate, choice.loss
    assert setting.startswith(
        f"Train with {candidate.name}, batch_rows {candidate.batch_rows}, {candidate.optimizer.kind} at learning rate "
    )
    steps = number(best.outcome.budget_steps)
    length = f"{rows:,.0f} rows ({epochs:.3g} epochs, {steps} steps)"
    assert setting.endswith(f"learning rate {best.learning_rate:g} and averaged weights, for {length}.")
    one = f"of a single training {choice.one_more.low:.4g}–{choice.one_more.high:.4g}"
    assert loss.startswith(f"Its validation loss is {at.value:.4g} (95% CI {at.low:.4g}–{at.high:.4g}; {one}), ")
    assert loss.endswith(f"; on the test rows {best.outcome.test_loss.mean():.4g}.")
    assert cost.startswith(f"It reaches validation loss {found.target_loss:.4g} (the best loss plus 5.0%) in ")
    assert re.search(r"critical batch size", sizes, re.IGNORECASE)
    assert "throughput knee" in sizes
    assert "memory ceiling" in sizes
    assert typed.startswith("What people type: batch 32 adam 0.001 ")
    assert "; batch 10 sgd 0.01 " in typed
    assert yardstick.startswith("No yardstick is detectably better; the best one, ")
    assert search.startswith(f"The search itself: {found.trials:,} trainings, ")
    left_out = "Left out: peak memory and loaders (no time); sorted order (it would take a copy)."
    assert search.endswith(f" of the 2 min that it was given. {left_out}")


def test_where_no_training_takes_a_second_cost_does_not_matter_and_the_lowest_loss_decides(found: Findings) -> None:
    quick = cheap(found)
    assert quick.choice is not None
    assert quick.choice.label == quick.choice.best
    _, loss, cost, *_ = verdict_text(quick).splitlines()
    assert ", the lowest of all that were confirmed; " in loss
    assert cost.startswith(
        "Every training takes this engine less than a second, so what one costs does not matter, and the lowest loss decides."
    )
    assert "faster" not in verdict_text(quick)
    assert "as long to the target" not in verdict_text(quick)


def test_where_cost_matters_the_cheapest_of_those_as_good_is_named_beside_the_lowest_loss(found: Findings) -> None:
    costly = dear(found, dict.fromkeys(_alike(found), 1000.0))
    choice = costly.choice
    assert choice is not None
    _, loss, cost, *_ = verdict_text(costly).splitlines()
    assert choice.best in _alike(found)
    assert choice.label not in _alike(found)
    assert f", as good as the lowest of all that were confirmed ({choice.best_loss.value:.4g}, {choice.best}); " in loss
    assert cost.startswith("It reaches validation loss ")


def test_where_cost_is_what_decides_the_loss_is_said_to_lie_above_the_lowest_one(found: Findings) -> None:
    worse = changed(found, lambda item: losing(item, 1.0 if item.candidate.label in _alike(found) else 1.02))
    quick = dear(worse, dict.fromkeys(_alike(found), 1000.0), "time")
    choice = quick.choice
    assert choice is not None
    others = [item for item in (*quick.settings, *quick.typed) if item.outcome.status == "reached"]
    assert choice.label == min(others, key=lambda item: item.seconds.value).candidate.label
    above = choice.loss.value / choice.best_loss.value - 1
    assert above >= 0.02
    assert f", {above:.1%} above the lowest of all that were confirmed (" in verdict_text(quick)


def _alike(found: Findings) -> set[str]:
    """Return the labels of the setting with the lowest loss: several, where more than one row of the table trains so."""
    best = min((*found.settings, *found.typed), key=lambda item: item.outcome.loss)
    return {item.candidate.label for item in (*found.settings, *found.typed) if item.candidate.setting == best.candidate.setting}


@pytest.mark.parametrize(
    ("objective", "words"),
    [("rows", "after [0-9,.M]+ rows"), ("memory", "with a peak of [0-9.]+ KiB"), ("time", "in [0-9.]+ s"), ("loss", "in [0-9.,]+ s")],
)
def test_the_cost_is_told_in_what_the_objective_goes_by(objective: str, words: str, found: Findings) -> None:
    text = verdict_text(dear(found, objective=objective))  # type: ignore[arg-type]
    assert re.search(rf"\nIt reaches validation loss {found.target_loss:.4g} \(the best loss plus 5.0%\) {words}", text)


def test_a_target_that_was_given_is_not_said_to_be_the_best_loss(found: Findings) -> None:
    assert "the best loss plus" not in verdict_text(replace(dear(found), target_given=True))


def test_a_target_that_nobody_reached_or_only_others_is_said_so(found: Findings) -> None:
    nobody = changed(dear(found), missed)
    assert f"\nNo setting reached validation loss {found.target_loss:.4g} (the best loss plus 5.0%) within " in verdict_text(nobody)
    chosen = dear(found)
    assert chosen.best is not None
    assert chosen.choice is not None
    label = chosen.choice.label
    lost = [missed(item) if item.candidate.label == label else item for item in chosen.settings]
    others = [item.candidate.label for item in (*lost, *chosen.typed) if item.outcome.status == "reached"]
    text = verdict_text(replace(chosen, settings=lost, choice=chosen.choice.model_copy(update={"sure": False})))
    assert f"\nIt does not reach validation loss {found.target_loss:.4g} (the best loss plus 5.0%); {listed(others)} do.\n" in text


def test_when_everything_diverged_the_text_says_so_and_names_no_setting(found: Findings) -> None:
    text = verdict_text(ruined(found))
    assert text.startswith("Every setting that was searched diverged: nothing is recommended; see the reasons.\n")
    assert "Train with" not in text
    assert "What people type" not in text


def test_what_people_type_that_left_the_race_is_named_with_when_and_both_losses(searched: Search, found: Findings) -> None:
    typed = found.typed[0].candidate
    behind = departed(searched, typed.setting).findings
    left = behind.of(typed.label).left
    assert left is not None
    own, leaders = (f"{loss * found.loss_unit:.4g}" for loss in (left.loss, left.leader_loss))
    label, losses = typed.label.removeprefix("typed "), f"loss {own} against the leader's {leaders}{further(left)}"
    said = f"What people type: {label} was behind after {left.rows:,} rows: {losses}; batch 10"
    assert said in verdict_text(behind)


def test_both_numbers_of_rows_are_said_where_one_that_left_had_seen_others_than_the_leader(found: Findings) -> None:
    leader = found.settings[0].candidate.setting
    left = Left("behind", 20_000, 0.5, leader, 20_000, 0.25)
    assert left_words(left, 2.0) == "behind after 20,000 rows: loss 1 against the leader's 0.5"
    assert left_words(replace(left, leader_rows=35_000), 2.0) == "behind after 20,000 rows: loss 1 against the leader's 0.5 after 35,000"


def test_what_people_type_that_time_left_unconfirmed_is_not_compared(searched: Search, found: Findings) -> None:
    typed = found.typed[0].candidate
    short = again(searched, without(searched.known, typed.setting)).findings
    words = verdict_text(short).split(f"{typed.label.removeprefix('typed ')} was ")[1].split(";")[0]
    assert re.match(r"(behind|not confirmed for lack of time|left for lack of time)", words)
    assert "cannot be told" not in words


@pytest.mark.parametrize(
    ("other", "objective", "words"),
    [
        (pair(4.0, 3.0, 5.0), "best", "4× faster than b (3–5)"),
        (pair(4.0, 3.0, math.inf, at_least=True), "time", "at least 4× faster than b (over 3)"),
        (pair(4.0, 3.0, 5.0), "rows", "4× fewer rows than b (3–5)"),
        (pair(2.0, 1.5, 2.5), "memory", "2× less memory than b (1.5–2.5)"),
        (pair(1.0, 0.9, 1.1, loss=1.25), "loss", "20.0% lower loss than b"),
        (pair(0.25, 0.2, 0.5, loss=1.1), "best", "4× slower than b (2–5), whose loss is 10.0% higher"),
        (pair(0.5, 0.4, 0.8, loss=1.3), "memory", "2× more memory than b (1.25–2.5), whose loss is 30.0% higher"),
    ],
)
def test_another_setting_is_named_with_how_many_times_and_in_which_direction(other: Pair, objective: str, words: str) -> None:
    assert against(other, objective) == words  # type: ignore[arg-type]


def test_of_many_names_the_first_few_are_listed() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefg")) == "a, b, c, d and 3 more"


def test_a_setting_that_time_let_see_few_rows_is_told_with_its_rows(found: Findings) -> None:
    typed = found.typed[0].candidate.label

    def hasty(item: Finding) -> Finding:
        return replace(losing(item, 40.0), outcome=replace(losing(item, 40.0).outcome, budget_rows=12.0))

    short = changed(found, lambda item: hasty(item) if item.candidate.label == typed else item)
    said = beside(short, short.of(typed))
    assert re.search(r"^has a loss [\d.]+% higher after 12 rows", said)
    (line,) = [line for line in brief(short) if line.item.candidate.label == typed]
    assert re.fullmatch(r"loss \+[\d.]+% at 12 rows", line.cells[-1])
    whole = changed(found, lambda item: losing(item, 40.0) if item.candidate.label == typed else item)
    assert "rows" not in beside(whole, whole.of(typed))


def test_who_does_better_on_the_test_rows_is_said_only_where_these_rows_agree(searched: Search) -> None:
    known, best = searched.known, searched.findings.best
    assert best is not None
    own = best.candidate.setting
    other = next(item.candidate for item in searched.findings.settings if item.candidate.setting != own)
    losses, portions = known.test_losses[own], known.test_portions[own]
    steady = np.full(portions.shape[1], 0.8)
    for factors, said in ((steady, True), (steady + np.linspace(-0.79, 0.79, len(steady)), False)):
        lower = portions.mean(0) * factors
        tests = {**known.test_losses, other.setting: losses * lower.mean() / portions.mean()}
        parts = {**known.test_portions, other.setting: portions * lower / portions.mean(0)}
        notes = again(searched, replace(known, test_losses=tests, test_portions=parts)).findings.notes
        assert any(f"on the test rows {other.label} does better: mean loss" in note for note in notes) == said


def early(found: Findings, share: float = 0.1) -> Findings:
    """Return the findings as if the recommended setting's training had been ended after this share of its budget."""
    assert found.best is not None
    return replace(found, budget_rows=round(found.race.entries[found.best.candidate.setting].rows / share))


def test_a_training_that_time_ended_on_its_way_says_so_first_and_boasts_of_nothing(found: Findings) -> None:
    best = found.best
    assert best is not None
    assert not found.cut_short
    falling = [replace(result, curve=_halved(result.curve)) for result in best.results]
    fallen = changed(found, lambda item: replace(item, results=falling) if item is best else item)
    assert not fallen.cut_short, "one that saw its whole budget was not ended by time"
    short = early(fallen)
    assert short.cut_short
    first, second, *_ = verdict_text(short).splitlines()
    rows, steps = best.outcome.budget_rows, best.outcome.budget_steps
    assert first.endswith(
        f"; but there was time for {rows:,.0f} rows ({number(rows / found.row_count)} epochs, {number(steps)} steps) "
        "only, and over their second half its loss still fell by 50%: a longer search finds a lower loss, and perhaps another setting."
    )
    assert second.startswith("Its validation loss is ")
    assert "does not matter" not in verdict_text(short)


def _halved(curve: Curve) -> Curve:
    """Return a curve whose loss has fallen to half over the second half of its rows."""
    last = curve.rows_seen[-1]
    return replace(curve, rows_seen=[0, last // 2, last], validation_loss=[2.0, 2.0, 1.0])


def test_a_verdict_on_what_nothing_has_confirmed_yet_says_that_it_is_the_best_so_far(found: Findings) -> None:
    first, second, *_ = verdict_text(replace(early(found), confirmed=False)).splitlines()
    assert "; but there was time for " in first
    assert ", the lowest so far; " in second


def test_of_what_nothing_has_confirmed_no_equality_is_claimed(found: Findings) -> None:
    text = verdict_text(replace(early(found), confirmed=False))
    assert "was not confirmed either: its loss was " in text
    assert "cannot be told from it" not in text.split("What people type")[1].splitlines()[0]


def test_a_loss_hardly_below_a_constants_after_few_rows_is_on_its_way_and_says_nothing_of_the_data(searched: Search) -> None:
    best = searched.findings.best
    assert best is not None
    steady = [replace(result, curve=replace(_halved(result.curve), validation_loss=[1.0, 1.0, 1.0])) for result in best.results]
    for raced, loss, way in ((0.001, 1.9, True), (0.001, 1.0, False), (0.5, 1.9, False), (0.9, 2.1, False)):
        item = replace(best, results=steady, outcome=replace(best.outcome, losses=np.full(4, loss)))
        assert on_its_way(item, raced, 2.0, confirmed=True) == way, (raced, loss)


def test_where_time_was_short_a_better_yardstick_is_no_reason_for_another_model(found: Findings) -> None:
    better = [item.model_copy(update={"beats": item.key == "boosting"}) for item in found.yardsticks]
    assert ": use that, or give the search more time.\n" in verdict_text(replace(early(found), yardsticks=better, confirmed=False))


def test_where_a_yardstick_is_better_the_setting_is_an_if_and_a_linear_model_is_no_last_word(found: Findings) -> None:
    better = [item.model_copy(update={"beats": item.key == "boosting"}) for item in found.yardsticks]
    first, second, *_ = verdict_text(replace(found, yardsticks=better)).splitlines()
    assert first.startswith("If it is to be this linear model, train with ")
    assert second.endswith(": use that, or compare a network with --set model.kind=mlp.")
    assert found.training is not None
    network = found.training.model_copy(update={"model": {"kind": "mlp"}})
    assert ": use that, or compare another model.\n" in verdict_text(replace(found, yardsticks=better, training=network))


def test_yardsticks_that_there_was_no_time_for_are_not_said_to_be_no_better(found: Findings) -> None:
    few = [item for item in found.yardsticks if item.key == "constant"]
    missed = {LEAST_SQUARES: "no time", BOOSTING: "no time"}
    (line,) = [line for line in verdict_text(replace(found, yardsticks=few, left_out=missed)).splitlines() if "No yardstick" in line]
    assert line.startswith(f"No yardstick of those that there was time for (not {LEAST_SQUARES} and {BOOSTING}) is detectably better; ")


def test_a_difference_that_is_not_sure_is_said_to_be_unsure_in_the_table(found: Findings) -> None:
    typed, best = found.typed[0], found.best
    assert best is not None
    factors = np.geomspace(0.2, 20, len(best.outcome.losses))
    scattered = replace(typed.outcome, losses=best.outcome.losses * factors, portions=None)
    for outcome, said in ((scattered, True), (losing(typed, 40.0).outcome, False)):
        (line,) = [line for line in brief(replace(found, typed=[replace(typed, outcome=outcome)])) if line.item.candidate.typed]
        assert line.cells[-1].startswith("loss +")
        assert line.cells[-1].endswith(", unsure") == said
