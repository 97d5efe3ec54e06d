"""The race on constructed curves: who leaves, how far whom, what is proposed and confirmed; and whole races against formulas."""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from batchlab.engine import rates
from batchlab.engine.optimizers import Adam, AdamW, Optimizer, Sgd
from batchlab.engine.records import Curve, Trial, TrialResult
from batchlab.search.confirming import FEWEST_DRAWS, FEWEST_LOOKED_AT, Aim, Confirmation, confirmations, rows_looked_at, stop_rows
from batchlab.search.judging import ERROR, JUDGED_ANYWAY, JUDGED_FROM, JUDGED_ROWS, departures, left
from batchlab.search.proposing import FINER_FROM, SIZES_FROM, proposals
from batchlab.search.race import FINALISTS, MOST_DRAWS, Goal, Rung, Seconds, ends_of, next_rung
from batchlab.search.space import Branch, Line, Setting
from batchlab.search.standings import Entry, Left, Standings
from batchlab.search.terms import Terms
from batchlab.search.work import race_marks
from batchlab.strategies import Strategy
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.mini_batch import MiniBatch

ROWS, BUDGET, FIRST_ROWS = 10_000, 1_000_000, 2048
SIZES = (8, 32, 128, 512)
OPTIMIZERS = (Sgd(), Sgd(momentum=0.9), AdamW())
Law = Callable[[float], float]
"""A setting's loss after so many rows."""


def power(floor: float, scale: float = 1.0, exponent: float = 0.5, begins: float = 100.0) -> Law:
    """Return a loss that falls from `floor` + `scale` along a power of the rows, once it has seen some."""
    return lambda rows: floor + scale * (1 + rows / begins) ** -exponent


def flat(loss: float) -> Law:
    return lambda rows: loss


def setting(
    batch_rows: int = 8, rate: float = 0.1, optimizer: Optimizer | None = None, typed: bool = False, updates: Strategy | None = None
) -> Setting:
    return Setting(updates or MiniBatch(batch_rows=batch_rows), optimizer or Sgd(), rate, typed)


def line(item: Setting) -> Line:
    """Return the line of the table that holds the setting."""
    size = item.updates.rows_per_step(ROWS)
    return Line(item.updates.kind, f"{item.updates.kind} {size}{' typed' * item.typed}", item.updates, size, item if item.typed else None)


def terms(settings: Iterable[Setting] = (), **fields: Any) -> Terms:
    lines = tuple({line(item).label: line(item) for item in settings}.values())
    usual = {
        "row_count": ROWS,
        "budget_rows": BUDGET,
        "first_rows": FIRST_ROWS,
        "draws": 2,
        "fresh_draws": 3,
        "rows_are_shared": False,
        "lines": lines,
    }
    return Terms(**{**usual, **fields})


