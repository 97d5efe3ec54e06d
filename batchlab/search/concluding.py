"""Drawing the verdict from what is known, at any moment: pure but for a look at the free memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.curves import crossing
from batchlab.analysis.frontier import Frontier, fitted
from batchlab.analysis.throughput import throughput_knee
from batchlab.analysis.verdict import Outcome, Pair, chosen, paired
from batchlab.engine.data import TrainingData
from batchlab.engine.records import TrialResult
from batchlab.experiment import Experiment
from batchlab.search.findings import Finding, Findings, RateSummary
from batchlab.search.judging import Terms, best_of
from batchlab.search.known import Known
from batchlab.search.memory import memory_ceiling
from batchlab.search.noise import nearest_to
from batchlab.search.remarks import Remarked, remarks_of
from batchlab.search.space import Candidate, Line, Setting, lines_for, optimizer_words, rows_of_table
from batchlab.search.standings import Measured, measured
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


def concluded(ground: Ground, known: Known) -> Findings:
    """Return the verdict on what is known: on the confirmed settings or, where nothing is confirmed yet, on the race so far."""
    experiment, rule, terms = ground.experiment, ground.experiment.profile.search, ground.terms
    evidence, lines = evidence_of(ground, known), lines_for(known.standings.entries, terms.lines)
    candidates = rows_of_table(lines, _shown(lines, known, evidence))
    goal = goal_of(evidence, rule.margin, None if rule.target_loss is None else rule.target_loss / experiment.loss_unit)
    found = [_finding(ground, known, candidate, evidence, goal, lines) for candidate in candidates]
    notes, objective = list(known.notes), rule.objective
    if objective == "memory" and not known.peaks:
        notes.append("memory could not decide, because it was not measured; loss and time do")
        objective = "best"
    choice = chosen([item.outcome for item in found], objective, rule.margin)
    best = next((item for item in found if choice is not None and item.candidate.label == choice.label), None)
    settings = [item for item in found if not item.candidate.typed]
    typed = [item for item in found if item.candidate.typed]
    unit = experiment.loss_unit
    frontier, left_out = _frontier(settings), dict(known.left_out)
    return Findings(
        settings=settings,
        typed=typed,
        choice=choice,
        objective=objective,
        margin=rule.margin,
        against_typed=_against(typed, best),
        frontier=frontier,
        throughput_knee=_knee(settings),
        memory_ceiling=memory_ceiling(experiment, ground.data),
        deliveries=known.deliveries,
        sorted_order=_sorted_order(known, evidence, goal),
        sorted_label=next((item.candidate.label for item in settings if item.candidate.setting == known.sorted_of), ""),
        target_loss=None if goal is None else float(goal.target[0]) * unit,
        target_given=rule.target_loss is not None,
        first_loss=_first_loss(known) * unit,
        constant_loss=experiment.constant_loss * unit,
        loss_unit=unit,
        row_count=terms.row_count,
        budget_rows=terms.budget_rows,
        divisions=0 if ground.data.divisions is None else len(ground.data.divisions.train),
        race=known.standings,
        trials=known.all_trainings,
        seconds=known.seconds,
        limit_minutes=ground.limit_minutes,
        left_out=left_out,
        notes=[*notes, *remarks_of(Remarked(experiment, terms, known, found, best, choice))],
    )


def evidence_of(ground: Ground, known: Known) -> dict[Setting, Sequence[TrialResult]]:
    """Return the trainings that the verdict rests on: the confirmed ones; before there are any, the race's, as many draws of each."""
    if known.confirmed:
        return dict(known.confirmed)
    trained = [entry for entry in known.standings.running if entry.trials]
    draws = min((len(entry.trials) for entry in trained), default=0)
    return {entry.setting: entry.trials[:draws] for entry in trained}


def _shown(lines: Sequence[Line], known: Known, evidence: Mapping[Setting, object]) -> list[Setting]:
    """Return the settings of the table's rows: those with evidence (of a race, each line's best), and the best of each other line."""
    found: dict[Setting, None] = dict.fromkeys(known.confirmed)
    for line in lines:
        if any(line.holds(setting) for setting in found):
            continue
        best = best_of(line, known.standings) or next(
            (entry for entry in known.standings.entries.values() if line.holds(entry.setting) and entry.trials), None
        )
        if best is not None:
            found[best.setting] = None
    return list(found)


