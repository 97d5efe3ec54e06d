"""The race's next stretch of work, pure: how far whom, with how many draws, in the time there is."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from batchlab.search.judging import Ends, slowest
from batchlab.search.proposing import beginners, proposals
from batchlab.search.space import Setting
from batchlab.search.standings import Entry, Standings
from batchlab.search.terms import Terms

FIRST_SHARE = 1 / 1024
"""The second rung brings settings to so much of a whole training, or as far as the first one went where that is more."""
GROWTH, QUICK_GROWTH = 2, 4
"""A rung goes to so many times the share of the one before; four times where that takes next to no time."""
NEXT_TO_NOTHING, SHARE_OF_A_LEAP = 0.02, 0.3
"""Of the time left; where all that are left can go to their ends for so much of it, they do: nothing tells the end better."""
FINALISTS, CONFIRMATIONS = 6, 10
"""A whole training takes what leaves time for so many settings to get there, and for so many trainings that confirm."""
WORTHWHILE = 1.2
"""An entry goes on when it can see so many times the rows it has seen."""
TOO_LONG = 2
"""A rung that takes so many times its part of the time, because rows cost more than they did, ends before it is through."""
MOST_DRAWS = 8
SHARE_OF_PROPOSALS = 0.25
"""Of the time left to the race, settings proposed at one rung may take so much to catch up, and so much of a rung's those that begin."""


@dataclass(frozen=True)
class Seconds:
    """What is left for racing, and for the confirmation after it; infinite without a limit."""

    racing: float = math.inf
    confirming: float = math.inf


@dataclass(frozen=True)
class Goal:
    """How far a setting goes, with how many draws."""

    rows: int
    draws: int


@dataclass(frozen=True)
class Rung:
    """A stretch of work: the share of a whole training that it goes to, where each of the settings goes, most promising first, those that
    leave for lack of time instead, and the seconds after which the others of its settings stay where they are."""

    share: float
    goals: Mapping[Setting, Goal]
    cut: tuple[Setting, ...] = ()
    seconds: float = math.inf


def ends_of(standings: Standings, terms: Terms, seconds: Seconds) -> Ends:
    """Return how many rows a whole training of an entry has: the budget, or what time affords at what its rows cost.

    All have the same time, not the same rows: large batches see more rows in it.
    """
    return partial(_end, standings, terms, seconds)


def _end(standings: Standings, terms: Terms, seconds: Seconds, entry: Entry) -> int:
    a_row = row_seconds(standings, entry)
    if math.isinf(seconds.racing) or not a_row:
        return terms.budget_rows
    finalists = max(1, min(FINALISTS, len(standings.running)))
    racing = entry.rows + seconds.racing / (finalists * terms.draws * a_row)
    return int(max(entry.rows, min(terms.budget_rows, racing, seconds.confirming / (CONFIRMATIONS * a_row))))


def next_rung(standings: Standings, terms: Terms, seconds: Seconds) -> Rung | None:
    """Return the next stretch of work that fits into the time left; None when the race is over."""
    if standings.share == 0:
        rows, settings = beginners(standings, terms)
        share = min(max(FIRST_SHARE, rows / terms.budget_rows) / GROWTH, 1.0)
        return Rung(share, dict.fromkeys(settings[: terms.beginners], Goal(rows, terms.draws)))
    if seconds.racing <= 0 or standings.leader is None:
        return None
    ends = ends_of(standings, terms, seconds)
    fresh = [Entry(setting) for setting in proposals(standings, terms)]
    here = _goal(standings.share, ends)
    if fresh and _cost(standings, terms, fresh, here) <= SHARE_OF_PROPOSALS * seconds.racing:
        return Rung(standings.share, {entry.setting: Goal(here(entry), terms.draws) for entry in fresh})
    return _further(standings, terms, ends, seconds) or _more_draws(standings, terms, seconds)


def _goal(share: float, ends: Ends) -> Ends:
    return lambda entry: max(1, round(share * ends(entry)))


def _further(standings: Standings, terms: Terms, ends: Ends, seconds: Seconds) -> Rung | None:
    """Return a rung on which those that can go on do, as many as its part of the time allows; None where all are at their ends."""
    share = _next_share(standings, terms, ends, seconds)
    goal = _goal(share, ends)
    moving = [entry for entry in _startable(standings, terms, goal) if not entry.ended and _goes_on(entry, goal(entry), terms)]
    if not moving:
        return None if standings.share == share else Rung(share, {})
    rungs_left = max(1, math.ceil(math.log2(1 / standings.share)))
    allowed = seconds.racing / rungs_left
    kept, cut = _afforded(standings, terms, moving, goal, ends, allowed, SHARE_OF_A_LEAP * seconds.racing)
    if not kept and standings.share == share:
        return None
    goals = {entry.setting: Goal(goal(entry), len(entry.trials) or terms.draws) for entry in kept}
    return Rung(share, goals, cut, TOO_LONG * allowed)


