"""When the recommended setting is too old to follow, and a new comparison is due."""

from collections.abc import Mapping
from typing import Any

from batchlab.retraining.drift import Drift
from batchlab.retraining.rule import StaleRule
from batchlab.retraining.saved import Lineage


def stale_reasons(
    lineage: Lineage, rule: StaleRule, train_rows: int, drift: Drift | None, hardware: Mapping[str, Any], asked: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return why the setting that the champion was trained with is stale, in sentences with the numbers; nothing while it holds."""
    reasons = []
    if train_rows >= rule.growth * lineage.compared_rows:
        reasons.append(
            f"{train_rows:,} rows train now, at least {rule.growth:g} times the {lineage.compared_rows:,} of the last comparison "
            "(retraining.stale.growth)"
        )
    if rule.drift and drift is not None and drift.drifted:
        reasons.append(f"the data have drifted: {drift.text}")
    changed = [
        f"{name} was {lineage.hardware.get(name)}, is {value}" for name, value in hardware.items() if lineage.hardware.get(name) != value
    ]
    if rule.hardware and changed:
        reasons.append(f"the hardware is another: {'; '.join(changed)}")
    other = sorted(key for key in {*asked, *lineage.asked} if asked.get(key) != lineage.asked.get(key))
    if other:
        reasons.append(f"the profile asks for something else than at the last comparison: {', '.join(other)}")
    return tuple(reasons)


def rule_text(rule: StaleRule) -> str:
    """Return the rule in one sentence, for reports."""
    parts = [f"when {rule.growth:g} times as many rows train as at the last one"]
    parts += ["when the data have drifted"] if rule.drift else []
    parts += ["on other hardware"] if rule.hardware else []
    return f"A new comparison is made {', '.join([*parts, 'and when the profile asks for another model, strategy or column'])}."
