"""The guards of the gate: conditions that no improvement of the mean makes up for. Each says in a sentence what it found."""

import math
from collections.abc import Sequence

import numpy as np

from batchlab.retraining.contest import Contestant, Holdout
from batchlab.retraining.improvement import chance_of_no_harm
from batchlab.retraining.promotion import Guard, Slice, relative_rise
from batchlab.rules.retraining import GateRule


def finite(challenger: Contestant, seed_losses: Sequence[float]) -> Guard:
    """Nothing that diverged, or is not a number, wins."""
    found = {
        "losses": challenger.losses,
        "losses on old rows": np.empty(0) if challenger.old_losses is None else challenger.old_losses,
        "predictions": challenger.predictions,
        "mean losses of trainings with other seeds": np.asarray(seed_losses, np.float64),
    }
    bad = {name: int(np.count_nonzero(~np.isfinite(values))) for name, values in found.items()}
    said = [f"{count:,} of {np.size(found[name]):,} {name} are not finite" for name, count in bad.items() if count]
    if not said and not math.isfinite(challenger.loss):
        said = ["its losses are too large to be averaged"]
    sentence = f"The challenger diverged: {', '.join(said)}." if said else "All losses and predictions of the challenger are finite."
    return Guard(name="finite", passed=not said, value=float(sum(bad.values())), limit=0.0, said=sentence)


def enough_rows(rows: int, rule: GateRule) -> Guard:
    """Few rows decide nothing."""
    few = f"There are {rows:,} holdout rows; a decision needs {rule.fewest_rows:,} or more (retraining.gate.fewest_rows)."
    enough = f"{rows:,} holdout rows are enough for a decision."
    passed = rows >= rule.fewest_rows
    return Guard(name="rows", passed=passed, value=rows, limit=rule.fewest_rows, said=enough if passed else few)


def enough_seeds(count: int) -> Guard:
    """One training tells nothing about how much trainings scatter by their seed."""
    said = f"The challenger was trained with {count} seed{'s' if count != 1 else ''}; 2 or more tell how much trainings scatter."
    return Guard(name="seeds", passed=count >= 2, value=count, limit=2, said=said)


def better_than_a_constant(loss: float, constant_loss: float) -> Guard:
    """A model without a rival has to beat the mean of its training rows."""
    passed = loss < constant_loss
    said = (
        f"Its mean loss is {loss:.4g}, {'below' if passed else 'not below'} the {constant_loss:.4g} of always predicting the training mean."
    )
    return Guard(name="constant", passed=passed, value=loss, limit=constant_loss, said=said)


def no_slice_much_worse(found: Sequence[Slice], rule: GateRule) -> Guard:
    """A better mean must not be paid for by a group or a time."""
    harmed = [item for item in found if item.harm > rule.largest_harm and item.p_value < 1 - rule.confidence]
    worst = max(harmed or found, key=lambda item: item.harm)
    worst_said = f"{worst.name} ({worst.rows:,} rows): {worst.challenger_loss:.4g} against {worst.champion_loss:.4g}"
    bound = f"surely worse by more than {rule.largest_harm:.2%}"
    said = f"None of {len(found)} slices is {bound}; the least good is {worst_said}."
    if harmed:
        said = f"{len(harmed)} of {len(found)} slices {'is' if len(harmed) == 1 else 'are'} {bound}; the worst is {worst_said}."
    return Guard(name="slices", passed=not harmed, value=worst.harm, limit=rule.largest_harm, said=said)


def calibrated(before: float, after: float, rule: GateRule) -> Guard:
    """Probabilities have to stay as honest as they were."""
    said = f"Its probabilities are off by {after:.3f} on average, the champion's by {before:.3f}"
    return _at_most("calibration", after - before, rule.largest_calibration_rise, said)


def remembering(before: Contestant, after: Contestant, rule: GateRule) -> Guard | None:
    """What was learnt from old rows has to stay learnt; None without losses on an old holdout."""
    if before.old_losses is None or after.old_losses is None or not len(before.old_losses):
        return None
    old, new = float(np.mean(before.old_losses)), float(np.mean(after.old_losses))
    rise, surely = relative_rise(old, new), chance_of_no_harm(before.old_losses, after.old_losses) < 1 - rule.confidence
    said = f"On the {len(before.old_losses):,} old holdout rows its mean loss is {new:.4g}, the champion's {old:.4g}"
    if rise > rule.largest_forgetting and not surely:
        said = f"{said}: more than {rule.largest_forgetting:.4g} higher, which may be chance."
        return Guard(name="forgetting", passed=True, value=rise, limit=rule.largest_forgetting, said=said)
    return _at_most("forgetting", rise, rule.largest_forgetting, said)


def costs(champion: Contestant, challenger: Contestant, rule: GateRule) -> list[Guard]:
    """A better model must not be much slower or larger."""
    measured = (
        (
            "latency",
            champion.seconds_per_row,
            challenger.seconds_per_row,
            rule.largest_latency_ratio,
            "takes {:.3g} times as long a row as",
        ),
        ("size", champion.size_bytes, challenger.size_bytes, rule.largest_size_ratio, "is {:.3g} times as large as"),
    )
    return [
        _at_most(name, ratio, limit, f"It {words.format(ratio)} the champion")
        for name, before, after, limit, words in measured
        if before is not None and after is not None
        for ratio in [1 + relative_rise(before, after)]
    ]


def contract(holdout: Holdout, rule: GateRule) -> Guard:
    """Rows that could not be used may be the ones that matter."""
    share, limit = holdout.quarantined_share, rule.largest_quarantined
    passed = math.isfinite(share) and share <= limit
    said = f"{share:.2%} of the fresh rows could not be used; {'' if passed else 'only '}{limit:.2%} are allowed."
    return Guard(name="contract", passed=passed, value=share, limit=limit, said=said)


def undrifted(holdout: Holdout, rule: GateRule) -> Guard | None:
    """Drift is told, and keeps the champion where the rule says so; None where nobody looked."""
    if holdout.drift is None:
        return None
    passed = rule.on_drift == "tell" or not holdout.drift.drifted
    said = holdout.drift.text if passed else f"{holdout.drift.text} The rule is to keep the champion then (retraining.gate.on_drift)."
    return Guard(
        name="drift", passed=passed, value=float(len(holdout.drift.worst)), limit=None if rule.on_drift == "tell" else 0.0, said=said
    )


def _at_most(name: str, value: float, limit: float, said: str) -> Guard:
    passed = math.isfinite(value) and value <= limit
    return Guard(name=name, passed=passed, value=value, limit=limit, said=f"{said}; {'' if passed else 'only '}{limit:.4g} is allowed.")
