"""The order in which settings are shown: best first, by what the search went by; those that never got there last."""

import math

from batchlab.analysis.verdict import MEASURES, Objective
from batchlab.search.findings import Finding, Findings


def objective(found: Findings) -> Objective:
    """Return what the settings are ranked by: the lowest loss where there is no target."""
    if found.choice is None:
        return "time"
    return found.choice.objective


def ranked(found: Findings) -> list[Finding]:
    """Return all settings, those that people type among them, best first; diverged ones last."""
    measure = MEASURES[objective(found)]

    def rank(item: Finding) -> tuple[bool, bool, int, float]:
        outcome = item.outcome
        diverged = outcome.status == "diverged"
        missed = len(outcome.steps) - outcome.seeds_reached if measure.needs_target else 0
        value = math.inf if diverged else measure.rank(outcome)
        return item is not found.best, diverged, missed, value if math.isfinite(value) else math.inf

    return sorted((*found.settings, *found.typed), key=rank)


def times_shown(found: Findings, item: Finding) -> bool:
    """Whether the setting has seconds to the target, or a lower bound of them."""
    return found.target_loss is not None and item.outcome.status != "diverged"
