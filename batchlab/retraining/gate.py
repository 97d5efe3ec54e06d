"""The gate: whether a challenger takes the champion's place, decided on the same holdout rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchlab.errors import BadInput
from batchlab.retraining import guards
from batchlab.retraining.calibration import calibration_error
from batchlab.retraining.contest import Contestant as Contestant
from batchlab.retraining.contest import Holdout as Holdout
from batchlab.retraining.improvement import NOTHING_KNOWN, Improvement, improvement
from batchlab.retraining.promotion import Decision, Guard, Promotion, Slice
from batchlab.retraining.reasons import reasons
from batchlab.retraining.slices import slices
from batchlab.rules.retraining import GateRule

OVER_A_BROKEN_ONE = Improvement(1.0, 1.0, 1.0, math.nan)
"""Of any finite loss over one that is not finite."""


@dataclass(frozen=True)
class Evidence:
    """What was found: the improvement, the guards, the slices, and both sides' calibration errors (champion's first)."""

    found: Improvement
    guards: tuple[Guard, ...]
    slices: tuple[Slice, ...] = ()
    calibration: tuple[float, float] = (math.nan, math.nan)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # what becomes too large for a float is not finite, and never wins
def decide(
    champion: Contestant | None,
    challenger: Contestant,
    seed_losses: Sequence[float],
    holdout: Holdout,
    rule: GateRule,
    validation_losses: Sequence[float] = (),
) -> Promotion:
    """Return the decision with its reasons: a pure function, the same every time.

    `seed_losses` are the mean holdout losses of all trainings that differ from the challenger's in their seed alone, its own included,
    and `validation_losses` what it was chosen by among them; without these it counts as any one of them.
    A champion whose loss is not finite is no rival: a finite challenger takes its place. Raises BadInput without holdout rows,
    ValueError where the sides have not the same rows.
    """
    _check(champion, challenger, holdout)
    asked = (guards.finite(challenger, seed_losses), guards.contract(holdout, rule))
    if not asked[0].passed:
        evidence = Evidence(NOTHING_KNOWN, asked)
    elif champion is None or not math.isfinite(champion.loss):
        alone = _alone(challenger, holdout)
        evidence = Evidence(NOTHING_KNOWN if champion is None else OVER_A_BROKEN_ONE, asked + alone)
    else:
        found = improvement(champion.losses, challenger.losses, seed_losses, rule.confidence, validation_losses)
        evidence = _compared(champion, challenger, found, len(seed_losses), holdout, rule, asked)
    decision = _decision(champion, evidence, rule)
    found = evidence.found
    return Promotion(
        decision=decision,
        champion=champion.version if champion else None,
        challenger=challenger.version,
        improvement=found.value,
        interval=(found.low, found.high),
        confidence=rule.confidence,
        minimum_effect=rule.minimum_effect,
        holdout_rows=len(holdout.truth),
        champion_loss=champion.loss if champion else None,
        challenger_loss=challenger.loss,
        constant_loss=None if holdout.constant_losses is None else float(holdout.constant_losses.mean()),
        seed_losses=tuple(map(float, seed_losses)),
        seed_scatter=found.seed_scatter,
        champion_calibration=evidence.calibration[0],
        challenger_calibration=evidence.calibration[1],
        guards=evidence.guards,
        slices=evidence.slices,
        reasons=reasons(decision, champion, challenger, found, evidence.guards, rule),
    )


def _check(champion: Contestant | None, challenger: Contestant, holdout: Holdout) -> None:
    rows = len(holdout.truth)
    if not rows:
        raise BadInput("the holdout has no rows, so nothing can be decided; it takes retraining.holdout of the fresh rows.")
    held = {"challenger": challenger.losses, **({"champion": champion.losses} if champion else {}), **holdout.labels}
    for name, values in held.items():
        if len(values) != rows:
            raise ValueError(f"{name} has {len(values)} values for {rows} holdout rows")


def _alone(challenger: Contestant, holdout: Holdout) -> tuple[Guard, ...]:
    """Return what is asked of a challenger without a rival."""
    if holdout.constant_losses is None:
        return ()
    return (guards.better_than_a_constant(challenger.loss, float(holdout.constant_losses.mean())),)


def _compared(
    champion: Contestant,
    challenger: Contestant,
    found: Improvement,
    seeds: int,
    holdout: Holdout,
    rule: GateRule,
    asked: tuple[Guard, ...],
) -> Evidence:
    """Return the improvement of a finite model over another, with all guards asked."""
    parts = slices(champion.losses, challenger.losses, rule.periods, holdout.labels)
    calibration = (math.nan, math.nan)
    more = [guards.enough_rows(len(holdout.truth), rule), guards.enough_seeds(seeds), guards.no_slice_much_worse(parts, rule)]
    if holdout.classes:
        before, after = (calibration_error(holdout.truth, side.predictions) for side in (champion, challenger))
        calibration = (before, after)
        more.append(guards.calibrated(before, after, rule))
    more += guards.costs(champion, challenger, rule)
    more += filter(None, (guards.remembering(champion, challenger, rule), guards.undrifted(holdout, rule)))
    return Evidence(found, (*asked, *more), parts, calibration)


def _decision(champion: Contestant | None, evidence: Evidence, rule: GateRule) -> Decision:
    """Return the decision; what is not a number is greater than nothing, so it never promotes."""
    if not all(guard.passed for guard in evidence.guards):
        return "kept"
    if champion is None:
        return "first"
    found = evidence.found
    return "promoted" if found.low > 0 and found.value >= rule.minimum_effect else "kept"
