"""The race's decisions, pure: from the standings to who leaves, what joins, and the next stretch of work."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from batchlab.analysis.paired import Difference, Sample, differences
from batchlab.search import space
from batchlab.search.space import Branch, Line, Setting
from batchlab.search.standings import Entry, Left, Measured, Standings, Why

GROWTH, QUICK_GROWTH = 2, 4
"""A rung has so many times the rows of the one before; four times where that takes next to no time."""
NEXT_TO_NOTHING = 0.02
"""Of the time left."""
ERROR = 0.05
"""The chance, over all looks, that a setting is called behind which is not."""
EARLY_STEPS = 8
"""With fewer steps than this the slope of a curve says little yet; it may then go on twice as fast as it began."""
OPTIMISM, CAUTION = 1.25, 0.5
"""A curve may go on falling 1.25 times as steeply (in logarithms of rows) as over the last doubling; the leader's at least half as."""
FINALISTS, CONFIRMATIONS = 6, 16
"""The horizon leaves time for so many settings to get there, and for so many whole trainings that confirm."""
MOST_DRAWS = 8
SHARE_OF_PROPOSALS = 0.25
"""Of the time left to the race, settings proposed at one rung may take so much to catch up."""
FINER_FROM, SIZES_FROM = 8, 16
"""Finer rates are proposed from an 8th of the horizon on, batch sizes from a 16th."""


@dataclass(frozen=True)
class Terms:
    """What a race goes by: training rows, rows that a whole training and the first rung see, draws of every setting,
    whether the validation rows are the same for all draws (so that they share in the uncertainty), the lines of the table, and what may be proposed."""

    row_count: int
    budget_rows: int
    first_rows: int
    draws: int
    rows_are_shared: bool
    lines: tuple[Line, ...]
    new_rates: bool = True
    new_sizes: bool = True


@dataclass(frozen=True)
class Rung:
    """A stretch of work: each of the settings with so many draws until so many rows; those that leave for lack of time instead."""

    until_rows: int
    draws: Mapping[Setting, int]
    cut: tuple[Setting, ...] = ()


def horizon(standings: Standings, terms: Terms, seconds: float) -> int:
    """Return how many rows a whole training of this race has: the budget, or what a few finalists and their confirmation can afford."""
    leader = standings.leader
    if leader is None or math.isinf(seconds):
        return terms.budget_rows
    a_row = standings.row_seconds.get(leader.setting.branch, 0.0)
    shares = FINALISTS * terms.draws + CONFIRMATIONS
    affordable = (seconds + FINALISTS * terms.draws * standings.rows * a_row) / (shares * a_row) if a_row else math.inf
    return int(max(standings.rows, min(terms.budget_rows, affordable)))


def departures(standings: Standings, terms: Terms, until: int) -> dict[Setting, Left]:
    """Return who leaves: those that diverged, and those surely behind the leader now whose curve does not reach the leader's by `until`.

    Differences are paired over draws and validation rows. Look k may err with chance `ERROR`/(k(k+1)), all looks together with `ERROR`.
    """
    leader = standings.leader
    if leader is None:
        return {}
    lead = leader.measured
    assert lead is not None
    running = [entry for entry in standings.running if entry.trials and entry is not leader]
    gone = {entry.setting: _left("diverged", entry, leader) for entry in running if entry.diverged}
    still = [(entry, found) for entry in running if not entry.diverged and (found := entry.measured) is not None]
    compared = differences([sample_of(lead, terms), *(sample_of(found, terms) for _, found in still)], 0)[1:]
    bar, error = _slowest(lead, until), ERROR / (standings.looks * (standings.looks + 1)) if standings.looks else ERROR
    for (entry, found), difference in zip(still, compared, strict=True):
        if difference.low(error) > 0 and projected(found, entry.steps, until) > bar:
            gone[entry.setting] = _left("behind", entry, leader)
    return gone


