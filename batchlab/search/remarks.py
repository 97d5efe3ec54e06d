"""What has to be said beside a verdict: odd settings, rates at the edge, and who does better on the test rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchlab.analysis.verdict import paired
from batchlab.results import Period
from batchlab.search import rates
from batchlab.search.findings import Finding
from batchlab.strategies.streaming import Streaming

if TYPE_CHECKING:
    from batchlab.search.search import Search


FEW_ROWS = 20
"""Fewer validation or test rows than these are too few not to say so."""


def remarks_of(search: "Search", found: Sequence[Finding], best: Finding | None) -> list[str]:
    """Return all remarks, one sentence each."""
    leaks = [leak.text for leak in search.experiment.leaks]
    return [
        *leaks,
        *_odd_settings(search),
        *_shuffles(search),
        *_edge_notes(search),
        *_test_notes(found, best),
        *_nothing_learnt(search, best),
    ]


def _shuffles(search: "Search") -> list[str]:
    """Say how good the shuffle through a buffer is, where the buffer does not hold all rows."""
    through = [item for item in search.candidates if isinstance(item.strategy, Streaming) and item.strategy.buffer_rows < search.row_count]
    if not through:
        return []
    from batchlab.analysis.shuffling import measured

    return [f"how {through[0].label} shuffles: {measured(through[0].strategy, search.row_count).text}"]


def walk_note(periods: Sequence[Period]) -> str:
    """Say how the recommended setting did, period by period."""
    losses = ", ".join(f"{period.test_loss:.4g} ({period.first} to {period.last})" for period in periods)
    better = sum(period.test_loss < period.constant_test_loss for period in periods)
    return (
        f"walking forward, trained on the past and tested on the next period, its test loss was {losses}; "
        f"lower than always predicting the mean in {better} of {len(periods)} periods"
    )


def _nothing_learnt(search: "Search", best: Finding | None) -> list[str]:
    """Say where the recommended setting predicts hardly better than a constant does, for so few test rows."""
    if best is None:
        return []
    own, constant = float(best.outcome.test_loss.mean()), search.experiment.constant_test_loss
    if own < constant * (1 - search.experiment.split.sizes()["test"] ** -0.5):
        return []
    return [
        f"on the test rows the recommended setting's mean loss, {own:.4g}, is hardly lower than that of always predicting the "
        f"mean, {constant:.4g}: there may be nothing to learn here, and then the choice means nothing"
    ]


def _odd_settings(search: "Search") -> list[str]:
    """Say where the user's settings make the comparison less than it could be."""
    sizes = search.experiment.split.sizes()
    few = [f"{sizes[part]} {part}" for part in ("validation", "test") if sizes[part] < FEW_ROWS]
    notes = [f"there are only {' and '.join(few)} rows, so the verdict rests on little"] if few else []
    if search.data.stored is not None and not any(isinstance(item.strategy, Streaming) for item in search.candidates):
        notes.append("the training rows stay in files, where drawing them one by one is slow; try --strategies streaming")
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