def goal_of(evidence: Mapping[Setting, Sequence[TrialResult]], margin: float, given: float | None) -> Goal | None:
    """Return the target: the given one, or the best mean loss over draws plus the margin; None where all diverged.

    The level of the best setting is resampled with everything else, so that it moves with the draws that its rivals are measured on.
    """
    finals = {setting: _finals(results) for setting, results in evidence.items()}
    finite = {setting: losses for setting, losses in finals.items() if np.isfinite(losses).all()}
    if not finite:
        return None
    draws = min(len(losses) for losses in finite.values())
    rng = np.random.default_rng(0)
    resamples = np.vstack([np.arange(draws), rng.integers(draws, size=(RESAMPLES, draws))])
    best = min(finite.values(), key=lambda losses: float(losses[:draws].mean()))
    level = best[resamples].mean(1) * (1 + margin)
    return Goal(np.full(len(resamples), given) if given is not None else level, resamples)


def _finals(results: Sequence[TrialResult]) -> Numbers:
    """Return the loss of each draw where the mean over draws is lowest at the end; infinite for one that diverged."""
    losses = [math.inf if result.diverged_at is not None else result.curve.validation_loss[-1] for result in results]
    return np.array(losses, np.float64)


def _finding(
    ground: Ground,
    known: Known,
    candidate: Candidate,
    evidence: Mapping[Setting, Sequence[TrialResult]],
    goal: Goal | None,
    lines: Sequence[Line],
) -> Finding:
    setting, experiment = candidate.setting, ground.experiment
    entry = known.standings.entries.get(setting)
    results = evidence.get(setting) or (entry.trials if entry is not None else ())
    behind = setting not in evidence
    outcome = outcome_of(ground, known, candidate, results, goal, behind)
    if behind:
        outcome = replace(outcome, losses=outcome.losses * _on_fresh_draws(known))
    noise = known.noise.get(setting, ())
    near = nearest_to(None if goal is None else float(goal.target[0]), noise)
    shown = known.models.get(setting) or _median(results)
    left = None if entry is None or setting in evidence else entry.left
    return Finding(
        candidate=candidate,
        outcome=outcome,
        results=results,
        shown=shown,
        rates=() if candidate.typed else _rates(known, candidate),
        noise=noise,
        noise_scale=None if near is None else near.noise_scale,
        timings=timings_of(ground, known, candidate),
        left=left,
        reason=_reason(experiment, outcome, shown),
    )


def _on_fresh_draws(known: Known) -> float:
    """Return what losses of the race have to be multiplied by to stand beside those of the confirmation, whose draws are others: what the
    last leader's mean loss changed by."""
    leader = known.standings.leader
    results = None if leader is None else known.confirmed.get(leader.setting)
    fresh = math.inf if results is None else float(_finals(results).mean())
    return fresh / leader.loss if leader is not None and math.isfinite(fresh) and leader.loss > 0 else 1.0


