"""Drawing the verdict from a search whose parts have all run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from batchlab.analysis.frontier import Frontier, fitted
from batchlab.analysis.throughput import throughput_knee
from batchlab.analysis.verdict import Objective, Outcome, Pair, chosen, paired
from batchlab.engine.records import TrialResult
from batchlab.search.candidates import Candidate
from batchlab.search.findings import Finding, Findings
from batchlab.search.memory import memory_ceiling
from batchlab.search.progression import nearest_to
from batchlab.search.remarks import remarks_of
from batchlab.search.trials import lowest, rows_to, steps_to, summaries

if TYPE_CHECKING:
    from batchlab.search.progression import Progression
    from batchlab.search.search import Search

LEAST_LOSS = 1e-12
"""Losses below this part of the first one count as so much: the rest is rounding."""


def concluded(search: "Search") -> Findings:
    """Draw the verdict from a search whose parts have all run."""
    by_label = {member.label: _finding(search, item, member) for item in search.known for member in item.group.members}
    found = [by_label[label] for label in search.labels]
    settings = [item for item in found if not item.candidate.typed]
    typed = [item for item in found if item.candidate.typed]
    objective = _objective(search)
    choice = chosen([item.outcome for item in settings], objective)
    best = next((item for item in settings if choice is not None and item.candidate.label == choice.label), None)
    unit = search.experiment.loss_unit
    against = [] if best is None else [paired(item.outcome, best.outcome, "time") for item in typed if item.outcome.status != "diverged"]
    return Findings(
        settings=settings,
        typed=typed,
        choice=choice,
        against_typed=against,
        frontier=_frontier(settings),
        throughput_knee=_knee(settings),
        memory_ceiling=memory_ceiling(search.experiment, search.data),
        deliveries=search.deliveries,
        sorted_order=_sorted_order(search),
        sorted_label="" if search.sorted_of is None else search.sorted_of.group.label,
        target_loss=None if search.target is None else search.target * unit,
        target_given=search.rule.target_loss is not None,
        first_loss=search.first_loss * unit,
        start_loss=search.start_loss * unit,
        share_left=search.share_left,
        loss_unit=unit,
        row_count=search.row_count,
        budget_rows=search.budget_rows,
        trials=search.trial_count,
        seconds=search.seconds,
        notes=[*search.notes, *remarks_of(search, found, best)],
    )


def _objective(search: "Search") -> Objective:
    """Return what decides; time, where memory should and was not measured."""
    if search.rule.objective == "memory" and not search.peak_bytes:
        search.notes.append("memory could not decide, because it was not measured; time does")
        return "time"
    return search.rule.objective


def _finding(search: "Search", item: "Progression", member: Candidate) -> Finding:
    results, target = item.confirmed, search.target
    rate = item.rate or 0.0
    outcome = outcome_of(search, item, member, results)
    speed = np.argsort(outcome.least_rows, kind="stable")
    near = nearest_to(target, item.noise)
    shown = results[int(speed[len(speed) // 2])]
    return Finding(
        candidate=member,
        learning_rate=rate,
        outcome=outcome,
        results=results,
        shown=shown,
        rates=summaries(item.tuned, target),
        noise=item.noise,
        noise_scale=None if near is None else near.noise_scale,
        timings=search.stopwatch.timings[member],
        reason=_reason(search, item, outcome, shown),
    )


def outcome_of(search: "Search", item: "Progression", member: Candidate, results: Sequence[TrialResult]) -> Outcome:
    """Return the numbers that decide: of one setting, over the confirmed seeds. No training takes less than one step."""
    unit, target = search.experiment.loss_unit, search.target
    timings = search.stopwatch.timings[member]
    floor = LEAST_LOSS * search.first_loss * unit
    return Outcome(
        label=member.label,
        name=member.name,
        batch_rows=member.batch_rows,
        learning_rate=item.rate or 0.0,
        diverged=all(result.diverged_at is not None for result in results),
        steps=np.maximum([steps_to(result, target) for result in results], 1.0),
        rows=np.maximum([rows_to(result, target) for result in results], float(member.batch_rows)),
        budget_steps=float(max(1, *(result.steps for result in results))),
        budget_rows=float(max(1, *(result.rows_seen for result in results))),
        seconds_per_step=np.array(timings.seconds_per_step),
        peak_bytes=np.array(search.peak_bytes.get(member, [np.nan, np.nan]), np.float64),
        validation_loss=np.maximum([lowest(result) * unit for result in results], floor),
        test_loss=np.maximum(search.test_losses[item.group], floor),
    )


def _reason(search: "Search", item: "Progression", outcome: Outcome, shown: TrialResult) -> str | None:
    if outcome.status == "diverged":
        return search.experiment.reason(shown)
    if search.target is None:
        return "there is no target: no tuned rate lowered the validation loss"
    if outcome.status == "not_reached":
        unit = search.experiment.loss_unit
        reached, seeds, ended = outcome.seeds_reached, len(outcome.steps), float(np.mean(outcome.validation_loss))
        lowest_of = f"the lowest level of the validation loss was {ended:.6g}, the target {search.target * unit:.6g}"
        return f"{reached} of {seeds} seeds reached the target within {outcome.budget_rows:,.0f} rows; on average {lowest_of}"
    return None


def _points(settings: Sequence[Finding]) -> list[Finding]:
    """Return one setting for each constant batch size: gathered, not loaded, smallest first."""
    found: dict[int, Finding] = {}
    for item in settings:
        if item.sampled and item.candidate.strategy.loader_workers is None:
            found.setdefault(item.candidate.batch_rows, item)
    return [found[rows] for rows in sorted(found)]


def _frontier(settings: Sequence[Finding]) -> Frontier | None:
    # Where some seed needs a single step, the steps say nothing about the batch size any more.
    reached = [item for item in _points(settings) if item.outcome.status == "reached" and item.outcome.steps.min() > 1]
    return fitted([item.candidate.batch_rows for item in reached], [item.outcome.steps.tolist() for item in reached])


def _knee(settings: Sequence[Finding]) -> float | None:
    points = _points(settings)
    return throughput_knee([item.candidate.batch_rows for item in points], [item.timings.step().value for item in points])


def _sorted_order(search: "Search") -> Pair | None:
    """Compare steps to the target with rows in sorted order against the same setting shuffled."""
    if search.sorted_of is None or not search.sorted_results:
        return None
    item = search.sorted_of
    shuffled = outcome_of(search, item, item.group.first, item.confirmed)
    ordered = outcome_of(search, item, item.group.first, search.sorted_results)
    return paired(replace(ordered, label="sorted by the target"), shuffled, "rows")