def _next_share(standings: Standings, terms: Terms, ends: Ends, seconds: Seconds) -> float:
    """Return the share of the next rung: a whole training's in the end, where ends may still move as others leave.

    No rung trains for less than looking at it costs.
    """
    if math.isinf(seconds.racing):
        return min(QUICK_GROWTH * standings.share, 1.0)
    if _cost(standings, terms, _startable(standings, terms, ends), ends) <= SHARE_OF_A_LEAP * seconds.racing:
        return 1.0
    leader = standings.leader
    whole = 0.0 if leader is None else ends(leader) * row_seconds(standings, leader)
    if standings.look_seconds > GROWTH * standings.share * whole:
        return min(1.0, standings.look_seconds / whole) if whole else 1.0
    quick = min(QUICK_GROWTH * standings.share, 1.0)
    goal = _goal(quick, ends)
    cheap = _cost(standings, terms, _startable(standings, terms, goal), goal) <= NEXT_TO_NOTHING * seconds.racing
    return quick if cheap else min(GROWTH * standings.share, 1.0)


def _goes_on(entry: Entry, goal: int, terms: Terms) -> bool:
    return goal >= WORTHWHILE * entry.rows and goal - entry.rows >= entry.setting.updates.rows_per_step(terms.row_count)


def _afforded(
    standings: Standings, terms: Terms, moving: Sequence[Entry], goal: Ends, ends: Ends, seconds: float, most: float
) -> tuple[list[Entry], tuple[Setting, ...]]:
    """Return which entries so many seconds bring to their goals, and who leaves for lack of them; a few go on while that takes no more
    than the `most`, where a rung is a leap, and entries that begin may begin later."""
    kept: list[Entry] = []
    cut: list[Entry] = []
    spent = began = 0.0
    for entry in _by_promise(standings, moving, ends):
        cost = _cost(standings, terms, [entry], goal)
        if not entry.trials:
            if began + cost <= SHARE_OF_PROPOSALS * seconds:
                began, spent = began + cost, spent + cost
                kept.append(entry)
            continue
        spent += cost
        few = not kept or (len(kept) < FINALISTS and spent <= most)
        (kept if spent <= seconds or few else cut).append(entry)
    return kept, tuple(entry.setting for entry in cut)


def _by_promise(standings: Standings, moving: Sequence[Entry], ends: Ends) -> list[Entry]:
    """Return the entries: the leader and what people type, those that begin, the others by what their curves may come to."""

    def rank(entry: Entry) -> tuple[bool, bool, float]:
        found = entry.measured
        loss = -math.inf if found is None else slowest(found, ends(entry))
        return entry is not standings.leader, not entry.setting.typed, loss

    return sorted(moving, key=rank)


def _startable(standings: Standings, terms: Terms, goal: Ends) -> list[Entry]:
    """Return the entries in the race that make a step on the way to their goal: larger batches wait, at no cost, where they began."""
    return [entry for entry in standings.running if entry.setting.updates.rows_per_step(terms.row_count) <= goal(entry)]


def _more_draws(standings: Standings, terms: Terms, seconds: Seconds) -> Rung | None:
    """Return twice the draws for those that are left, the best ones where time is short; None when they have them or there is no time."""
    few = [entry for entry in standings.running if entry.trials and len(entry.trials) < MOST_DRAWS and not entry.diverged]
    chosen, spent = {}, 0.0
    for entry in sorted(few, key=lambda entry: standings.losses[entry.setting]):
        draws = min(MOST_DRAWS, 2 * len(entry.trials))
        spent += (draws - len(entry.trials)) * (entry.rows * row_seconds(standings, entry) + standings.look_seconds)
        if spent > SHARE_OF_PROPOSALS * seconds.racing:
            break
        chosen[entry.setting] = Goal(entry.rows, draws)
    return Rung(standings.share, chosen) if len(chosen) > 1 else None


def _cost(standings: Standings, terms: Terms, entries: Iterable[Entry], goal: Ends) -> float:
    """Return the seconds that it takes to bring these entries to their goals."""
    return sum(
        (len(entry.trials) or terms.draws) * (max(0, goal(entry) - entry.rows) * row_seconds(standings, entry) + standings.look_seconds)
        for entry in entries
    )


def row_seconds(standings: Standings, entry: Entry) -> float:
    """Return what a row costs the entry: what its branch paid; the median of all where that has not trained yet."""
    paid = standings.row_seconds
    return paid.get(entry.setting.branch, float(np.median(list(paid.values()))) if paid else 0.0)