def _median(results: Sequence[TrialResult]) -> TrialResult:
    """Return the training with the median loss: neither the luckiest nor the worst."""
    ordered = sorted(results, key=lambda result: (result.diverged_at is not None, result.curve.validation_loss[-1]))
    return ordered[(len(ordered) - 1) // 2]


def outcome_of(
    ground: Ground, known: Known, candidate: Candidate, results: Sequence[TrialResult], goal: Goal | None, behind: bool
) -> Outcome:
    """Return the numbers that decide, of one row of the table. No training takes less than one step."""
    unit, diverged = ground.experiment.loss_unit, any(result.diverged_at is not None for result in results)
    steps, rows = (np.full(1, math.nan), np.full(1, math.nan)) if diverged or goal is None else _ways(results, goal)
    tests = known.test_losses.get(candidate.setting)
    shared = ground.terms.rows_are_shared and not diverged
    return Outcome(
        label=candidate.label,
        name=candidate.name,
        batch_rows=candidate.batch_rows,
        learning_rate=candidate.learning_rate,
        losses=_finals(results) * unit,
        portions=np.array([result.curve.portions[-1] for result in results]) * unit if shared else None,
        steps=np.maximum(steps, 1.0),
        rows=np.maximum(rows, float(candidate.batch_rows)),
        budget_steps=float(np.mean([max(result.steps, 1) for result in results])),
        budget_rows=float(np.mean([max(result.rows_seen, 1) for result in results])),
        seconds_per_step=np.array(timings_of(ground, known, candidate).seconds_per_step),
        peak_bytes=np.array(known.peaks.get(candidate, (math.nan, math.nan)), np.float64),
        test_loss=np.full(len(results), math.nan) if tests is None else tests,
        behind=behind,
    )


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


def _rates(known: Known, candidate: Candidate) -> list[RateSummary]:
    """Return what every optimizer and rate of the row's strategy came to, in the order of rates."""
    entries = [entry for entry in known.standings.entries.values() if entry.setting.updates == candidate.strategy.updates and entry.trials]
    entries = [entry for entry in entries if not entry.setting.typed]
    entries.sort(key=lambda entry: (optimizer_words(entry.setting.optimizer), entry.setting.learning_rate))
    return [
        RateSummary(
            optimizer_words(entry.setting.optimizer), entry.setting.learning_rate, len(entry.trials), entry.rows, entry.loss, entry.left
        )
        for entry in entries
    ]


def _reason(experiment: Experiment, outcome: Outcome, shown: TrialResult) -> str | None:
    """Say why a setting diverged."""
    return experiment.reason(shown) if outcome.status == "diverged" else None


def _against(typed: Sequence[Finding], best: Finding | None) -> list[Pair]:
    return [] if best is None else [paired(item.outcome, best.outcome, "time") for item in typed if item.outcome.status != "diverged"]


def _first_loss(known: Known) -> float:
    firsts = [entry.trials[0].curve.validation_loss[0] for entry in known.standings.entries.values() if entry.trials]
    return float(np.mean(firsts)) if firsts else math.nan


def _frontier(settings: Sequence[Finding]) -> Frontier | None:
    """Fit the frontier to settings of distinct batch sizes that reached the target in more than a step."""
    points = {
        item.candidate.batch_rows: item.outcome.steps
        for item in reversed(settings)
        if item.sampled and item.outcome.status == "reached" and np.nanmin(item.outcome.steps) > 1
    }
    sizes = sorted(points)
    if not sizes:
        return None
    kept = np.isfinite([points[size] for size in sizes]).all(0)
    return fitted(sizes, [points[size][kept] for size in sizes])


def _knee(settings: Sequence[Finding]) -> float | None:
    """Return the throughput knee over the batch sizes that were timed alone."""
    timed = [item for item in settings if item.sampled and item.timings.alone and item.candidate.strategy.loader_workers is None]
    sizes = {item.candidate.batch_rows: item.timings.step().value for item in timed}
    return throughput_knee(list(sizes), list(sizes.values()))


def _sorted_order(known: Known, evidence: Mapping[Setting, Sequence[TrialResult]], goal: Goal | None) -> Pair | None:
    """Return what the sorted order costs in rows, against the same setting with shuffled rows."""
    if known.sorted_of is None or goal is None or not known.sorted_results:
        return None
    pair = [
        _bare_outcome(label, results, goal)
        for label, results in (("sorted", known.sorted_results), ("shuffled", evidence[known.sorted_of]))
    ]
    return paired(pair[0], pair[1], "rows")


def _bare_outcome(label: str, results: Sequence[TrialResult], goal: Goal) -> Outcome:
    diverged = any(result.diverged_at is not None for result in results)
    steps, rows = (np.full(1, math.nan),) * 2 if diverged else _ways(results, goal)
    none = np.full(2, math.nan)
    seen = float(np.mean([result.rows_seen for result in results]))
    return Outcome(label, label, 1, 0.0, _finals(results), None, steps, rows, seen, seen, np.ones(2), none, none)
