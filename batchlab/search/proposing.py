"""What joins a race, pure: those that begin it, and later settings that were not tried, where the curves point."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from batchlab.analysis.paired import differences
from batchlab.engine import rates
from batchlab.search.judging import ERROR, best_of, sample_of
from batchlab.search.space import Branch, Line, Setting, of_branches, widely
from batchlab.search.standings import NEAR_LOWEST, Standings
from batchlab.search.terms import Terms
from batchlab.strategies.mini_batch import MiniBatch

FINER_FROM, SIZES_FROM = 1 / 8, 1 / 16
"""Finer rates are proposed from an 8th of a whole training on, batch sizes from a 16th."""
CLOSE_SIZES = 2.5
"""Batch sizes within such a factor of each other have no further one tried between them."""


def beginners(standings: Standings, terms: Terms) -> tuple[int, list[Setting]]:
    """Return the rows of the first rung, and the settings that make a step in these, those first that cover the space: all of them stacked
    where some can be."""
    steps = {entry.setting: entry.setting.updates.rows_per_step(terms.row_count) for entry in standings.running}
    rows = max(terms.first_rows, min(steps.values(), default=0))
    starting = [setting for setting, step in steps.items() if step <= rows]
    return rows, widely([setting for setting in starting if not setting.updates.adapts] or starting, terms.row_count)


def proposals(standings: Standings, terms: Terms) -> list[Setting]:
    """Return settings that were not tried: beyond an edge that does best, finer rates, other batch sizes."""
    leader = standings.leader
    if leader is None or standings.looks < 2:
        return []
    losses, leading = standings.losses, leading_branches(standings, terms.lines)
    found = beyond_edges(standings, terms, leading) if terms.new_rates else []
    if terms.new_sizes and standings.share >= SIZES_FROM and not leader.setting.typed:
        found += between_sizes(leader.setting, losses, terms.new_rates)
    if terms.new_rates and standings.share >= FINER_FROM:
        found += finer(losses, leading)
    fresh = [setting for setting in dict.fromkeys(found) if setting not in standings.entries]
    return [setting for setting in fresh if rates.worth_trying(setting.optimizer, setting.learning_rate)]


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


def beyond_edges(standings: Standings, terms: Terms, leading: Iterable[Branch]) -> list[Setting]:
    """Return a setting beyond each edge of the rates where one of these branches does best, surely better than at the rate beside it.

    What is best by luck alone is no direction: on few rows an edge that followed it went from a rate of 0.03 to one of 100.
    """
    branches, losses = of_branches(standings.entries), standings.losses
    return [
        replace(best, learning_rate=rate)
        for branch in leading
        if (best := _best_of(branches.get(branch, []), losses)) is not None and _leads(best, branches[branch], standings, terms)
        for rate in rates.beyond([item.learning_rate for item in branches[branch]], best.learning_rate)
    ]


def _leads(best: Setting, branch: Sequence[Setting], standings: Standings, terms: Terms) -> bool:
    """Whether the loss at the best of the rates (lowest first) is surely lower than at those beside it, where there are any."""
    place = branch.index(best)
    beside = [standings.entries[item] for item in (*branch[max(place - 1, 0) : place], *branch[place + 1 : place + 2])]
    known = [entry for entry in beside if math.isfinite(entry.loss)]
    found = differences([sample_of(entry, terms) for entry in (standings.entries[best], *known)], 0)[1:]
    return all(difference.low(ERROR) > 0 for difference in found)


def finer(losses: Mapping[Setting, float], leading: Iterable[Branch]) -> list[Setting]:
    """Return settings a quarter of a decade to both sides of the best of each of these branches."""
    branches = of_branches(losses)
    return [
        replace(best, learning_rate=rate)
        for branch in leading
        if (best := _best_of(branches.get(branch, []), losses)) is not None
        for rate in rates.between([item.learning_rate for item in branches[branch]], best.learning_rate)
    ]


def _best_of(settings: Sequence[Setting], losses: Mapping[Setting, float]) -> Setting | None:
    """Return the setting with the lowest loss; of several that do as well, the one in the middle: where the rate makes no difference,
    there is nothing to look for beside it."""
    lowest = min((losses[item] for item in settings), default=math.inf)
    alike = [item for item in settings if losses[item] <= lowest * (1 + NEAR_LOWEST)] if math.isfinite(lowest) else []
    return alike[len(alike) // 2] if alike else None


def between_sizes(leader: Setting, tried: Iterable[Setting], new_rates: bool = True) -> list[Setting]:
    """Return the leader's optimizer at the geometric mean of its batch size and each neighbouring one, at its rate and those beside it;
    without `new_rates`, at those that it was tried at.

    A rate is tried at every size, never scaled by a rule. Nothing for a strategy that is no mini-batch drawn at random. What people type
    is tried at one rate only, so its size is no neighbour.
    """
    if not isinstance(leader.updates, MiniBatch) or not leader.updates.shuffled:
        return []
    own, tried = leader.updates.batch_rows, tuple(item for item in tried if not item.typed)
    sizes = {item.updates.batch_rows for item in tried if isinstance(item.updates, MiniBatch) and item.updates.shuffled}
    place, found = rates.quarter_of(leader.learning_rate), []
    given = [item.learning_rate for item in tried if item.branch == leader.branch]
    chosen = [rates.rate_at(place + step) for step in (-2, 0, 2)] if new_rates else given
    for other in (max((size for size in sizes if size < own), default=own), min((size for size in sizes if size > own), default=own)):
        if max(own, other) / min(own, other) > CLOSE_SIZES:
            strategy = MiniBatch(batch_rows=_round_size(math.sqrt(own * other)))
            found += [replace(leader, updates=strategy, learning_rate=rate, typed=False) for rate in chosen]
    return [item for item in found if item not in tried]


def _round_size(size: float) -> int:
    """Return the power of two nearest to the size, by ratio."""
    return int(2 ** round(math.log2(size)))
