"""The order in which settings are shown: the recommended one, then by what the search went by; those that left the race later."""

import math

from batchlab.analysis.verdict import MEASURES
from batchlab.search.findings import Finding, Findings


def ranked(found: Findings) -> list[Finding]:
    """Return all settings, those that people type among them, best first: settings as good as the best by cost, the others by loss."""
    choice = found.choice
    by_loss = choice is None or choice.objective == "loss" or (choice.objective == "best" and choice.cheap)
    good = () if choice is None else (choice.label, *choice.as_good)

    def rank(item: Finding) -> tuple[bool, int, bool, float]:
        outcome = item.outcome
        last = ("reached", "not_reached", "behind", "diverged").index(outcome.status)
        as_good = item.candidate.label in good if choice is None or choice.objective == "best" else outcome.status == "reached"
        value = outcome.loss if choice is None or by_loss or not as_good else MEASURES[choice.objective].rank(outcome)
        return item is not found.best, max(0, last - 1), not as_good, value if math.isfinite(value) else math.inf

    return sorted((*found.settings, *found.typed), key=rank)


def times_shown(found: Findings, item: Finding) -> bool:
    """Whether the setting has seconds to the target, or a lower bound of them."""
    return found.target_loss is not None and item.outcome.status in ("reached", "not_reached")
