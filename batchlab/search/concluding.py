"""Drawing the verdict from what is known, at any moment: pure but for a look at the free memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.frontier import Frontier, fitted
from batchlab.analysis.throughput import throughput_knee
from batchlab.analysis.verdict import Outcome, Pair, chosen, paired
from batchlab.engine.records import TrialResult
from batchlab.experiment import Experiment
from batchlab.search.beside import beside
from batchlab.search.evidence import (
    Goal,
    Ground,
    evidence_of,
    goal_of,
    on_fresh_draws,
    outcome_of,
    sorted_order,
    timings_of,
)
from batchlab.search.findings import Finding, Findings, RateSummary
from batchlab.search.judging import best_of
from batchlab.search.known import Known
from batchlab.search.memory import memory_ceiling
from batchlab.search.noise import nearest_to
from batchlab.search.records import training_facts
from batchlab.search.remarks import Remarked, remarks_of
from batchlab.search.space import Candidate, Line, Setting, lines_for, optimizer_words, rows_of_table
from batchlab.search.standings import Left

Numbers = NDArray[np.float64]


def concluded(ground: Ground, known: Known) -> Findings:
    """Return the verdict on what is known: on the confirmed settings or, where nothing is confirmed yet, on the race so far."""
    experiment, rule, terms = ground.experiment, ground.experiment.profile.search, ground.terms
    evidence, lines = evidence_of(ground, known), lines_for(known.standings.entries, terms.lines)
    candidates = rows_of_table(lines, _shown(lines, known, evidence))
    goal = goal_of(evidence, rule.margin, None if rule.target_loss is None else rule.target_loss / experiment.loss_unit)
    found = [_finding(ground, known, candidate, evidence, goal, lines) for candidate in candidates]
    notes, objective = [*known.notes, *_one_after_the_other(experiment)], rule.objective
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
        fetching=known.fetching,
        processes=known.processes,
        sorted_order=sorted_order(known, evidence, goal),
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
        yardsticks=beside(ground, known, best),
        notes=[*notes, *remarks_of(Remarked(experiment, terms, known, found, best, choice))],
        training=training_facts(experiment, terms.row_count),
        confirmed=bool(known.confirmed),
    )


def _one_after_the_other(experiment: Experiment) -> list[str]:
    """Say where replicas cannot train at once."""
    why = experiment.model.traits(*experiment.shape).unstackable
    return [f"this module's replicas trained one after the other, which takes longer, because they cannot at once: {why}"] if why else []


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
        outcome = replace(outcome, losses=outcome.losses * on_fresh_draws(known))
    noise = known.noise.get(setting, ())
    near = nearest_to(None if goal is None else float(goal.target[0]), noise)
    shown = known.models.get(setting) or _median(results)
    left = None if entry is None or setting in evidence or entry.left is None else beside_fresh(entry.left, on_fresh_draws(known))
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


def beside_fresh(left: Left, factor: float) -> Left:
    """Return both losses as they stand beside those of the confirmation, whose draws are others."""
    return replace(left, loss=left.loss * factor, leader_loss=left.leader_loss * factor)


def _median(results: Sequence[TrialResult]) -> TrialResult:
    """Return the training with the median loss: neither the luckiest nor the worst."""
    ordered = sorted(results, key=lambda result: (result.diverged_at is not None, result.curve.validation_loss[-1]))
    return ordered[(len(ordered) - 1) // 2]


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
