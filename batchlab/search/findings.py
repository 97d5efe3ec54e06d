"""What a search found: the evidence of every setting, drawn together into the verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.estimates import Estimate, log_mean
from batchlab.analysis.frontier import Frontier, fitted
from batchlab.analysis.throughput import throughput_knee
from batchlab.analysis.verdict import Choice, Objective, Outcome, Pair, chosen, paired
from batchlab.engine.records import TrialResult
from batchlab.search import rates
from batchlab.search.candidates import Candidate
from batchlab.search.loaders import Delivery
from batchlab.search.memory import memory_ceiling
from batchlab.search.timing import Timings
from batchlab.search.trials import RateSummary, lowest, rows_to, steps_to, summaries
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.mini_batch import MiniBatch

if TYPE_CHECKING:
    from batchlab.search.progression import NoisePoint, Progression
    from batchlab.search.search import Search

Numbers = NDArray[np.float64]
LEAST_LOSS = 1e-12
"""Losses below this part of the first one count as so much: the rest is rounding."""


@dataclass(frozen=True)
class Finding:
    """The evidence of one setting. `results` are its trainings with fresh seeds, `shown` the one of median speed; `rates` what every
    learning rate came to. Losses in `outcome` are in the target's unit, those of `results` and `noise` as training saw them."""

    candidate: Candidate
    learning_rate: float
    outcome: Outcome
    results: Sequence[TrialResult]
    shown: TrialResult
    rates: Sequence[RateSummary]
    noise: "Sequence[NoisePoint]"
    noise_scale: Estimate | None
    timings: Timings
    reason: str | None

    @property
    def steps(self) -> Estimate:
        """Steps to the target; a lower bound where seeds did not reach it."""
        return log_mean(self.outcome.least_steps).interval()

    @property
    def rows(self) -> Estimate:
        """Rows to the target; a lower bound where seeds did not reach it."""
        return log_mean(self.outcome.least_rows).interval()

    @property
    def seconds(self) -> Estimate:
        """Seconds to the target: steps × seconds a step."""
        return self.outcome.seconds().interval()

    @property
    def sampled(self) -> bool:
        """Whether the setting draws constant batches at random, or takes all rows: a point of the frontier."""
        updates = self.candidate.strategy.updates
        return isinstance(updates, FullBatch) or (isinstance(updates, MiniBatch) and updates.shuffled)


@dataclass(frozen=True)
class Findings:
    """Everything that a search found; `loss_unit` turns losses that training saw into the target's unit."""

    settings: Sequence[Finding]
    typed: Sequence[Finding]
    choice: Choice | None
    against_typed: Sequence[Pair]
    frontier: Frontier | None
    throughput_knee: float | None
    memory_ceiling: int
    deliveries: Sequence[Delivery]
    sorted_order: Pair | None
    sorted_label: str
    target_loss: float | None
    target_given: bool
    first_loss: float
    loss_unit: float
    row_count: int
    budget_rows: int
    trials: int
    seconds: float
    notes: Sequence[str]

    @property
    def best(self) -> Finding | None:
        """The recommended setting's evidence."""
        return None if self.choice is None else self.of(self.choice.label)

    def of(self, label: str) -> Finding:
        """Return the evidence of the setting with this label."""
        return next(item for item in (*self.settings, *self.typed) if item.candidate.label == label)


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
        loss_unit=unit,
        row_count=search.row_count,
        budget_rows=search.budget_rows,
        trials=search.trial_count,
        seconds=search.seconds,
        notes=[*search.notes, *_odd_settings(search), *_edge_notes(search), *_test_notes(found, best)],
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
    shown = results[int(speed[len(speed) // 2])]
    return Finding(
        candidate=member,
        learning_rate=rate,
        outcome=outcome,
        results=results,
        shown=shown,
        rates=summaries(item.tuned, target),
        noise=item.noise,
        noise_scale=_at_target(item.noise, target),
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


def _at_target(noise: "Sequence[NoisePoint]", target: float | None) -> Estimate | None:
    """Return the noise scale where the loss was nearest to the target, by ratio."""
    points = [point for point in noise if point.validation_loss > 0]
    if target is None or not points:
        return None
    return min(points, key=lambda point: abs(math.log(point.validation_loss / target))).noise_scale


def _reason(search: "Search", item: "Progression", outcome: Outcome, shown: TrialResult) -> str | None:
    if outcome.status == "diverged":
        return search.experiment.reason(shown)
    if search.target is None:
        return "no learning rate lowered the validation loss, so there is no target"
    if outcome.status == "not_reached":
        unit = search.experiment.loss_unit
        reached, seeds, ended = outcome.seeds_reached, len(outcome.steps), float(np.mean(outcome.validation_loss))
        lowest_of = f"the lowest validation loss was {ended:.6g} against {search.target * unit:.6g}"
        return f"{reached} of {seeds} seeds reached the target within {outcome.budget_rows:,.0f} rows; on average {lowest_of}"
    return None


def _odd_settings(search: "Search") -> list[str]:
    """Say where the user's settings make the comparison less than it could be."""
    notes = []
    given, first, unit = search.rule.target_loss, search.first_loss, search.experiment.loss_unit
    if given is not None and given >= first * unit:
        notes.append(
            f"target_loss {given:g} is no lower than the first validation loss, {first * unit:.4g}: it is reached without training"
        )
    if search.plan.max_steps is not None:
        notes.append(
            f"train.max_steps {search.plan.max_steps:,} ends settings with small batches before the others' rows; better use train.max_rows"
        )
    return notes


def _edge_notes(search: "Search") -> list[str]:
    """Say where the grid of rates was moved, and whose best rate is still at its edge."""
    notes = []
    for item in search.known:
        tried = sorted({result.trial.learning_rate for result in item.tuned})
        if item.group.first.rates is not None or not tried:
            continue
        grid = rates.coarse(item.group.first.optimizer, search.rule.rates)
        label = item.group.label
        if tried[0] < grid[0] or tried[-1] > grid[-1]:
            notes.append(
                f"{label}: the best rate lay at the edge of {grid[0]:g}–{grid[-1]:g}, so the grid moved to {tried[0]:g}–{tried[-1]:g}"
            )
        if item.rate is not None and rates.at_edge(tried, item.rate):
            notes.append(f"{label}: the best rate, {item.rate:g}, is still at the edge of those tried; one beyond may do better")
    return notes


def _test_notes(found: Sequence[Finding], best: Finding | None) -> list[str]:
    """Say which setting does better on the test rows, where one detectably does."""
    if best is None:
        return []
    others = [item for item in found if item is not best and item.outcome.status != "diverged"]
    pairs = [(paired(item.outcome, best.outcome, "test_loss"), item) for item in others]
    better = [(pair, item) for pair, item in pairs if pair.detectable and pair.ratio < 1]
    if not better:
        return []
    _, item = min(better, key=lambda entry: entry[0].ratio)
    own, its = best.outcome.test_loss.mean(), item.outcome.test_loss.mean()
    return [f"on the test rows {item.candidate.label} does better: mean loss {its:.4g} against the recommended setting's {own:.4g}"]


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