def _left(why: Why, entry: Entry, leader: Entry) -> Left:
    return Left(why, entry.rows, entry.loss, leader.setting, leader.loss)


def sample_of(found: Measured, terms: Terms) -> Sample:
    """Return the losses that are compared."""
    return Sample(found.at_best, found.portions if terms.rows_are_shared else None)


def projected(found: Measured, steps: int, until: int) -> float:
    """Return the lowest loss that the curve may come to after `until` rows, with optimism.

    Past its best it comes to no more. After few steps it may go on twice as fast as it began, exponentially; later along a power of the
    rows, somewhat steeper than over its last doubling.
    """
    rows, mean = found.rows, found.mean
    last, loss = float(rows[-1]), found.loss
    if until <= last:
        return loss
    if steps < EARLY_STEPS:
        return float(loss * min(1.0, mean[-1] / mean[0]) ** (2 * (until - last) / last)) if last > 0 and mean[0] > 0 else -math.inf
    return loss * (until / last) ** (-OPTIMISM * _slope(found))


def _slowest(found: Measured, until: int) -> float:
    """Return a loss that the leader will at least come to."""
    last = float(found.rows[-1])
    return found.loss if until <= last or last <= 0 else found.loss * (until / last) ** (-CAUTION * _slope(found))


def _slope(found: Measured) -> float:
    """Return how steeply the mean curve fell over the last doubling of rows, in logarithms of both; 0 where it rose."""
    rows, mean = found.rows, found.mean
    before = int(np.searchsorted(rows, rows[-1] / 1.9, side="right")) - 1
    if before < 0 or rows[before] <= 0 or not (mean[-1] > 0 and mean[before] > 0):
        return 0.0
    return max(0.0, float(np.log(mean[before] / mean[-1]) / np.log(rows[-1] / rows[before])))


def next_rung(standings: Standings, terms: Terms, seconds: float) -> Rung | None:
    """Return the next stretch of work that fits into so many seconds of racing; None when the race is over.

    First all settings, a few rows each. Then, at each rung, settings where the curves point catch up; then those that are left go on to
    twice the rows, the most promising ones where time is short. At the horizon those that are left get further draws.
    """
    if standings.rows == 0:
        return Rung(terms.first_rows, dict.fromkeys(_startable(standings, terms, terms.first_rows), terms.draws))
    if seconds <= 0 or standings.leader is None:
        return None
    end = horizon(standings, terms, seconds)
    fresh = proposals(standings, terms, end)
    if fresh and _cost(standings, map(Entry, fresh), terms, standings.rows) <= SHARE_OF_PROPOSALS * seconds:
        return Rung(standings.rows, dict.fromkeys(fresh, terms.draws))
    if standings.rows < end:
        return _further(standings, terms, end, seconds)
    return _more_draws(standings, terms, seconds)


def _further(standings: Standings, terms: Terms, end: int, seconds: float) -> Rung:
    rows = standings.rows
    quick = min(QUICK_GROWTH * rows, end)
    until = (
        quick
        if _cost(standings, _starting(standings, terms, quick), terms, quick) <= NEXT_TO_NOTHING * seconds
        else min(GROWTH * rows, end)
    )
    running, rungs_left = _starting(standings, terms, until), max(1.0, math.ceil(math.log2(end / rows)))
    allowed = seconds * (FINALISTS * terms.draws) / (FINALISTS * terms.draws + CONFIRMATIONS * rows / end) / rungs_left
    kept, cut, spent = [], [], 0.0
    for entry in _by_promise(standings, running, end):
        spent += _cost(standings, [entry], terms, until)
        (kept if spent <= allowed or not kept else cut).append(entry)
    return Rung(until, {entry.setting: len(entry.trials) or terms.draws for entry in kept}, tuple(entry.setting for entry in cut))


def _startable(standings: Standings, terms: Terms, until: int) -> list[Setting]:
    """Return the settings in the race that make a step within so many rows: larger batches wait, at no cost, where they began."""
    return [entry.setting for entry in standings.running if entry.setting.updates.rows_per_step(terms.row_count) <= until]


