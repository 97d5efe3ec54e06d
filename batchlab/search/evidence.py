"""The evidence of a verdict: trainings as the numbers that decide, and the target that they are held against. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.curves import crossing
from batchlab.analysis.verdict import Outcome, Pair, paired
from batchlab.engine.data import TrainingData
from batchlab.engine.records import TrialResult
from batchlab.experiment import Experiment
from batchlab.search.known import Known
from batchlab.search.space import Candidate, Setting
from batchlab.search.standings import Measured, measured
from batchlab.search.terms import Terms
from batchlab.search.timings import Timings

Numbers = NDArray[np.float64]
RESAMPLES = 200
"""Draws are drawn again, with replacement, so many times: how the way to the target scatters."""


@dataclass(frozen=True)
class Ground:
    """What a verdict stands on beside what is known: the experiment, its rows as they were evaluated, the race's terms, and the limit."""

    experiment: Experiment
    data: TrainingData
    terms: Terms
    cores: int
    limit_minutes: float | None


@dataclass(frozen=True)
class Goal:
    """The target as training sees it: of the draws as they are, then of each resample `[1 + resamples]`, with what was resampled."""

    target: Numbers
    resamples: NDArray[np.int64]


def evidence_of(ground: Ground, known: Known) -> dict[Setting, Sequence[TrialResult]]:
    """Return the trainings that the verdict rests on: the confirmed ones; before there are any, the race's, as many draws of each."""
    if known.confirmed:
        return dict(known.confirmed)
    trained = [entry for entry in known.standings.running if entry.trials]
    draws = min((len(entry.trials) for entry in trained), default=0)
    return {entry.setting: entry.trials[:draws] for entry in trained}


def goal_of(evidence: Mapping[Setting, Sequence[TrialResult]], margin: float, given: float | None) -> Goal | None:
    """Return the target: the given one, or the best mean loss over draws plus the margin; None where all diverged.

    The level of the best setting is resampled with everything else, so that it moves with the draws that its rivals are measured on.
    """
    ended = {setting: finals(results) for setting, results in evidence.items()}
    finite = {setting: losses for setting, losses in ended.items() if np.isfinite(losses).all()}
    if not finite:
        return None
    draws = min(len(losses) for losses in finite.values())
    rng = np.random.default_rng(0)
    resamples = np.vstack([np.arange(draws), rng.integers(draws, size=(RESAMPLES, draws))])
    best = min(finite.values(), key=lambda losses: float(losses[:draws].mean()))
    level = best[resamples].mean(1) * (1 + margin)
    return Goal(np.full(len(resamples), given) if given is not None else level, resamples)


def finals(results: Sequence[TrialResult]) -> Numbers:
    """Return the loss of each draw where the mean over draws is lowest at the end; infinite for one that diverged."""
    losses = [math.inf if result.diverged_at is not None else result.curve.validation_loss[-1] for result in results]
    return np.array(losses, np.float64)


def on_fresh_draws(known: Known) -> float:
    """Return what losses of the race have to be multiplied by to stand beside those of the confirmation, whose draws are others: what the
    last leader's mean loss changed by."""
    leader = known.standings.leader
    results = None if leader is None else known.confirmed.get(leader.setting)
    fresh = math.inf if results is None else float(finals(results).mean())
    return fresh / leader.loss if leader is not None and math.isfinite(fresh) and leader.loss > 0 else 1.0


def outcome_of(
    ground: Ground, known: Known, candidate: Candidate, results: Sequence[TrialResult], goal: Goal | None, behind: bool
) -> Outcome:
    """Return the numbers that decide, of one row of the table. No training takes less than one step."""
    unit, diverged = ground.experiment.loss_unit, any(result.diverged_at is not None for result in results)
    steps, rows = (np.full(1, math.nan), np.full(1, math.nan)) if diverged or goal is None else _ways(results, goal)
    tests = known.test_losses.get(candidate.setting)
    portions = None if diverged else ground.terms.shared(*_portions(results))
    return Outcome(
        label=candidate.label,
        name=candidate.name,
        batch_rows=candidate.batch_rows,
        learning_rate=candidate.learning_rate,
        losses=finals(results) * unit,
        portions=None if portions is None else portions * unit,
        steps=np.maximum(steps, 1.0),
        rows=np.maximum(rows, float(candidate.batch_rows)),
        budget_steps=float(np.mean([max(result.steps, 1) for result in results])),
        budget_rows=float(np.mean([max(result.rows_seen, 1) for result in results])),
        seconds_per_step=np.array(timings_of(ground, known, candidate).seconds_per_step),
        peak_bytes=np.array(known.peaks.get(candidate, (math.nan, math.nan)), np.float64),
        test_loss=np.full(len(results), math.nan) if tests is None else tests,
        behind=behind,
        overlap=ground.terms.overlap,
    )


def _portions(results: Sequence[TrialResult]) -> tuple[Numbers, list[int]]:
    """Return the losses of portions of the validation rows at the end of trainings `[draws, portions]`, and the division of each."""
    return np.array([result.curve.portions[-1] for result in results], np.float64), [result.trial.division for result in results]


def _ways(results: Sequence[TrialResult], goal: Goal) -> tuple[Numbers, Numbers]:
    """Return steps and rows to the target `[1 + resamples]`, of the mean curve over draws; NaN where it does not get there."""
    found: Measured = measured([result.curve for result in results])
    step = np.interp(np.log1p(found.rows), np.log1p(results[0].curve.rows_seen), results[0].curve.step)
    draws = goal.resamples % len(results)
    rows = np.array([crossing(found.rows, found.losses[chosen].mean(0), target) for chosen, target in zip(draws, goal.target, strict=True)])
    return np.interp(rows, found.rows, step), rows


def timings_of(ground: Ground, known: Known, candidate: Candidate) -> Timings:
    """Return the timings of a row of the table; where it was not timed alone, what its stacked trainings took, on all cores."""
    timed = known.timings.get(candidate)
    if timed is not None and len(timed.seconds_per_step) > 1:
        return timed
    a_row = known.standings.row_seconds.get(candidate.setting.branch, 0.0) * ground.cores
    return Timings((max(a_row * candidate.batch_rows, 1e-9),) * 2, (), (), alone=False)


def sorted_order(known: Known, evidence: Mapping[Setting, Sequence[TrialResult]], goal: Goal | None) -> Pair | None:
    """Return what the sorted order costs in rows, against the same setting with shuffled rows."""
    if known.sorted_of is None or goal is None or not known.sorted_results:
        return None
    pair = [
        bare_outcome(label, results, goal) for label, results in (("sorted", known.sorted_results), ("shuffled", evidence[known.sorted_of]))
    ]
    return paired(pair[0], pair[1], "rows")


def bare_outcome(label: str, results: Sequence[TrialResult], goal: Goal) -> Outcome:
    """Return what trainings come to in steps, rows and loss alone; every step takes a second."""
    diverged = any(result.diverged_at is not None for result in results)
    steps, rows = (np.full(1, math.nan),) * 2 if diverged else _ways(results, goal)
    none = np.full(2, math.nan)
    seen = float(np.mean([result.rows_seen for result in results]))
    return Outcome(label, label, 1, 0.0, finals(results), None, steps, rows, seen, seen, np.ones(2), none, none)