def trial(
    item: Setting, draw: int, rows: Sequence[int], losses: Sequence[float], diverged: bool = False, row_count: int = ROWS
) -> TrialResult:
    size = item.updates.rows_per_step(row_count)
    curve = Curve(
        step=[-(-seen // size) for seen in rows],
        epoch=[seen / row_count for seen in rows],
        rows_seen=list(rows),
        wall_seconds=[0.0] * len(rows),
        train_loss=list(losses),
        validation_loss=list(losses),
        last_validation_loss=list(losses),
        portions=[loss * np.array([0.5, 0.8, 1.2, 1.5]) for loss in losses],
    )
    last = len(rows) - 1
    steps, seen = curve.step[last], curve.rows_seen[last]
    return TrialResult(
        Trial(item.learning_rate, draw), steps if diverged else None, None, steps, seen, seen / row_count, 0.0, 0.0, curve, last, {}
    )


def entry(item: Setting, law: Law, rows: int = 16_384, draws: int = 2, diverged: bool = False, left: Left | None = None) -> Entry:
    """Return a setting that has gone so far: looked at at its start and at the end, a half, a quarter, … of its rows."""
    marks = [0, *(rows >> halvings for halvings in reversed(range(6)))]
    return Entry(item, tuple(trial(item, draw, marks, [law(seen) for seen in marks], diverged) for draw in range(draws)), left)


def standing(*entries: Entry, share: float = 1 / 4, looks: int = 3, a_row: float = 1e-6, **fields: Any) -> Standings:
    costs = {item.setting.branch: a_row for item in entries}
    return Standings(
        **{"entries": {item.setting: item for item in entries}, "share": share, "looks": looks, "row_seconds": costs, **fields}
    )


def whole(item: Entry) -> int:
    """All may see the whole budget."""
    return BUDGET


# Who leaves


def test_nobody_is_called_behind_before_a_64th_of_a_training() -> None:
    best, worse = entry(setting(rate=0.1), flat(1.0)), entry(setting(rate=1.0), flat(5.0))
    assert departures(standing(best, worse, share=0.99 * JUDGED_FROM), terms(), whole) == {}
    assert list(departures(standing(best, worse, share=JUDGED_FROM), terms(), whole)) == [worse.setting]


def test_nobody_is_called_behind_after_few_rows_before_a_quarter_of_a_training() -> None:
    best = entry(setting(rate=0.1), flat(1.0))
    begun = entry(setting(rate=1.0), flat(5.0), rows=JUDGED_ROWS // 2)
    for share, gone in ((JUDGED_FROM, []), (0.99 * JUDGED_ANYWAY, []), (JUDGED_ANYWAY, [begun.setting])):
        assert list(departures(standing(best, begun, share=share), terms(), whole)) == gone
    enough = entry(setting(rate=1.0), flat(5.0), rows=JUDGED_ROWS)
    assert list(departures(standing(best, enough, share=JUDGED_FROM), terms(), whole)) == [enough.setting]


def test_a_surely_worse_and_flat_curve_leaves_with_both_losses_on_record() -> None:
    best, worse = entry(setting(rate=0.1), flat(1.0)), entry(setting(rate=1.0), flat(1.2))
    gone = departures(standing(best, worse), terms(), whole)
    assert gone == {worse.setting: Left("behind", 16_384, pytest.approx(1.2), best.setting, 16_384, pytest.approx(1.0))}  # type: ignore[arg-type]
    after = standing(best, worse).without(gone)
    assert after.running == (after.entries[best.setting],)
    assert after.leader == best


def test_a_curve_that_is_worse_and_steep_enough_to_reach_the_leader_stays_until_its_end_is_near() -> None:
    best, steep = entry(setting(rate=0.1), flat(0.1)), entry(setting(rate=0.01), power(0.0, 1.0, 0.3))
    assert departures(standing(best, steep), terms(), whole) == {}
    assert list(departures(standing(best, steep), terms(), lambda item: 20_000)) == [steep.setting]
    falling = entry(setting(rate=0.1), power(0.0, 0.1, 0.7))  # a leader that will be lower by then
    assert list(departures(standing(falling, steep), terms(), whole)) == [steep.setting]


def test_a_large_batch_that_has_hardly_begun_may_go_on_as_it_began_unless_it_does_not_move() -> None:
    best = entry(setting(rate=0.1), flat(0.2))
    begun, stuck = (entry(setting(4096), law) for law in (lambda rows: math.exp(-rows / 100_000), flat(1.0)))
    assert begun.steps == 4
    assert departures(standing(best, begun), terms(), whole) == {}
    assert list(departures(standing(best, stuck), terms(), whole)) == [stuck.setting]


def test_a_curve_past_its_best_comes_to_no_more() -> None:
    best, risen = entry(setting(rate=0.1), flat(1.0)), entry(setting(rate=1.0), lambda rows: 1.2 + abs(math.log1p(rows) - 8))
    assert list(departures(standing(best, risen), terms(), whole)) == [risen.setting]


def test_what_diverges_leaves_at_once_even_with_one_draw_of_several() -> None:
    best, wild = entry(setting(rate=0.1), flat(1.0)), entry(setting(rate=1.0), flat(0.5))
    wild = replace(wild, trials=(wild.trials[0], replace(wild.trials[1], diverged_at=7)))
    gone = departures(standing(best, wild, share=1 / 1024), terms(), whole)
    assert {item.why for item in gone.values()} == {"diverged"}
    assert standing(wild).leader is None
    assert departures(standing(wild), terms(), whole) == {}


def test_a_loss_that_is_not_finite_leaves_though_nothing_was_called_diverged() -> None:
    best, lost = entry(setting(rate=0.1), flat(1.0)), entry(setting(rate=1.0), flat(math.inf))
    assert {item.why for item in departures(standing(best, lost), terms(), whole).values()} == {"behind"}


def test_those_that_have_left_or_not_begun_and_the_leader_do_not_leave() -> None:
    best = entry(setting(rate=0.1), flat(1.0))
    gone = entry(setting(rate=1.0), flat(9.0), left=left("time", best, best))
    assert departures(standing(best, gone, Entry(setting(512))), terms(), whole) == {}


@pytest.mark.parametrize(("count", "draws", "runs"), [(2, 2, 100), (4, 4, 50), (20, 2, 12)])
@pytest.mark.parametrize("kept", [0.0, 0.9])
def test_over_many_looks_at_equal_settings_about_one_in_twenty_leaves_at_most(count: int, draws: int, runs: int, kept: float) -> None:
    """What scatters is new at every look but for the part that is kept; the leader is the luckiest of all."""
    rng, looks, gone = np.random.default_rng(1), 8, 0
    settings = [setting(rate=0.001 * (place + 1)) for place in range(count)]
    for _ in range(runs):
        standings, luck = Standings().joined_by(settings), rng.normal(size=(count, draws))
        rows: list[int] = [0]
        losses = [[[2.0] for _ in range(draws)] for _ in settings]
        for look in range(1, looks + 1):
            rows.append(FIRST_ROWS << look)
            luck = math.sqrt(kept) * luck + math.sqrt(1 - kept) * rng.normal(size=luck.shape)
            shift = 0.2 * rng.normal(size=draws)
            for place in range(count):
                for draw in range(draws):
                    losses[place][draw].append(math.exp(shift[draw] + 0.05 * luck[place, draw]))
            trained = {
                item.setting: [trial(item.setting, draw, rows, losses[settings.index(item.setting)][draw]) for draw in range(draws)]
                for item in standings.running
            }
            standings = replace(standings.folded(trained), looks=look, share=1.0)
            standings = standings.without(departures(standings, terms(draws=draws), lambda item: item.rows))
        gone += count - len(standings.running)
    assert gone <= ERROR * count * runs * 1.2


# How far whom


def test_the_first_rung_takes_all_settings_that_can_make_a_step() -> None:
    small, large, notebook = setting(8), setting(4096), setting(10, 0.01, typed=True)
    rung = next_rung(Standings().joined_by([notebook, small, large]), terms(), Seconds(0.0, 0.0))
    assert rung is not None
    assert rung.goals == {notebook: Goal(FIRST_ROWS, 2), small: Goal(FIRST_ROWS, 2)}
    assert rung.cut == ()
    assert 0 < rung.share < JUDGED_FROM


def test_a_first_rung_of_fewer_settings_takes_what_people_type_and_the_others_begin_later_where_there_is_time() -> None:
    settings = [*(setting(size, rate) for size in SIZES for rate in (0.01, 0.1, 1.0)), setting(10, 0.01, typed=True)]
    goes_by = terms(beginners=3)
    standings = Standings().joined_by(settings)
    rung = next_rung(standings, goes_by, Seconds(10.0, 5.0))
    assert rung is not None
    assert list(rung.goals) == [settings[-1], setting(32, 0.1), setting(8, 0.1)]
    after = raced(World(lambda item: power(0.1)), settings, limit=100.0, confirming=50.0, beginners=3)
    assert all(item.trials for item in after.entries.values())


@pytest.mark.parametrize("budget", [BUDGET, ROWS, 4])
def test_where_no_setting_makes_a_step_in_the_first_rows_the_first_rung_goes_to_the_smallest_step(budget: int) -> None:
    large, all_rows = setting(4096), setting(updates=FullBatch())
    first = max(1, min(FIRST_ROWS, budget // 8))
    rung = next_rung(Standings().joined_by([all_rows, large]), terms(budget_rows=budget, first_rows=first), Seconds())
    assert rung is not None
    assert rung.goals == {large: Goal(4096, 2)}
    assert rung.share <= 1


def test_all_settings_have_the_same_time_and_not_the_same_rows() -> None:
    slow, quick = entry(setting(8), flat(1.0), rows=4096), entry(setting(512), flat(1.0), rows=8192)
    standings = standing(slow, quick, row_seconds={slow.setting.branch: 8e-6, quick.setting.branch: 1e-6})
    ends = ends_of(standings, terms(), Seconds(racing=2.0))
    assert (ends(quick) - 8192) * 1e-6 == pytest.approx((ends(slow) - 4096) * 8e-6, rel=1e-4)
    assert (ends(quick) - 8192) * 1e-6 * 2 * 2 == pytest.approx(2.0, rel=1e-4)  # both, with two draws each
    confirmed = ends_of(standings, terms(), Seconds(racing=2.0, confirming=1.0))
    assert (confirmed(slow), confirmed(quick)) == (12_500, 100_000)  # a tenth of a second each


def test_without_a_limit_every_end_is_the_budget_and_no_end_lies_beyond_it_or_before_what_was_seen() -> None:
    slow, quick = entry(setting(8), flat(1.0)), entry(setting(512), flat(1.0))
    standings = standing(slow, quick, row_seconds={slow.setting.branch: 1.0, quick.setting.branch: 1e-12})
    assert [ends_of(standings, terms(), Seconds())(item) for item in (slow, quick)] == [BUDGET, BUDGET]
    assert [ends_of(standings, terms(), Seconds(1.0, 1.0))(item) for item in (slow, quick)] == [16_384, BUDGET]
    assert [ends_of(standings, terms(), Seconds(0.0, 0.0))(item) for item in (slow, quick)] == [16_384, 16_384]


def test_what_has_not_trained_yet_is_taken_to_cost_what_most_do() -> None:
    known = [entry(setting(size), flat(1.0)) for size in (8, 32, 128)]
    costs = {item.setting.branch: cost for item, cost in zip(known, (1e-6, 2e-6, 9e-6), strict=True)}
    fresh = Entry(setting(512))
    ends = ends_of(standing(*known, fresh, row_seconds=costs), terms(), Seconds(racing=1.6))
    assert ends(fresh) == pytest.approx(1.6 / (4 * 2 * 2e-6), rel=1e-4)


def test_a_rung_goes_to_twice_the_share_to_four_times_for_next_to_no_time_and_to_the_end_where_all_can_be_afforded() -> None:
    for share_now, seconds, share in (
        (1 / 32, Seconds(5.0), 1 / 16),
        (1 / 1024, Seconds(2.0), 1 / 256),
        (1 / 32, Seconds(2000.0), 1),
        (1 / 32, Seconds(), 1 / 8),
    ):
        racers = [entry(setting(size), power(0.1, 1, 0.5), rows=int(share_now * 1_000_000)) for size in (8, 32)]
        standings = standing(*racers, share=share_now)
        rung = next_rung(standings, terms(new_rates=False, new_sizes=False), seconds)
        assert rung is not None
        assert rung.share == share
        assert set(rung.goals) == {item.setting for item in racers}
        assert all(
            goal.rows == pytest.approx(share * ends_of(standings, terms(), seconds)(racers[0]), abs=1) for goal in rung.goals.values()
        )


def test_rungs_that_would_cost_less_to_train_than_to_look_at_are_skipped() -> None:
    racers = [entry(setting(size), power(0.1, 1, 0.5), rows=2048) for size in (8, 32)]
    fixed = terms(new_rates=False, new_sizes=False)
    rung = next_rung(standing(*racers, share=1 / 512, look_seconds=0.1), fixed, Seconds(8.0))
    assert rung is not None
    assert rung.share == pytest.approx(0.1)  # a whole training takes a second
    jump = next_rung(standing(*racers, share=1 / 512, look_seconds=3.0), fixed, Seconds(8.0))
    assert jump is not None
    assert jump.share == 1


def test_a_few_go_on_over_a_rung_that_is_a_leap_though_it_takes_more_than_its_part_of_the_time() -> None:
    racers = [entry(setting(8, rate), power(0.1, 1, 0.5), rows=2048) for rate in np.geomspace(0.001, 1, 20)]
    for seconds, kept in ((12.0, FINALISTS), (3.0, 2), (0.9, 1)):
        rung = next_rung(
            standing(*racers, share=1 / 512, look_seconds=0.1), terms(new_rates=False, new_sizes=False), Seconds(seconds, 20 * seconds)
        )
        assert rung is not None
        assert len(rung.goals) == kept
        assert len(rung.cut) == len(racers) - kept


def test_where_time_is_short_the_least_promising_leave_and_never_the_leader_or_what_people_type_before_them() -> None:
    leader, notebook = entry(setting(8), flat(1.0), rows=125_000), entry(setting(10, typed=True), flat(9.0), rows=125_000)
    others = [entry(setting(size), flat(1.1 + size / 1000), rows=125_000) for size in (32, 64, 128, 256, 512)]
    standings = standing(*others, notebook, leader, share=1 / 4, look_seconds=0.1)
    seconds, fixed = Seconds(3.0), terms(new_rates=False, new_sizes=False)
    rung = next_rung(standings, fixed, seconds)
    assert rung is not None
    assert rung.cut
    assert {leader.setting, notebook.setting} <= set(rung.goals)
    kept = [item.setting for item in others if item.setting in rung.goals]
    assert [*kept, *rung.cut] == [item.setting for item in others]  # the best of them first
    cost = sum(goal.draws * ((goal.rows - 125_000) * 1e-6 + 0.1) for goal in rung.goals.values())
    assert 0.75 * seconds.racing / 2 < cost <= seconds.racing / 2  # another rung follows
    hardly = next_rung(standings, fixed, Seconds(0.001, 10.0))
    assert hardly is None or leader.setting not in hardly.cut


def test_the_leader_goes_on_though_even_that_takes_more_than_a_rung_may() -> None:
    leader, other = entry(setting(8), flat(1.0), rows=125_000), entry(setting(32), flat(1.1), rows=125_000)
    rung = next_rung(standing(other, leader, share=1 / 8, look_seconds=0.3), terms(new_rates=False, new_sizes=False), Seconds(1.5))
    assert rung is not None
    assert (set(rung.goals), rung.cut) == ({leader.setting}, (other.setting,))


def test_a_setting_that_never_began_and_is_too_dear_at_the_end_is_not_waited_for() -> None:
    ends = [entry(setting(size), flat(1.0 + size / 1e4), rows=BUDGET, draws=MOST_DRAWS) for size in (8, 32)]
    waiting = Entry(setting(updates=FullBatch()))
    standings = standing(*ends, waiting, share=1.0)
    dear = terms(new_rates=False, new_sizes=False, row_count=BUDGET, draws=2)
    assert ends_of(standings, dear, Seconds(7.0))(waiting) == BUDGET
    assert next_rung(standings, dear, Seconds(7.0)) is None
    begins = next_rung(standings, dear, Seconds(9.0))
    assert begins is not None
    assert begins.goals == {waiting.setting: Goal(BUDGET, 2)}


def test_at_their_ends_settings_get_twice_the_draws_up_to_eight_the_best_where_time_is_short() -> None:
    racers = [entry(setting(size), flat(1.0 + size / 1e4), rows=BUDGET) for size in (8, 32, 128)]
    standings, fixed = standing(*racers, share=1.0), terms(new_rates=False, new_sizes=False)
    assert next_rung(standings, fixed, Seconds()) == Rung(1.0, {item.setting: Goal(BUDGET, 4) for item in racers})
    assert next_rung(standings, fixed, Seconds(16.0)) == Rung(1.0, {item.setting: Goal(BUDGET, 4) for item in racers[:2]})
    assert next_rung(standings, fixed, Seconds(8.0)) is None
    full = [entry(setting(size), flat(1.0), rows=BUDGET, draws=MOST_DRAWS) for size in (8, 32)]
    assert next_rung(standing(*full, share=1.0), fixed, Seconds()) is None


def test_a_race_is_over_without_time_and_without_a_leader() -> None:
    racers = [entry(setting(size), flat(1.0)) for size in (8, 32)]
    assert next_rung(standing(*racers), terms(), Seconds(0.0, 10.0)) is None
    wild = [entry(setting(size), flat(1.0), diverged=True) for size in (8, 32)]
    assert next_rung(standing(*wild), terms(), Seconds()) is None


# What is proposed


def branch_of(losses: Sequence[float], batch_rows: int = 8, optimizer: Optimizer | None = None) -> list[Entry]:
    """Return entries of one branch at 0.01, 0.03, 0.1, … with these losses; infinite for one that diverged."""
    found = [setting(batch_rows, rates.rate_at(2 * place - 8), optimizer) for place in range(len(losses))]
    return [
        entry(item, flat(loss if math.isfinite(loss) else 1.0), diverged=math.isinf(loss)) for item, loss in zip(found, losses, strict=True)
    ]


def proposed(entries: Sequence[Entry], share: float = 1 / 32, looks: int = 2, **fields: Any) -> list[tuple[int, float]]:
    """Return batch size and rate of what is proposed."""
    found = proposals(standing(*entries, share=share, looks=looks), terms([item.setting for item in entries], **fields))
    assert len(found) == len(set(found))
    assert not {item.setting for item in entries} & set(found)
    return [(item.updates.rows_per_step(ROWS), item.learning_rate) for item in found]


def test_an_edge_that_does_best_moves_and_an_inner_best_does_not() -> None:
    assert proposed(branch_of([3, 2, 1.5, 1.2, 1.0])) == [(8, 3.0)]
    assert proposed(branch_of([1, 2, 3, 4, math.inf])) == [(8, 0.003)]
    assert proposed(branch_of([3, 2, 1, 2, 3])) == []
    assert proposed(branch_of([1.0, 2, 3, 4, 5]), looks=1) == []


def test_an_edge_that_does_best_by_luck_stays_where_it_is() -> None:
    def of(item: Setting, losses: Sequence[float]) -> Entry:
        marks = [0, 4096, 8192, 16_384]
        return Entry(item, tuple(trial(item, draw, marks, [2, 1.5, 1.2, loss]) for draw, loss in enumerate(losses)))

    inner, edge = of(setting(rate=0.1), [1.0, 1.1, 0.9, 1.0]), setting(rate=0.3)
    for losses, moves in (([0.8, 1.3, 0.6, 1.2], False), ([0.79, 0.91, 0.68, 0.81], True)):
        standings = standing(of(edge, losses), inner)
        assert standings.leader is not None
        assert standings.leader.setting == edge
        found = proposals(standings, terms([edge], draws=4, new_sizes=False))
        assert (setting(rate=1.0) in found) == moves


def test_adam_is_proposed_no_rate_beyond_one_and_may_be_given_any() -> None:
    for rule, proposed in ((AdamW(), False), (Adam(), False), (Sgd(), True)):
        highest, below = setting(rate=1.0, optimizer=rule), setting(rate=0.3, optimizer=rule)
        standings = standing(entry(highest, flat(1.0)), entry(below, flat(2.0)))
        rates_found = {item.learning_rate for item in proposals(standings, terms([highest], new_sizes=False))}
        assert (3.0 in rates_found, 1.7 in rates_found, 0.55 in rates_found) == (proposed, proposed, True)


def test_where_the_rate_makes_no_difference_no_edge_moves_and_nothing_is_proposed_for_ever() -> None:
    assert proposed(branch_of([1.0] * 5)) == []
    assert proposed(branch_of([1.0, 1.0005, 1.2, 2, 3])) == []
    entries, share = branch_of([1.0] * 5), FINER_FROM
    for _ in range(10):
        fresh = proposed(entries, share, new_sizes=False)
        if not fresh:
            break
        entries += [entry(setting(size, rate), flat(1.0)) for size, rate in fresh]
    assert fresh == []
    assert len(entries) <= 9


def test_the_edge_moves_for_every_line_of_the_table_and_every_branch_that_is_still_in_the_race() -> None:
    best, second = branch_of([3, 2, 1.5, 1.2, 1.0]), branch_of([3, 2, 1.5, 1.4, 1.3], 32)
    other = branch_of([2.0, 2.2, 2.5, 3, 4], 8, AdamW())
    assert set(proposed([*best, *second, *other])) == {(8, 3.0), (32, 3.0), (8, 0.003)}
    gone = [replace(item, left=left("behind", item, best[-1])) for item in other]
    assert set(proposed([*best, *second, *gone])) == {(8, 3.0), (32, 3.0)}


def test_finer_rates_are_proposed_from_an_eighth_of_a_training_on() -> None:
    entries = branch_of([3, 2, 1, 2, 3])
    assert proposed(entries, 0.99 * FINER_FROM) == []
    assert proposed(entries, FINER_FROM) == [(8, 0.055), (8, 0.17)]


def test_batch_sizes_between_are_proposed_from_a_sixteenth_on_each_at_three_rates() -> None:
    entries = [*branch_of([3, 2, 1, 2, 3], 32), *branch_of([4, 3, 2, 3, 4], 8), *branch_of([5, 4, 3, 4, 5], 512)]
    assert proposed(entries, 0.99 * SIZES_FROM) == []
    assert proposed(entries, SIZES_FROM) == [(size, rate) for size in (16, 128) for rate in (0.03, 0.1, 0.3)]
    assert proposed(entries, SIZES_FROM, new_sizes=False) == []
    close = [*branch_of([3, 2, 1, 2, 3], 32), *branch_of([4, 3, 2, 3, 4], 16), *branch_of([5, 4, 3, 4, 5], 64)]
    assert proposed(close, SIZES_FROM) == []


def test_what_people_type_is_no_neighbouring_batch_size() -> None:
    typed = entry(setting(10, 0.01, typed=True), flat(2.0))
    entries = [*branch_of([3, 2, 1, 2, 3], 8), *branch_of([4, 3, 2, 3, 4], 32)]
    assert proposed([typed, *entries], SIZES_FROM) == proposed(entries, SIZES_FROM) == [(16, rate) for rate in (0.03, 0.1, 0.3)]


def test_no_size_is_proposed_beside_a_leader_that_is_no_random_mini_batch_or_that_people_type() -> None:
    others = [*branch_of([3, 2, 1.5, 2, 3], 8), *branch_of([3, 2, 1.5, 2, 3], 512)]
    for leader in (
        setting(updates=FullBatch()),
        setting(updates=MiniBatch(batch_rows=64, shuffled=False)),
        setting(64, 0.001, Adam(), True),
    ):
        inner = [entry(leader, flat(1.0))]
        if not leader.typed:
            inner += [entry(replace(leader, learning_rate=rate), flat(2.0)) for rate in (0.01, 1.0)]
        assert proposed([*inner, *others], SIZES_FROM) == []


def test_given_rates_are_the_only_ones_that_are_ever_proposed() -> None:
    def given(batch_rows: int, best: float) -> list[Entry]:
        return [entry(setting(batch_rows, rate), flat(loss)) for rate, loss in ((0.15, best), (0.4, best + 1))]

    entries = [*given(8, 2.0), *given(32, 1.0)]
    assert proposed(entries, 1 / 32, new_rates=False) == []
    assert proposed(entries, 1 / 2, new_rates=False) == [(16, 0.15), (16, 0.4)]
    assert proposed(entries, 1 / 2, new_rates=False, new_sizes=False) == []


# What is confirmed


def aim(**fields: Any) -> Aim:
    return Aim(**{"margin": 0.01, "target": None, "by_cost": True, "draws": 10, **fields})


def planned(entries: Sequence[Entry], seconds: float = math.inf, **fields: Any) -> list[Confirmation]:
    """Return what is confirmed; a row costs each a microsecond."""
    return confirmations(standing(*entries, share=1.0), terms([item.setting for item in entries]), aim(**fields), seconds)


def sizes_of(plan: Iterable[Confirmation]) -> list[int]:
    return [item.setting.updates.rows_per_step(ROWS) for item in plan]


def reaching(batch_rows: int, loss: float, after: float, rows: int = 800_000) -> Entry:
    """Return a setting whose curve falls to `loss`, and comes close to it after so many rows."""
    return entry(setting(batch_rows), lambda seen: loss + 2 * math.exp(-12 * seen / after), rows)


def test_the_leader_is_confirmed_first_then_those_as_good_by_their_cost_then_the_others_by_their_loss() -> None:
    entries = [reaching(512, 1.3, 1e5), reaching(128, 1.008, 8e5), reaching(64, 1.2, 1e5), reaching(32, 1.005, 1e5), reaching(8, 1.0, 8e5)]
    assert sizes_of(planned(entries)) == [8, 32, 128, 64, 512]
    assert sizes_of(planned(entries, by_cost=False)) == [8, 32, 128, 64, 512]
    swapped = [*entries[:1], reaching(128, 1.002, 8e5), *entries[2:]]
    assert sizes_of(planned(swapped)) == [8, 32, 128, 64, 512]
    assert sizes_of(planned(swapped, by_cost=False)) == [8, 128, 32, 64, 512]


def test_a_line_shows_the_cheapest_of_its_settings_that_reach_the_target_where_cost_decides_else_the_best() -> None:
    best, quick = reaching(8, 1.0, 8e5), replace(reaching(8, 1.005, 4e5), setting=setting(8, 0.3))
    other, sooner = reaching(32, 1.2, 8e5), replace(reaching(32, 1.205, 1e5), setting=setting(32, 0.3))
    assert [item.setting for item in planned([best, quick, other, sooner])] == [best.setting, quick.setting, other.setting]
    assert [item.setting for item in planned([best, quick, other, sooner], by_cost=False)] == [best.setting, other.setting]
    given = planned([best, quick, other, sooner], target=1.25)
    assert [item.setting for item in given] == [best.setting, sooner.setting, quick.setting]


def test_where_time_is_short_fewer_draws_are_made_then_lines_at_the_end_are_left_out() -> None:
    entries = [reaching(size, loss, 8e5) for size, loss in ((8, 1.0), (32, 1.1), (128, 1.2), (512, 1.3))]
    assert [item.rows for item in planned(entries)] == [800_000] * 4
    for seconds, sizes, draws in (
        (math.inf, [8, 32, 128, 512], 10),
        (32.1, [8, 32, 128, 512], 10),
        (16.1, [8, 32, 128, 512], 5),
        (9.7, [8, 32, 128, 512], FEWEST_DRAWS),
        (9.5, [8, 32, 128], FEWEST_DRAWS),
        (5.0, [8, 32], FEWEST_DRAWS),
        (0.0, [8, 32], 2),
    ):
        plan = planned(entries, seconds)
        assert (sizes_of(plan), {item.draws for item in plan}) == (sizes, {draws})


def test_where_draws_divide_the_rows_lines_at_the_end_are_left_out_for_more_draws_while_some_are_left() -> None:
    entries = [reaching(size, 1 + place / 10, 8e5) for place, size in enumerate((8, 16, 32, 64, 128, 256, 512))]  # 0.8 s a training
    for seconds, count, draws in ((math.inf, 7, 10), (7 * 8.1, 7, 10), (6 * 8.1, 6, 10), (5 * 8.1, 5, 10), (5 * 4.1, 5, 5), (5.0, 2, 3)):
        plan = planned(entries, seconds, sure_draws=10)
        assert (len(plan), {item.draws for item in plan}) == (count, {draws})


def test_lines_that_are_behind_are_trained_to_the_end_only_where_there_is_time_to_spare() -> None:
    kept = [reaching(8, 1.0, 8e5), reaching(32, 1.1, 8e5)]
    behind = entry(setting(128), power(2.0), rows=10_000, left=left("behind", kept[0], kept[0]))
    dropped = entry(setting(64), power(1.05), rows=400_000, left=left("time", kept[0], kept[0]))
    plan = planned([*kept, behind, dropped])
    assert sizes_of(plan) == [8, 64, 32, 128]
    assert [item.rows for item in plan] == [800_000, 400_000, 800_000, BUDGET]
    assert sizes_of(planned([*kept, behind], 16.0 + 33.0)) == [8, 32]
    assert sizes_of(planned([*kept, behind], 16.0 + 34.0)) == [8, 32, 128]


def test_a_curve_past_its_best_is_trained_to_its_best_and_any_other_as_far_as_it_went() -> None:
    overfit = entry(setting(), lambda rows: 1 + abs(math.log2(rows + 1) - 12), rows=16_384)
    assert stop_rows(overfit, overfit.rows) == 4096
    assert stop_rows(overfit, BUDGET) == 4096
    falling = entry(setting(), power(0.1))
    assert stop_rows(falling, falling.rows) == 16_384
    assert stop_rows(falling, BUDGET) == BUDGET
    assert stop_rows(Entry(setting()), BUDGET) == BUDGET


def test_looks_at_confirming_trainings_count_as_time() -> None:
    entries = [reaching(8, 1.0, 8e5), reaching(32, 1.005, 8e5)]
    free, dear = planned(entries, 9.7), planned(entries, 9.7, look_seconds=0.8)
    assert [item.draws for item in free] == [6, 6]
    assert [item.draws for item in dear] == [3, 3]


def test_looks_go_by_fewer_rows_where_all_would_take_longer_than_half_a_training_but_not_by_too_few() -> None:
    standings = standing(entry(setting(8), flat(1.0), rows=100_000), share=1.0, a_row=1e-5)  # a second a training
    assert [rows_looked_at(standings, look, 25, 8192) for look in (0.0, 1e-6, 1e-5, 1e-4)] == [8192, 8192, 2000, FEWEST_LOOKED_AT]
    assert rows_looked_at(standings, 1e-4, 25, 300) == 300
    assert rows_looked_at(Standings(), 1e-4, 25, 300) == 300


def test_where_all_diverged_nothing_is_confirmed() -> None:
    assert planned([entry(setting(size), flat(1.0), diverged=True) for size in (8, 32)]) == []
    assert confirmations(Standings(), terms(), aim(), 10.0) == []


# Whole races


@dataclass(frozen=True)
class World:
    """Stands in for the worker: losses come from a formula for each setting (None: it diverges), draws from the setting's name, and time is
    counted, not taken: so long a row and so long a look of each replica."""

    law: Callable[[Setting], Law | None]
    a_row: Callable[[Branch], float] = lambda branch: 1e-6
    a_look: float = 1e-4
    scatter: float = 0.01
    row_count: int = ROWS

    def draw(self, item: Setting, number: int) -> float:
        own = np.random.default_rng(zlib.crc32(repr((item, number)).encode())).normal()
        return math.exp(self.scatter * own + 0.1 * np.random.default_rng(number).normal())

    def trained(self, item: Setting, number: int, before: Sequence[int], until: int) -> TrialResult:
        """Return the trial so far, in whole steps: at the points that it had, and at those on its way."""
        size, law = item.updates.rows_per_step(self.row_count), self.law(item)
        marks = {-(-int(mark) // size) * size for mark in race_marks(before[-1], until)} if until > before[-1] else set()
        rows = [*before, *sorted(marks - set(before))]
        luck = self.draw(item, number)
        losses = [luck * (law or flat(1.0))(seen) for seen in rows]
        return trial(item, number, rows, losses, law is None, self.row_count)

    def run(self, standings: Standings, rung: Rung) -> Standings:
        """Return the standings after the rung, as `Worker.run` does."""
        leader, entries = standings.leader, standings.entries
        if leader is not None:
            standings = standings.without({item: left("time", entries[item], leader) for item in rung.cut})
        trained: dict[Setting, list[TrialResult]] = {}
        seconds = 0.0
        for item, goal in rung.goals.items():
            known = entries[item].trials
            for number in range(goal.draws):
                before = known[number].curve.rows_seen if number < len(known) else [0]
                result = self.trained(item, number, before, goal.rows)
                seconds += (result.rows_seen - before[-1]) * self.a_row(item.branch) + self.a_look
                trained.setdefault(item, []).append(result)
        went_on = any(entries[item].trials and goal.rows > entries[item].rows for item, goal in rung.goals.items())
        return replace(
            standings.folded(trained),
            share=max(standings.share, rung.share),
            looks=standings.looks + (went_on or standings.share == 0),
            row_seconds={**standings.row_seconds, **{item.branch: self.a_row(item.branch) for item in rung.goals}},
            look_seconds=self.a_look if rung.goals else standings.look_seconds,
            seconds=standings.seconds + seconds,
        )


def raced(world: World, settings: Sequence[Setting], limit: float = math.inf, confirming: float = math.inf, **fields: Any) -> Standings:
    """Return how a race of so many seconds ends, as `Search` runs it; fails where it does not."""
    standings, goes_by = Standings().joined_by(settings), terms(settings, **{"row_count": world.row_count, **fields})
    for _ in range(200):
        seconds = Seconds(max(0.0, limit - standings.seconds), confirming)
        rung = next_rung(standings, goes_by, seconds)
        if rung is None:
            return standings
        standings = world.run(standings.joined_by(rung.goals), rung)
        seconds = Seconds(max(0.0, limit - standings.seconds), confirming)
        standings = standings.without(departures(standings, goes_by, ends_of(standings, goes_by, seconds)))
    raise AssertionError("the race does not end")


def leader_of(standings: Standings) -> Setting:
    assert standings.leader is not None
    return standings.leader.setting


def usual(item: Setting) -> Law | None:
    """Every optimizer has a best rate that grows with the root of the batch size; ten times beyond it training diverges."""
    offset = {"sgd": 0.0, "adamw": -2.0}[item.optimizer.kind] - (1.0 if item.optimizer == Sgd(momentum=0.9) else 0.0)
    size = item.updates.rows_per_step(ROWS)
    away = math.log10(item.learning_rate) - (offset - 1 + 0.5 * math.log10(size / 8))
    if away > 1.2:
        return None
    floor = 0.1 * (1 + 0.2 * away**2 + 0.04 * abs(math.log2(size / 32)) + 0.1 * (offset + 1) ** 2)
    return power(floor, 1.0, 0.6 / (1 + 0.3 * abs(away)))


def grid(sizes: Sequence[int] = (8, 32), optimizers: Sequence[Optimizer] = (Sgd(), AdamW()), count: int = 3) -> list[Setting]:
    return [setting(size, rate, rule) for size in sizes for rule in optimizers for rate in rates.first(rule, count)]


def best_by_formula(world: World, standings: Standings) -> float:
    laws = [law for item in standings.entries if (law := world.law(item)) is not None]
    return min(law(BUDGET) for law in laws)


@pytest.mark.parametrize("limit", [math.inf, 60.0, 20.0])
def test_the_best_setting_by_formula_wins(limit: float) -> None:
    world = World(usual)
    after = raced(world, grid(SIZES, OPTIMIZERS, 5), limit, 0.5 * limit)
    law = world.law(leader_of(after))
    assert law is not None
    assert law(BUDGET) <= 1.01 * best_by_formula(world, after)
    assert leader_of(after).updates.rows_per_step(ROWS) == 32
    assert leader_of(after).optimizer == Sgd(momentum=0.9)
    assert after.seconds <= 1.1 * limit
    whys = Counter(item.left.why for item in after.entries.values() if item.left is not None)
    assert whys["behind"] > len(after.entries) / 2
    assert whys["diverged"] > 0
    assert whys["time"] == 0 or math.isfinite(limit)


@pytest.mark.parametrize("limit", [math.inf, 30.0])
def test_a_setting_that_starts_slowly_and_ends_best_wins(limit: float) -> None:
    slow = setting(512, 0.3)

    def law(item: Setting) -> Law:
        return power(0.1, 1.0, 1.0, begins=4000) if item == slow else power(0.2 + item.learning_rate / 100, 1.0, 0.6)

    after = raced(World(law), [*grid((8, 32), [Sgd()], 5), slow], limit, limit, new_rates=False, new_sizes=False)
    first = [law(item)(FIRST_ROWS) for item in after.entries]
    assert law(slow)(FIRST_ROWS) == max(first)
    assert leader_of(after) == slow


def test_a_rate_beyond_the_edge_and_a_batch_size_between_can_win() -> None:
    def law(item: Setting) -> Law:
        size = item.updates.rows_per_step(ROWS)
        return power(0.1 * (1 + abs(math.log10(item.learning_rate / 5.5)) + 0.2 * abs(math.log2(size / 64))), 1.0, 0.6)

    after = raced(World(law), grid((32, 128), [Sgd()], 5))
    assert leader_of(after) == setting(64, 5.5)


def test_what_people_type_can_win() -> None:
    typed = setting(32, 0.001, Adam(), typed=True)
    after = raced(World(lambda item: power(0.1 if item == typed else 0.12, 1.0, 0.6)), [typed, *grid()], 30.0, 15.0)
    assert leader_of(after) == typed


def test_a_batch_of_all_rows_waits_at_no_cost_until_its_share_is_a_step() -> None:
    all_rows = setting(updates=FullBatch())
    world = World(lambda item: power(0.1 if item == all_rows else 0.2, 1.0, 0.6))
    after = raced(world, [*grid((8, 32), [Sgd()], 5), all_rows], new_rates=False, new_sizes=False)
    assert after.entries[all_rows].trials[0].curve.rows_seen[1] == ROWS
    assert leader_of(after) == all_rows


def test_a_race_is_the_same_twice_and_trains_nothing_twice() -> None:
    once, again = (raced(World(usual), grid(), 5.0, 2.0) for _ in range(2))
    assert list(once.entries) == list(again.entries)
    assert [item.loss for item in once.entries.values()] == [item.loss for item in again.entries.values()]
    assert once.trainings == sum(len(item.trials) for item in once.entries.values())
    for item in once.entries.values():
        assert all(np.diff(result.curve.rows_seen).min() > 0 for result in item.trials)


ODD: dict[str, tuple[World, list[Setting], dict[str, Any]]] = {
    "one setting": (World(lambda item: power(0.1)), [setting()], {"new_rates": False, "new_sizes": False}),
    "all rows alone": (World(lambda item: power(0.1)), [setting(updates=FullBatch())], {"new_rates": False}),
    "a budget smaller than a batch": (World(lambda item: power(0.1)), grid(), {"budget_rows": 4, "first_rows": 1}),
    "a budget of a row": (World(lambda item: power(0.1)), grid((1, 8)), {"budget_rows": 1, "first_rows": 1}),
    "all diverge": (World(lambda item: None), grid(), {}),
    "all but one diverge": (World(lambda item: power(0.1) if item == setting() else None), grid(), {}),
    "nothing to learn": (World(lambda item: flat(1.0), scatter=0.0), grid(), {}),
    "nothing to learn, and noise": (World(lambda item: flat(1.0)), grid(), {}),
    "the lower the rate the better": (World(lambda item: flat(1 + item.learning_rate)), grid(), {}),
    "the higher the rate the better": (World(lambda item: flat(1 + 1 / item.learning_rate)), grid(), {}),
    "a loss of nothing": (World(lambda item: flat(0.0)), grid(), {}),
    "rows that cost nothing": (World(usual, a_row=lambda branch: 0.0), grid(), {}),
    "nothing costs anything": (World(usual, a_row=lambda branch: 0.0, a_look=0.0), grid(), {}),
    "rows that cost a lot": (World(usual, a_row=lambda branch: 1e-2), grid(), {}),
    "looks that cost a lot": (World(usual, a_look=1.0), grid(), {}),
    "batches as large as the budget": (World(lambda item: power(0.1)), [setting(), setting(5000), setting(ROWS)], {"budget_rows": ROWS}),
    "curves that rise": (World(lambda item: lambda rows: 1 + rows / 1e5), grid(), {}),
}


@pytest.mark.parametrize("limit", [math.inf, 2.0, 0.0])
@pytest.mark.parametrize("name", ODD)
def test_every_race_ends(name: str, limit: float) -> None:
    world, settings, fields = ODD[name]
    after = raced(world, settings, limit, 0.5 * limit, **fields)
    assert after.trainings > 0
    if name != "all diverge":
        assert after.leader is not None
        assert after.leader.left is None
    assert all(item.left is None or item.left.why != "behind" or item.loss > item.left.leader_loss for item in after.entries.values())


# What is known, and the rates that are tried


def test_a_setting_of_fewer_draws_is_judged_on_the_draws_that_it_shares_with_the_one_that_has_most() -> None:
    easy_then_hard, few = setting(8), setting(32)
    marks = [0, 1000, 2000]
    most = Entry(easy_then_hard, tuple(trial(easy_then_hard, draw, marks, [9, 8, 1.0 + draw]) for draw in range(4)))
    less = Entry(few, tuple(trial(few, draw, marks, [9, 8, 1.1 * (1.0 + draw)]) for draw in range(2)))
    standings = standing(most, less)
    assert (most.loss, less.loss) == pytest.approx((2.5, 1.65))
    assert standings.losses == pytest.approx({easy_then_hard: 2.5, few: 2.75})
    assert standings.leader is most


def test_draws_that_were_looked_at_after_other_rows_are_put_on_one_axis() -> None:
    item = setting(8)
    often = trial(item, 0, [0, 512, 1024, 2048, 4096], [5, 4, 3, 2, 1])
    seldom = trial(item, 1, [0, 1024, 4096], [5, 3, 1])
    found = Entry(item, (often, seldom)).measured
    assert found is not None
    assert found.rows.tolist() == [0, 1024, 4096]
    assert found.mean.tolist() == pytest.approx([5, 3, 1])
    assert (found.best_rows, found.loss, found.portions.shape) == (4096, 1, (2, 4))


def test_rows_are_not_spent_on_a_thousandth() -> None:
    flattening = entry(setting(), lambda rows: 2.0 if rows < 4096 else 1.0 - 1e-5 * math.log2(rows)).measured
    assert flattening is not None
    assert flattening.best_rows == 4096


def test_rates_are_half_a_decade_apart_up_to_one_for_sgd_a_tenth_with_momentum_and_three_hundredths_for_adam() -> None:
    assert rates.first(Sgd(), 5) == (0.01, 0.03, 0.1, 0.3, 1.0)
    assert rates.first(Sgd(momentum=0.9), 3) == (0.01, 0.03, 0.1)
    assert rates.first(Adam(), 3) == rates.first(AdamW(), 3) == (0.003, 0.01, 0.03)


def test_further_rates_lie_beyond_the_edge_or_a_quarter_of_a_decade_beside_the_best() -> None:
    tried = rates.first(Sgd(), 5)
    assert (rates.beyond(tried, 1.0), rates.beyond(tried, 0.01), rates.beyond(tried, 0.1)) == ((3.0,), (0.003,), ())
    assert rates.between(tried, 0.1) == (0.055, 0.17)
    assert rates.between((*tried, 0.17), 0.17) == ()
    assert (rates.at_edge(tried, 1.0), rates.at_edge(tried, 0.01), rates.at_edge(tried, 0.1)) == (True, True, False)


@pytest.mark.parametrize("quarter", range(-24, 9))
def test_every_rate_is_found_again_among_the_quarters_of_a_decade(quarter: int) -> None:
    rate = rates.rate_at(quarter)
    assert rates.quarter_of(rate) == rates.quarter_of(1.05 * rate) == rates.quarter_of(rate / 1.05) == quarter
    assert rate == float(f"{rate:.2g}")