def _starting(standings: Standings, terms: Terms, until: int) -> list[Entry]:
    return [standings.entries[setting] for setting in _startable(standings, terms, until)]


def _by_promise(standings: Standings, running: Sequence[Entry], until: int) -> list[Entry]:
    """Return the entries, the leader and what people type first, then by what their curves may come to."""

    def rank(entry: Entry) -> tuple[bool, bool, float]:
        found = entry.measured
        loss = math.inf if found is None else projected(found, entry.steps, until)
        return entry is not standings.leader, not entry.setting.typed, loss

    return sorted(running, key=rank)


def _more_draws(standings: Standings, terms: Terms, seconds: float) -> Rung | None:
    """Return twice the draws for those that are left, the best ones where time is short; None when they have them or there is no time."""
    few = [entry for entry in standings.running if entry.trials and len(entry.trials) < MOST_DRAWS and not entry.diverged]
    chosen, spent = {}, 0.0
    for entry in sorted(few, key=lambda entry: standings.losses[entry.setting]):
        draws = min(MOST_DRAWS, 2 * len(entry.trials))
        spent += (draws - len(entry.trials)) * standings.rows * standings.row_seconds.get(entry.setting.branch, 0.0)
        if spent > SHARE_OF_PROPOSALS * seconds:
            break
        chosen[entry.setting] = draws
    return Rung(standings.rows, chosen) if len(chosen) > 1 else None


def _cost(standings: Standings, entries: Iterable[Entry], terms: Terms, until: int) -> float:
    """Return the seconds that it takes to bring these entries there."""
    usual = _usual(standings)
    return sum(
        (len(entry.trials) or terms.draws) * max(0, until - entry.rows) * standings.row_seconds.get(entry.setting.branch, usual)
        for entry in entries
    )


def _usual(standings: Standings) -> float:
    """Return what a row of a branch that has not trained yet should take: the median of the others."""
    return float(np.median(list(standings.row_seconds.values()))) if standings.row_seconds else 0.0


def proposals(standings: Standings, terms: Terms, end: int) -> list[Setting]:
    """Return settings that were not tried, where the curves point: beyond an edge that does best, finer rates, other batch sizes."""
    leader = standings.leader
    if leader is None or standings.looks < 2:
        return []
    losses, leading = standings.losses, leading_branches(standings, terms.lines)
    found = space.beyond_edges(losses, leading) if terms.new_rates else []
    if terms.new_sizes and SIZES_FROM * standings.rows >= end and not leader.setting.typed:
        found += space.between_sizes(leader.setting, losses)
    if terms.new_rates and FINER_FROM * standings.rows >= end:
        found += space.finer(losses, leading)
    return [setting for setting in dict.fromkeys(found) if setting not in standings.entries]


def leading_branches(standings: Standings, lines: Iterable[Line]) -> list[Branch]:
    """Return of every line the branch that does best, while its best setting is in the race; and all others that are."""
    found: dict[Branch, None] = {}
    for line in lines:
        best = best_of(line, standings)
        if line.typed is None and best is not None and best.left is None:
            found[best.setting.branch] = None
    for entry in standings.running:
        if not entry.setting.typed and math.isfinite(entry.loss):
            found[entry.setting.branch] = None
    return list(found)


def best_of(line: Line, standings: Standings) -> Entry | None:
    """Return the entry with the lowest loss among those that the line may show; None where all diverged or nothing trained."""
    held = [entry for entry in standings.entries.values() if line.holds(entry.setting) and math.isfinite(entry.loss)]
    return min(held, key=lambda entry: standings.losses[entry.setting], default=None)


def difference(one: Measured, other: Measured, terms: Terms) -> Difference:
    """Return the loss of `one` over that of `other`, less 1."""
    return differences([sample_of(other, terms), sample_of(one, terms)], 0)[1]
