"""What was measured of the claims that a batch may be too small or too large."""

import math

import numpy as np

from batchlab.analysis.verdict import ratio_of_resamples
from batchlab.report.pictures import own_rates
from batchlab.report.wording import interval
from batchlab.search.findings import Finding, Findings
from batchlab.snippets.quantities import number, seconds
from batchlab.strategies.full_batch import FullBatch

ALIKE, RESEMBLES = 1.1, 1.5
"""Within a factor of this, two measurements without an interval of their own are called about the same; a ratio whose
interval lies within the second resembles."""
END = 5
"""The end of a curve is its last so many evaluations."""


def sized(found: Findings) -> list[Finding]:
    """Return a setting for each batch size that is drawn at random and smaller than all rows, smallest first: gathered, if it can be."""
    items = [item for item in found.settings if item.sampled and item.candidate.batch_rows < found.row_count]
    items.sort(key=lambda item: (item.candidate.batch_rows, item.candidate.strategy.loader_workers is not None))
    return list({item.candidate.batch_rows: item for item in reversed(items)}.values())[::-1]


def full_batch(found: Findings) -> Finding | None:
    """Return the setting that takes all rows in one piece for every step."""
    return next((item for item in found.settings if isinstance(item.candidate.strategy, FullBatch)), None)


def too_small(found: Findings) -> str:
    """Say whether the smallest batch trains less steadily than the largest."""
    items = sized(found)
    if len(items) < 2:
        return "Not measured: it takes two batch sizes or more."
    small, large = items[0], items[-1]
    for item, said in ((small, "Yes: every training"), (large, "Cannot be said: every training")):
        if item.outcome.status == "diverged":
            return f"{said} of {item.candidate.label} diverged, even at its best rate."
    swings, rates = [_unrest(item) for item in (small, large)], [_highest_rate(item) for item in (small, large)]
    signs = [swings[0] > ALIKE * swings[1], rates[0] < rates[1] / ALIKE]
    said = ("Not here", "Partly", "Yes")[sum(signs)]
    swing = (
        f"At its own best learning rate, the loss of {small.candidate.label}'s raw weights moves by {swings[0]:.2%} from one evaluation "
        f"to the next at the end, that of {large.candidate.label} by {swings[1]:.2%}."
    )
    return f"{said}. {swing}{_rates_lost(rates)}{_time(found, small)}"


def _unrest(item: Finding) -> float:
    """Return the relative change of the raw weights' loss between the last evaluations: root mean square over draws."""
    curves = [
        np.asarray(result.curve.last_validation_loss[-END - 1 :], np.float64) for result in item.results if result.diverged_at is None
    ]
    changes = [np.diff(np.log(curve[curve > 0])) for curve in curves]
    joined = np.concatenate(changes) if changes else np.zeros(0)
    return float(np.sqrt(np.mean(joined**2))) if len(joined) else math.nan


def _highest_rate(item: Finding) -> float:
    """Return the highest learning rate of its optimizer that came near the best one's loss in the race; NaN for none."""
    rates = [rate for rate in own_rates(item) if math.isfinite(rate.loss)]
    best = min((rate.loss for rate in rates), default=math.nan)
    return max((rate.learning_rate for rate in rates if rate.loss <= ALIKE * best), default=math.nan)


def _rates_lost(rates: list[float]) -> str:
    if not all(map(math.isfinite, rates)):
        return ""
    return f" The highest rate that came within {ALIKE - 1:.0%} of the best rate's loss is {rates[0]:g} against {rates[1]:g}."


def _time(found: Findings, small: Finding) -> str:
    best = found.best
    if found.target_loss is None or best is None:
        return ""
    if best is small:
        return " It is the recommended one all the same."
    bound = "" if small.outcome.status == "reached" else "more than "
    return f" It takes {bound}{seconds(small.seconds.value)} to the target, the recommended one {seconds(best.seconds.value)}."


def too_large(found: Findings) -> str:
    """Say whether the largest mini-batch takes the steps that full batch takes."""
    items, full = sized(found), full_batch(found)
    if not items or full is None:
        return "Not measured: it takes a mini-batch and full batch."
    large = items[-1]
    if large.outcome.status != "reached" or full.outcome.status != "reached":
        return f"Cannot be said: {large.candidate.label} or full_batch did not reach the target."
    times = ratio_of_resamples(large.outcome.steps, full.outcome.steps, len(large.outcome.losses)).interval()
    said = "No difference detectable" if times.holds(1) else "Not quite"
    said = "Yes" if times.high < RESEMBLES and times.low > 1 / RESEMBLES else said
    ends = f"{large.candidate.label} takes {number(large.steps.value)} steps to the target, full_batch {number(full.steps.value)}"
    return f"{said}: {ends}; {number(times.value)}× as many (95% CI {interval(times)})."
