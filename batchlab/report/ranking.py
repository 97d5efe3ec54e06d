"""The order in which settings are shown: best first, by what the search went by; those that never got there last."""

import math

from batchlab.analysis.verdict import Objective, rank_of
from batchlab.search.findings import Finding, Findings


def objective(found: Findings) -> Objective:
    """Return what the settings are ranked by: the lowest loss where there is no target."""
    if found.choice is None:
        return "time"
    return found.choice.objective


def ranked(found: Findings) -> list[Finding]:
    """Return all settings, those that people type among them, best first; diverged ones last."""

    def rank(item: Finding) -> tuple[bool, bool, int, float]:
        if item.outcome.status == "diverged":
            return True, True, 0, math.inf
        missed, value = rank_of(item.outcome, objective(found))
        return item is not found.best, False, missed, value if math.isfinite(value) else math.inf

    return sorted((*found.settings, *found.typed), key=rank)


def times_shown(found: Findings, item: Finding) -> bool:
    """Whether the setting has seconds to the target, or a lower bound of them."""
    return found.target_loss is not None and item.outcome.status != "diverged"
