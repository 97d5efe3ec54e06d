"""What is confirmed with fresh draws once the race is over: which settings, for how many rows, with how many draws. Pure."""

import math
from dataclasses import dataclass

from batchlab.analysis.curves import crossing
from batchlab.rules.search import SearchRule
from batchlab.search.judging import best_of
from batchlab.search.space import Line, Setting
from batchlab.search.standings import Entry, Standings
from batchlab.search.terms import Terms

FEWEST_DRAWS = 3
"""With fewer fresh draws than this there is no interval worth the name."""
SURE_DRAWS, SURE_SETTINGS = 12, 5
"""Where draws divide the rows their losses lie askew, and of fewer draws than this an interval holds less often than it says: lines at the
end are left out for them, while so many settings are left."""
PAST_ITS_BEST = 0.6
"""A curve whose lowest point lies before so much of the rows it has seen is past its best: the rest only costs."""
SHARE_OF_LOOKS, FEWEST_LOOKED_AT = 0.5, 1024
"""Looks at a confirming training take at most this part of it, but go by that many validation rows at least."""
SHARE_OF_LAST_LOOK = 0.25
"""The last look, which decides, may take so much of it alone, and then goes by more rows."""
SPARE = 0.3
"""Lines that are surely behind are trained to the end all the same where that takes at most so much of the time left."""


@dataclass(frozen=True)
class Confirmation:
    """A setting to train with fresh draws for so many rows."""

    setting: Setting
    rows: int
    draws: int


@dataclass(frozen=True)
class Aim:
    """What a choice goes by: the margin that counts as as good, a target as training sees it (None: the best loss plus the margin),
    whether cost decides among the good ones, the most draws of a confirmation, the seconds that all looks at one training take, and how
    many draws are worth leaving settings out for."""

    margin: float
    target: float | None
    by_cost: bool
    draws: int
    look_seconds: float = 0.0
    sure_draws: int = FEWEST_DRAWS


def aim_of(rule: SearchRule, loss_unit: float, terms: Terms, look_seconds: float) -> Aim:
    """Return the aim of a search; its target is in the target's unit, training's in another (`loss_unit`)."""
    target = None if rule.target_loss is None else rule.target_loss / loss_unit
    sure_draws = min(SURE_DRAWS, terms.fresh_draws) if terms.overlap else FEWEST_DRAWS
    return Aim(rule.margin, target, rule.objective != "loss", terms.fresh_draws, look_seconds, sure_draws)


def confirmations(standings: Standings, terms: Terms, aim: Aim, seconds: float) -> list[Confirmation]:
    """Return what to confirm within so many seconds, most important first: the leader, then of each line the setting it should show.

    Lines that are as good as the leader come by their cost, the others by their loss. Where time is short fewer draws are made, then
    lines at the end are left out; those that have left the race come only where there is time to spare.
    """
    chosen, spare = _ordered(standings, terms, aim)
    costs = {
        setting: rows * standings.row_seconds.get(setting.branch, 0.0) + aim.look_seconds for setting, rows in {**chosen, **spare}.items()
    }
    for draws, fewest in ((aim.sure_draws, SURE_SETTINGS), (FEWEST_DRAWS, 2)):
        while len(chosen) > fewest and draws * sum(costs[setting] for setting in chosen) > seconds:
            chosen.pop(next(reversed(chosen)))
    whole = sum(costs[setting] for setting in chosen)
    draws = aim.draws if not whole else int(min(aim.draws, max(seconds / whole, 2)))
    left = seconds - draws * whole
    for setting, rows in spare.items():
        if draws * costs[setting] <= SPARE * left:
            chosen[setting] = rows
            left -= draws * costs[setting]
    return [Confirmation(setting, rows, draws) for setting, rows in chosen.items()]


def rows_looked_at(standings: Standings, look_seconds: float, looks: int, held_out: int, share: float = SHARE_OF_LOOKS) -> int:
    """Return how many of the validation rows that are held out so many looks at a confirming training go by: all, or as many as keep
    looking from taking longer than a share of a training like the leader's. Looking at one row takes so many seconds."""
    leader = standings.leader
    if leader is None or not look_seconds:
        return held_out
    training = leader.rows * standings.row_seconds.get(leader.setting.branch, 0.0)
    return min(held_out, max(FEWEST_LOOKED_AT, int(share * training / (looks * look_seconds))))


def _ordered(standings: Standings, terms: Terms, aim: Aim) -> tuple[dict[Setting, int], dict[Setting, int]]:
    """Return settings and their rows: those in the race, in order; and the best of each line that has none left there."""
    leader = standings.leader
    if leader is None:
        return {}, {}
    target = aim.target if aim.target is not None else standings.losses[leader.setting] * (1 + aim.margin)
    shown = [(line, entry) for line in terms.lines if (entry := shown_by(line, standings, target, aim.by_cost)) is not None]
    racing = [entry for _, entry in shown if entry.left is None or entry.left.why == "time"]

    def rank(entry: Entry) -> tuple[bool, bool, float]:
        good = standings.losses[entry.setting] <= target
        return (
            entry is not leader,
            not good,
            seconds_to(standings, entry, target) if good and aim.by_cost else standings.losses[entry.setting],
        )

    ordered = sorted([leader, *racing], key=rank)
    chosen = {entry.setting: stop_rows(entry, entry.rows) for entry in ordered}
    gone = sorted((entry for _, entry in shown if entry.setting not in chosen), key=lambda entry: standings.losses[entry.setting])
    return chosen, {entry.setting: stop_rows(entry, terms.budget_rows) for entry in gone}


def shown_by(line: Line, standings: Standings, target: float, by_cost: bool) -> Entry | None:
    """Return the entry that the line shows: of those that reach the target the cheapest; else the one with the lowest loss."""
    best = best_of(line, standings)
    if best is None or not by_cost:
        return best
    good = [
        entry
        for entry in standings.running
        if line.holds(entry.setting) and standings.losses[entry.setting] <= target and entry.rows >= best.rows
    ]
    return min(good, key=lambda entry: seconds_to(standings, entry, target), default=best)


def seconds_to(standings: Standings, entry: Entry, target: float) -> float:
    """Return the seconds, as the race paid them, that the entry's mean curve takes to the target; infinite for never."""
    found = entry.measured
    rows = math.nan if found is None else crossing(found.rows, found.mean, target)
    return math.inf if math.isnan(rows) else rows * standings.row_seconds.get(entry.setting.branch, 0.0)


def stop_rows(entry: Entry, until: int) -> int:
    """Return for how many rows to train: to where its curve was lowest, when that is past, else as far as the race went. An untrained
    model is no answer, however little there is to learn: at least the first stretch that was looked at."""
    found = entry.measured
    if found is None:
        return until
    best = max(found.best_rows, int(found.rows[1])) if len(found.rows) > 1 else entry.rows
    return best if best < PAST_ITS_BEST * entry.rows else max(until, entry.rows)
