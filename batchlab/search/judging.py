"""Who is behind in a race, pure: paired losses now, and where the curves may come to."""

import math
from collections.abc import Callable

import numpy as np

from batchlab.analysis.paired import Sample, differences
from batchlab.search.space import Line, Setting
from batchlab.search.standings import Entry, Left, Measured, Standings, Why
from batchlab.search.terms import Terms

ERROR = 0.05
"""The chance, over all looks, that a setting is called behind which is not."""
JUDGED_FROM = 1 / 32
"""Nobody is called behind before so much of a whole training: curves begin with plateaus that say nothing about their end."""
JUDGED_ROWS, JUDGED_ANYWAY = 4096, 1 / 4
"""Nor before so many rows, up to so much of one: where time affords few rows, a plateau takes a good part of them."""
EARLY_STEPS = 8
"""With fewer steps than this the slope of a curve says little yet; it may then go on twice as fast as it began."""
OPTIMISM, CAUTION = 1.25, 0.5
"""A curve may go on falling 1.25 times as steeply (in logarithms of rows) as over the last doubling; the leader's at least half as."""
Ends = Callable[[Entry], int]
"""How many rows a whole training of an entry has."""


def departures(standings: Standings, terms: Terms, ends: Ends) -> dict[Setting, Left]:
    """Return who leaves: those that diverged, and those surely behind the leader now whose curve does not reach the leader's by their end.

    Differences are paired over draws and validation rows. Look k may err with chance `ERROR`/(k(k+1)), all looks together with `ERROR`;
    shared by all that are looked at, because the leader is the luckiest of them.
    """
    leader = standings.leader
    if leader is None:
        return {}
    lead = leader.measured
    assert lead is not None
    running = [entry for entry in standings.running if entry.trials and entry is not leader]
    gone = {entry.setting: left("diverged", entry, leader) for entry in running if entry.diverged}
    still = [(entry, found) for entry in running if not entry.diverged and (found := entry.measured) is not None]
    compared = differences([sample_of(leader, terms), *(sample_of(entry, terms) for entry, _ in still)], 0)[1:]
    look = max(standings.looks, 1)
    bar, error = slowest(lead, ends(leader)), ERROR / (look * (look + 1)) / max(len(still), 1)
    for (entry, found), difference in zip(still, compared, strict=True):
        judged = standings.share >= (JUDGED_FROM if entry.rows >= JUDGED_ROWS else JUDGED_ANYWAY)
        if judged and difference.low(error) > 0 and projected(found, entry.steps, ends(entry)) > bar:
            gone[entry.setting] = left("behind", entry, leader)
    return gone


def left(why: Why, entry: Entry, leader: Entry) -> Left:
    """Return the record of a setting that leaves."""
    return Left(why, entry.rows, entry.loss, leader.setting, leader.rows, leader.loss)


def sample_of(entry: Entry, terms: Terms) -> Sample:
    """Return the losses of an entry that are compared; it has some."""
    found = entry.measured
    assert found is not None
    return Sample(found.at_best, terms.shared(found.portions, [trial.trial.division for trial in entry.trials]))


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
    return float(loss * (until / last) ** (-OPTIMISM * _slope(found)))


def slowest(found: Measured, until: int) -> float:
    """Return a loss that the leader will at least come to."""
    last = float(found.rows[-1])
    return found.loss if until <= last or last <= 0 else found.loss * (until / last) ** (-CAUTION * _slope(found))


def _slope(found: Measured) -> float:
    """Return how steeply the mean curve fell over the last doubling of rows, in logarithms of both; 0 where it rose."""
    rows, mean = found.rows, found.mean
    before = int(np.searchsorted(rows, rows[-1] / 1.9, side="right")) - 1
    if before < 0 or rows[before] <= 0 or not (0 < mean[-1] < math.inf and mean[before] > 0):
        return 0.0
    return max(0.0, float(np.log(mean[before] / mean[-1]) / np.log(rows[-1] / rows[before])))


def best_of(line: Line, standings: Standings) -> Entry | None:
    """Return the entry with the lowest loss among those that the line may show; None where all diverged or nothing trained."""
    held = [entry for entry in standings.entries.values() if line.holds(entry.setting) and math.isfinite(entry.loss)]
    return min(held, key=lambda entry: standings.losses[entry.setting], default=None)
