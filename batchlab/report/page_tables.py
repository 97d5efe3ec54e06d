"""The page's tables: all settings, what people type beside the recommendation, and the lesson's claims."""

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np

from batchlab.analysis.estimates import Estimate
from batchlab.analysis.verdict import Pair
from batchlab.report.claims import Claim
from batchlab.report.document import table
from batchlab.report.ranking import ranked, times_shown
from batchlab.report.wording import interval, memory, number, seconds
from batchlab.search.findings import Finding, Findings

HEADINGS = ("setting", "batch rows", "rate", "status", "steps to target", "seconds a step", "time to target", "peak memory", "noise scale")


def settings_table(found: Findings, unit: str) -> str:
    """Return all settings, best first, and below them why a setting missed the target or diverged: none is left out."""
    headings = [*HEADINGS, f"validation loss, mean of seeds ({unit})", f"test loss, mean of seeds ({unit})"]
    items = ranked(found)
    reasons = list(dict.fromkeys(item.reason for item in items if item.reason))
    body = "".join(_row(found, item, reasons) for item in items)
    notes = "".join(f'<li id="reason-{place}">{html.escape(reason)}</li>' for place, reason in enumerate(reasons, 1))
    listing = f'<ol class="remarks">{notes}</ol>' if reasons else ""
    return table(headings, body) + listing


def _row(found: Findings, item: Finding, reasons: Sequence[str]) -> str:
    outcome, won = item.outcome, item is found.best
    cells = [
        f'<td class="name">{html.escape(item.candidate.label)} {_mark(found, item)}</td>',
        f"<td>{number(item.candidate.batch_rows)}</td>",
        f"<td>{item.learning_rate:g}</td>",
        f"<td>{_status(item, reasons)}</td>",
        f"<td>{_bounded(found, item, item.steps, 'steps')}</td>",
        f"<td>{seconds(item.timings.step().value)}</td>",
        f"<td>{_bounded(found, item, item.seconds, 'time')}</td>",
        f"<td>{_peak(item)}</td>",
        f"<td>{_noise(item.noise_scale)}</td>",
        f"<td>{_mean(outcome.validation_loss)}</td>",
        f"<td>{_mean(outcome.test_loss)}</td>",
    ]
    opening = '<tr class="winner">' if won else "<tr>"
    return f"{opening}{''.join(cells)}</tr>"


def _mark(found: Findings, item: Finding) -> str:
    marks = []
    if item is found.best:
        marks.append('<span class="mark won">recommended</span>')
    if found.choice is not None and item.candidate.label in found.choice.ties:
        marks.append('<span class="mark tie">tie</span>')
    if item.candidate.typed:
        marks.append('<span class="mark typed">typed by default</span>')
    return " ".join(marks)


def _status(item: Finding, reasons: Sequence[str]) -> str:
    outcome = item.outcome
    words = {"reached": "reached", "diverged": "diverged", "not_reached": f"reached by {outcome.seeds_reached} of {len(outcome.steps)}"}
    if item.reason is None:
        return words[outcome.status]
    place = reasons.index(item.reason) + 1
    reason = html.escape(item.reason, quote=True)
    return f'<span class="bad" title="{reason}">{words[outcome.status]}</span> <a href="#reason-{place}">[{place}]</a>'


def _bounded(found: Findings, item: Finding, estimate: Estimate, what: str) -> str:
    """Return the value with its interval, or the lower bound of a setting that missed the target."""
    if not times_shown(found, item):
        return "–"
    shown = seconds if what == "time" else number
    if item.outcome.status != "reached":
        return f"&gt; {shown(estimate.value)}"
    return f"{shown(estimate.value)}<small>{interval(estimate, 'time' if what == 'time' else 'rows')}</small>"


def _peak(item: Finding) -> str:
    peaks = item.outcome.peak_bytes
    return memory(float(np.median(peaks))) if len(peaks) and np.isfinite(peaks).all() else "–"


def _noise(scale: Estimate | None) -> str:
    if scale is None:
        return "–"
    if math.isfinite(scale.value):
        return f"{number(scale.value)}<small>{interval(scale)}</small>"
    return f"&gt; {number(scale.low)}" if math.isfinite(scale.low) else "∞"


def _mean(losses: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> str:
    """Return the mean over seeds, of those that did not diverge where some did."""
    kept = losses[np.isfinite(losses)]
    if not len(kept):
        return "–"
    some = f"<small>{len(kept)} of {len(losses)} seeds</small>" if len(kept) < len(losses) else ""
    return f"{kept.mean():.5g}{some}"


def typed_table(found: Findings) -> str:
    """Return what people type by default beside the recommendation, and plainly whether that beats it in seconds to the target."""
    if not found.typed:
        return "<p>What people type by default was not trained beside it (<code>search.defaults</code> is off).</p>"
    rows = "".join(_typed_row(found, item) for item in found.typed)
    return table(["typed by default", "rate", "time to target", "does the recommendation beat it?"], rows, "words")


def _typed_row(found: Findings, item: Finding) -> str:
    pair = next((pair for pair in found.against_typed if pair.label == item.candidate.label), None)
    answer = html.escape(beaten(found, item, pair))
    name, time = html.escape(item.candidate.label), _bounded(found, item, item.seconds, "time")
    return (
        f'<tr><td class="name">{name}</td><td data-label="rate">{item.learning_rate:g}</td>'
        f'<td data-label="time to target">{time}</td><td data-label="beaten">{answer}</td></tr>'
    )


def beaten(found: Findings, item: Finding, pair: Pair | None) -> str:
    """Say whether the recommendation reaches the same target in less time than this default."""
    if item.outcome.status == "diverged":
        return f"Yes: it diverges; {item.reason or 'no reason known'}"
    if found.target_loss is None or pair is None or found.best is None:
        return "Cannot be said: there is no target that both could reach."
    low, high = pair.ratio_ci
    ends = f"over {number(low)}" if math.isinf(high) else f"{number(low)}–{number(high)}"
    if found.best.outcome.status != "reached" and item.outcome.status == "reached":
        return "No: the default reaches the target with every seed, the recommendation does not."
    if found.best.outcome.status != "reached":
        return f"Cannot be said: the recommendation itself missed the target with some seeds ({number(pair.ratio)}× as long, {ends})."
    if pair.at_least:
        reached = f"{item.outcome.seeds_reached} of {len(item.outcome.steps)} seeds get there"
        return f"{'Yes' if pair.detectable else 'Probably'}: {reached}; at least {number(pair.ratio)}× as long ({ends})."
    if not pair.detectable:
        return f"No: no difference detectable ({number(pair.ratio)}× as long, {ends})."
    if pair.ratio > 1:
        return f"Yes: {number(pair.ratio)}× faster ({ends})."
    return f"No: the default is {number(1 / pair.ratio)}× faster ({number(1 / high)}–{number(1 / low)})."


def claims_table(answers: Iterable[Claim]) -> str:
    """Return the lesson's claims with their measured answers."""
    rows = "".join(f'<tr><td class="name">{html.escape(item.claim)}</td><td>{html.escape(item.answer)}</td></tr>' for item in answers)
    return table(["the lesson says", "measured here"], rows, "words")
