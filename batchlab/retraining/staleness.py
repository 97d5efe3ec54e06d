"""When the recommended setting is too old to follow, and a new comparison is due; and when the model is another one altogether."""

from collections.abc import Mapping
from textwrap import shorten
from typing import Any

from batchlab.config import Profile
from batchlab.errors import BadInput
from batchlab.retraining.drift import Drift
from batchlab.retraining.recipe import differing
from batchlab.retraining.saved import Lineage
from batchlab.rules.retraining import StaleRule

LONGEST_PLACE = 120


def check_same(name: str, lineage: Lineage, profile: Profile, any_source: bool) -> None:
    """Raise BadInput where the profile's rows cannot be told new, or both sides cannot be judged by them: another target, another time
    column, and, unless the user named the model (`any_source`), rows from another place."""
    columns, wrong = lineage.asked.get("columns"), []
    target = profile.named_columns().target
    if lineage.target not in (None, target):
        wrong.append(f"it predicts '{lineage.target}', and the target is '{target}'")
    if columns is not None and columns.get("time") != profile.columns.time:
        before, now = (f"by '{time}'" if time else "as they stand" for time in (columns.get("time"), profile.columns.time))
        wrong.append(f"its rows were ordered {before}, and now {now} (columns.time)")
    if not any_source and lineage.source not in (None, profile.source.identity):
        before, now = (shorten(place or "nowhere", LONGEST_PLACE) for place in (lineage.source, profile.source.identity))
        wrong.append(f"its rows came from '{before}', and these are from '{now}' (name it, to go on with these)")
    if wrong:
        raise BadInput(f"model '{name}' is another one: {'; '.join(wrong)}. Ask for what it was trained for, or name a model with --model.")


def stale_reasons(
    lineage: Lineage, rule: StaleRule, train_rows: int, drift: Drift | None, hardware: Mapping[str, Any], asked: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return why the setting that was recommended last is stale, in sentences with the numbers; nothing while it holds."""
    reasons = []
    if train_rows >= rule.growth * lineage.compared_rows:
        reasons.append(
            f"{train_rows:,} rows train now, at least {rule.growth:g} times the {lineage.compared_rows:,} of the last comparison "
            "(retraining.stale.growth)"
        )
    if rule.drift and drift is not None and drift.drifted:
        reasons.append(f"the data have drifted: {drift.text}")
    names = sorted({*hardware, *lineage.hardware})  # a GPU that is gone is named on one side alone
    changed = [
        f"{name} was {lineage.hardware.get(name)}, is {hardware.get(name)}"
        for name in names
        if lineage.hardware.get(name) != hardware.get(name)
    ]
    if rule.hardware and changed:
        reasons.append(f"the hardware is another: {'; '.join(changed)}")
    if other := differing(lineage.asked, asked, {*asked, *lineage.asked}):
        reasons.append(f"the profile asks for something else than at the last comparison: {', '.join(other)}")
    return tuple(reasons)


def rule_text(rule: StaleRule) -> str:
    """Return the rule in one sentence, for reports."""
    parts = [f"when {rule.growth:g} times as many rows train as at the last one"]
    parts += ["when the data have drifted"] if rule.drift else []
    parts += ["on other hardware"] if rule.hardware else []
    return f"A new comparison is made {', '.join([*parts, 'and when the profile asks for another model, strategy or column'])}."
