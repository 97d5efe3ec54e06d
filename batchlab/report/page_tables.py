"""The page's tables: all settings, what people type beside the recommendation, and the lesson's claims."""

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np

from batchlab.analysis.estimates import Estimate
from batchlab.report.claims import Claim
from batchlab.report.document import table
from batchlab.report.ranking import ranked, times_shown
from batchlab.report.wording import beside, beside_it_in_loss, interval, status, why
from batchlab.results import YardstickResult
from batchlab.search.findings import Finding, Findings
from batchlab.search.space import optimizer_words
from batchlab.snippets.quantities import memory, number, seconds

HEADINGS = ("setting", "batch rows", "optimizer", "rate", "status", "rows a training")
COSTS = ("time to target", "seconds a step", "peak memory", "noise scale")


def settings_table(found: Findings, unit: str) -> str:
    """Return all settings, best first, and below them why a setting left the race or diverged: none is left out."""
    headings = [*HEADINGS, f"validation loss, mean ({unit})", f"test loss, mean ({unit})", *COSTS]
    items = ranked(found)
    reasons = list(dict.fromkeys(reason for item in items if (reason := why(found, item))))
    body = "".join(_row(found, item, reasons) for item in items)
    notes = "".join(f'<li id="reason-{place}">{html.escape(reason)}</li>' for place, reason in enumerate(reasons, 1))
    listing = f'<ol class="remarks">{notes}</ol>' if reasons else ""
    return table(headings, body) + listing


def _row(found: Findings, item: Finding, reasons: Sequence[str]) -> str:
    outcome, won = item.outcome, item is found.best
    cells = [
        f'<td class="name">{html.escape(item.candidate.label)} {_mark(found, item)}</td>',
        f"<td>{number(item.candidate.batch_rows)}</td>",
        f"<td>{html.escape(optimizer_words(item.candidate.optimizer))}</td>",
        f"<td>{item.learning_rate:g}</td>",
        f"<td>{_status(found, item, reasons)}</td>",
        f"<td>{number(outcome.budget_rows)}</td>",
        f"<td>{_loss(item)}</td>",
        f"<td>{_mean(outcome.test_loss)}</td>",
        f"<td>{_bounded(found, item, item.seconds, 'time')}</td>",
        f"<td>{seconds(item.timings.step().value) if item.timings.alone else '–'}</td>",
        f"<td>{_peak(item)}</td>",
        f"<td>{_noise(item.noise_scale)}</td>",
    ]
    opening = '<tr class="winner">' if won else "<tr>"
    return f"{opening}{''.join(cells)}</tr>"


def _mark(found: Findings, item: Finding) -> str:
    marks = []
    if item is found.best:
        marks.append('<span class="mark won">recommended</span>')
    if found.choice is not None and item.candidate.label in found.choice.ties:
        marks.append('<span class="mark tie">tie</span>')
    elif found.choice is not None and item.candidate.label in found.choice.as_good:
        marks.append('<span class="mark tie">as good</span>')
    if item.candidate.typed:
        marks.append('<span class="mark typed">typed by default</span>')
    return " ".join(marks)


def _status(found: Findings, item: Finding, reasons: Sequence[str]) -> str:
    words, reason = status(item), why(found, item)
    if reason is None:
        return words
    place = reasons.index(reason) + 1
    return f'<span class="bad" title="{html.escape(reason, quote=True)}">{words}</span> <a href="#reason-{place}">[{place}]</a>'


def _loss(item: Finding) -> str:
    """Return the mean loss over draws with its interval; of one that left the race, as it was then."""
    outcome = item.outcome
    if outcome.diverged:
        return "–"
    if outcome.behind or len(outcome.losses) < 2:
        return f"{outcome.loss:.5g}"
    at = outcome.loss_estimate()
    return f"{at.value:.5g}<small>{at.low:.4g}–{at.high:.4g}</small>"


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
    """Return the mean over draws, of those that did not diverge where some did."""
    kept = losses[np.isfinite(losses)]
    if not len(kept):
        return "–"
    some = f"<small>{len(kept)} of {len(losses)} draws</small>" if len(kept) < len(losses) else ""
    return f"{kept.mean():.5g}{some}"


def typed_table(found: Findings) -> str:
    """Return what people type by default beside the recommendation, and plainly how they compare."""
    if not found.typed:
        return "<p>Nothing that people type by default was trained beside it: no time, or <code>search.defaults</code> is off.</p>"
    rows = "".join(_typed_row(found, item) for item in found.typed)
    return table(["typed by default", "rate", "validation loss", "beside the recommendation"], rows, "words")


def _typed_row(found: Findings, item: Finding) -> str:
    name, answer = html.escape(item.candidate.label), html.escape("–" if found.best is None else f"It {beside(found, item)}.")
    return (
        f'<tr><td class="name">{name}</td><td data-label="rate">{item.learning_rate:g}</td>'
        f'<td data-label="validation loss">{_loss(item)}</td><td data-label="beside it">{answer}</td></tr>'
    )


def yardsticks_table(found: Findings, unit: str) -> str:
    """Return cheap ways to predict, scored on the same rows, beside the recommendation."""
    if not found.yardsticks:
        return "<p>None was scored beside it (<code>search.yardsticks</code> is off, or there was no time).</p>"
    headings = ["yardstick", f"validation loss ({unit})", f"test loss ({unit})", "test loss beside the recommendation's", "fitted in", "on"]
    return table(headings, "".join(_yardstick_row(item) for item in found.yardsticks), "words")


def _yardstick_row(item: YardstickResult) -> str:
    mark = ' <span class="mark won">better</span>' if item.beats else ""
    validation, test = ("–" if value is None else f"{value:.5g}" for value in (item.validation_loss, item.test_loss))
    note = f"<small>{html.escape(item.note)}</small>" if item.note else ""
    rows = f"{item.rows:,}{'' if item.rows >= item.of_rows else f' of {item.of_rows:,}'} rows"
    return (
        f'<tr><td class="name">{html.escape(item.name)}{mark}{note}</td><td data-label="validation loss">{validation}</td>'
        f'<td data-label="test loss">{test}</td><td data-label="beside it">{html.escape(beside_it_in_loss(item))}</td>'
        f'<td data-label="fitted in">{seconds(item.seconds)}</td><td data-label="on">{rows}</td></tr>'
    )


def claims_table(answers: Iterable[Claim]) -> str:
    """Return the lesson's claims with their measured answers."""
    rows = "".join(f'<tr><td class="name">{html.escape(item.claim)}</td><td>{html.escape(item.answer)}</td></tr>' for item in answers)
    return table(["the lesson says", "measured here"], rows, "words")
