"""Why the gate decided as it did, in plain sentences with their numbers."""

import math
from collections.abc import Sequence

from batchlab.retraining.contest import Contestant
from batchlab.retraining.improvement import Improvement
from batchlab.retraining.promotion import Decision, Guard
from batchlab.rules.retraining import GateRule


def reasons(
    decision: Decision, champion: Contestant | None, challenger: Contestant, found: Improvement, guards: Sequence[Guard], rule: GateRule
) -> tuple[str, ...]:
    """Return what decided first, then what else people should know; never empty."""
    failed = [guard.said for guard in guards if not guard.passed]
    diverged = any(guard.name == "finite" and not guard.passed for guard in guards)
    if champion is None or diverged:
        head = [] if failed else ["There was no champion yet, and the challenger passed every guard."]
    elif not math.isfinite(champion.loss):
        head = [_of_a_broken_champion(champion, decision)]
    else:
        head = [_of_the_mean(champion, challenger, found, rule)]
    if decision != "kept":
        return (*head, *(guard.said for guard in guards))
    blocked = failed and found.low > 0 and found.value >= rule.minimum_effect
    return (*failed, *head) if blocked or not head else (*head, *failed)


def _of_a_broken_champion(champion: Contestant, decision: Decision) -> str:
    end = "any finite loss is better." if decision == "promoted" else "any finite loss would be better."
    return f"The champion's mean loss on the {len(champion.losses):,} holdout rows is not finite; {end}"


def _of_the_mean(champion: Contestant, challenger: Contestant, found: Improvement, rule: GateRule) -> str:
    """Say by how much the mean loss changed and how sure that is."""
    losses = f"{challenger.loss:.5g} against the champion's {champion.loss:.5g} on {len(champion.losses):,} holdout rows"
    if not math.isfinite(found.value):
        return f"The challenger's mean loss is {losses}, which leaves nothing to improve."
    if not math.isfinite(found.low):
        return f"The challenger's mean loss is {losses}; so few rows or seeds do not say how sure that is."
    change = f"{abs(found.value):.2%} {'lower' if found.value >= 0 else 'higher'}"
    ends = f"the {100 * (2 * rule.confidence - 1):.3g}% interval of the improvement is {found.low:.2%} to {found.high:.2%}"
    said = f"The challenger's mean loss is {change}: {losses}; {ends} (with other seeds it scatters by {found.seed_scatter:.2%})"
    return f"{said}{_judged(found, rule)}."


def _judged(found: Improvement, rule: GateRule) -> str:
    if found.high < 0:
        return ", so it is surely worse"
    if found.low <= 0:
        return ", so the difference may be chance"
    if found.value < rule.minimum_effect:
        return f", so it is better but by less than the minimum effect of {rule.minimum_effect:.2%}"
    return f", and the minimum effect is {rule.minimum_effect:.2%}"
