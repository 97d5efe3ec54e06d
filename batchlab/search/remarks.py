"""What has to be said beside a verdict: odd settings, rates at the edge, what more time would settle, who does better on the test rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchlab.analysis.paired import Sample, differences
from batchlab.analysis.tails import Tail, heavy_tail
from batchlab.analysis.verdict import PAIR_CONFIDENCE, Choice
from batchlab.engine import rates
from batchlab.experiment import MOST_TESTED, Experiment
from batchlab.files.mapped import gathered
from batchlab.results import Period
from batchlab.search.findings import WHOLE, Finding, on_its_way
from batchlab.search.known import Known
from batchlab.search.space import of_branches
from batchlab.search.terms import Terms
from batchlab.strategies.streaming import Streaming

FEW_ROWS = 20
"""Fewer validation or test rows than these are too few not to say so."""


@dataclass(frozen=True)
class Remarked:
    """What remarks are made about."""

    experiment: Experiment
    terms: Terms
    known: Known
    found: Sequence[Finding]
    best: Finding | None
    choice: Choice | None


def remarks_of(about: Remarked) -> list[str]:
    """Return all remarks, one sentence each."""
    leaks = [leak.text for leak in about.experiment.leaks]
    return [
        *leaks,
        *_unconfirmed(about),
        *_odd_settings(about),
        *_shuffles(about),
        *_edge_notes(about),
        *_test_notes(about),
        *_nothing_learnt(about),
        *_target_scale(about),
    ]


def _unconfirmed(about: Remarked) -> list[str]:
    """Say where the verdict rests on less than it should, and what more time would settle."""
    standings, said = about.known.standings, []
    if not about.known.confirmed and standings.leader is not None:
        said.append("the search ended before anything was confirmed with fresh draws: this is the race's leader so far")
    cut = [entry for entry in standings.entries.values() if entry.left is not None and entry.left.why == "time"]
    unsettled = [(len(cut), "left the race for lack of it"), (sum(not entry.trials for entry in standings.running), "never began")]
    told = [f"{count} setting{'s' if count > 1 else ''} that {what}" for count, what in unsettled if count]
    said += [f"more time would settle {' and '.join(told)}"] if told else []
    best = None if about.best is None else standings.entries.get(about.best.candidate.setting)
    if about.best is not None and best is not None and WHOLE * best.rows < about.terms.budget_rows:
        fresh = f" and {about.best.outcome.budget_rows:,.0f} in each training with fresh draws" if about.known.confirmed else ""
        said.append(
            f"the recommended setting saw {best.rows:,} rows in the race{fresh}, of {about.terms.budget_rows:,} that the profile allows a "
            "training; more time may lower the loss and change the choice"
        )
    return said


def _shuffles(about: Remarked) -> list[str]:
    """Say how good the shuffle through a buffer is, where the buffer does not hold all rows."""
    count = about.terms.row_count
    through = [line for line in about.terms.lines if isinstance(line.strategy, Streaming) and line.strategy.buffer_rows < count]
    if not through or not isinstance(through[0].strategy, Streaming):
        return []
    from batchlab.analysis.shuffling import measured

    return [f"how {through[0].label} shuffles: {measured(through[0].strategy, count).text}"]


def walk_note(periods: Sequence[Period]) -> str:
    """Say how the recommended setting did, period by period."""
    losses = ", ".join(f"{period.test_loss:.4g} ({period.first} to {period.last})" for period in periods)
    better = sum(period.test_loss < period.constant_test_loss for period in periods)
    return (
        f"walking forward, trained on the past and tested on the next period, its test loss was {losses}; "
        f"lower than always predicting the mean in {better} of {len(periods)} periods"
    )


def _nothing_learnt(about: Remarked) -> list[str]:
    """Say where the recommended setting predicts hardly better than a constant does, or worse, for so few test rows."""
    if about.best is None or not np.isfinite(about.best.outcome.test_loss).all():
        return []
    raced = about.known.standings.raced(about.best.candidate.setting, about.terms.budget_rows)
    if on_its_way(about.best, raced, about.experiment.constant_loss, bool(about.known.confirmed)):
        return []  # it has not had the time
    own, constant = float(about.best.outcome.test_loss.mean()), about.experiment.constant_test_loss
    return against_constant(own, constant, about.experiment.split.sizes()["test"], bool(about.experiment.table.schema.target.classes))


def against_constant(own: float, constant: float, rows: int, classes: bool) -> list[str]:
    """Say that a test loss is higher than a constant's, the same, or lower by no more than so few test rows can tell; else nothing."""
    if own < constant * (1 - rows**-0.5):
        return []
    what = "always predicting the classes' shares" if classes else "always predicting the mean"
    if f"{own:.4g}" == f"{constant:.4g}":
        how = f"the same as that of {what}"
    elif own > constant:
        how = f"higher than that of {what}, {constant:.4g}, so worse than no model"
    else:
        how = f"hardly lower than that of {what}, {constant:.4g}"
    return [
        f"on the test rows the recommended setting's mean loss, {own:.4g}, is {how}: there may be nothing to learn here, and then the "
        "choice means nothing"
    ]


def _target_scale(about: Remarked) -> list[str]:
    """Offer the logarithm where the target's tail is heavy; where it is what is learnt, say what that does, with scores in its own unit."""
    experiment, target = about.experiment, about.experiment.table.schema.target
    if target.classes:
        return []
    if not experiment.preparation.log_target:
        tail = heavy_tail(gathered(experiment.table.target, experiment.split.rows("train", MOST_TESTED)))
        return [] if tail is None else [_offered(target.name, tail)]
    said = f"'{target.name}' is learnt on its logarithm: losses are those of log({target.name}), predictions are back in its unit"
    if about.best is None or not about.best.shown.weights or about.best.shown.diverged_at is not None:
        return [said]
    found = experiment.test_scores(about.best.shown)
    return [
        f"{said}; there the recommended setting has on the test rows a root mean squared error of {found['rmse']:.4g}, a mean absolute "
        f"error of {found['mae']:.4g}"
    ]


def _offered(name: str, tail: Tail) -> str:
    return (
        f"target '{name}' is above 0 and heavy-tailed: its skewness is {tail.skewness:.3g}, that of its logarithm {tail.of_logarithm:.2g}, "
        f"and the largest 1% of the training rows hold {tail.top_share:.0%} of its sum, on which squared errors hang; --set "
        "target_scale=log learns its logarithm and predicts in its own unit"
    )


def _odd_settings(about: Remarked) -> list[str]:
    """Say where the user's settings make the comparison less than it could be."""
    experiment, data = about.experiment, about.experiment.data
    sizes, rule, plan = experiment.split.sizes(), experiment.profile.search, experiment.profile.train
    few = [f"{sizes[part]} {part}" for part in ("validation", "test") if sizes[part] < FEW_ROWS]
    notes = [f"there are only {' and '.join(few)} rows, so the verdict rests on little"] if few else []
    if data.stored is not None and not any(isinstance(line.strategy, Streaming) for line in about.terms.lines):
        notes.append("the training rows stay in files, where drawing them one by one is slow; try --strategies streaming")
    entries, unit = about.known.standings.entries.values(), experiment.loss_unit
    first = max((entry.trials[0].curve.validation_loss[0] * unit for entry in entries if entry.trials), default=0.0)
    if rule.target_loss is not None and rule.target_loss >= first:
        notes.append(
            f"target_loss {rule.target_loss:g} is no lower than the first validation loss, {first:.4g}: it is reached without training"
        )
    if plan.max_steps is not None:
        notes.append(
            f"train.max_steps {plan.max_steps:,} ends settings with small batches before the others' rows; better use train.max_rows"
        )
    return notes


def _edge_notes(about: Remarked) -> list[str]:
    """Say whose best rate is at the edge of those tried, where the race did not move it."""
    if about.experiment.profile.train.learning_rate is not None or about.best is None or about.best.candidate.typed:
        return []
    own = about.best.candidate
    tried = [item.learning_rate for item in of_branches(about.known.standings.entries).get(own.setting.branch, [])]
    if len(tried) < 2 or not rates.at_edge(tried, own.learning_rate):
        return []
    return [f"{own.label}: the best rate, {own.learning_rate:g}, is at the edge of those tried; one beyond may do better"]


def _test_notes(about: Remarked) -> list[str]:
    """Say which setting does better on the test rows, where one detectably does."""
    best = about.best
    if best is None or not np.isfinite(best.outcome.test_loss).all():
        return []
    others = [
        item
        for item in about.found
        if item is not best and len(item.outcome.test_loss) == len(best.outcome.test_loss) and np.isfinite(item.outcome.test_loss).all()
    ]
    apart = differences([_tested(about, item) for item in (best, *others)], 0)[1:]
    margin, error = about.experiment.profile.search.margin, (1 - PAIR_CONFIDENCE) / 2
    better = [item for found, item in zip(apart, others, strict=True) if found.high(error) < -margin]
    if not better:
        return []
    item = min(better, key=lambda item: float(item.outcome.test_loss.mean()))
    own, its = best.outcome.test_loss.mean(), item.outcome.test_loss.mean()
    return [f"on the test rows {item.candidate.label} does better: mean loss {its:.4g} against the recommended setting's {own:.4g}"]


def _tested(about: Remarked, item: Finding) -> Sample:
    """Return the losses on the test rows, which all trainings share."""
    return Sample(item.outcome.test_loss, about.known.test_portions.get(item.candidate.setting))
