"""What the lesson claims of batches, each claim with the answer that this search measured."""

import math
from dataclasses import dataclass

import numpy as np

from batchlab.analysis.estimates import Estimate
from batchlab.analysis.verdict import paired
from batchlab.report.claims_of_size import ALIKE, full_batch, sized, too_large, too_small
from batchlab.search.findings import Finding, Findings
from batchlab.search.noise import nearest_to
from batchlab.snippets.quantities import memory, number, seconds
from batchlab.strategies.accumulated import Accumulated

FEW_PAGES = 64 * 2**10
"""Memory is measured in the operating system's pages of 4 KiB: so small a difference comes and goes from one run to the next."""


@dataclass(frozen=True)
class Claim:
    """A claim of the lesson, and what was measured."""

    claim: str
    answer: str


def claims(found: Findings, device: str = "cpu") -> list[Claim]:
    """Return the lesson's claims with their measured answers; one that was not measured says so."""
    return [
        Claim("Batch learning has stable gradients, mini-batch learning noisy ones.", _gradients(found)),
        Claim("Batch learning needs all data in memory; mini-batches need less.", _memory(found)),
        Claim("Mini-batches update the weights more often in an epoch, so they learn faster.", _updates(found)),
        Claim("Too small a batch makes training unstable.", too_small(found)),
        Claim("Too large a batch resembles batch learning.", too_large(found)),
        Claim("Shuffling keeps the model from learning the order of the data.", _shuffling(found)),
        Claim("More DataLoader workers load data faster.", _workers(found)),
        Claim("Mini-batches train faster on a GPU.", _gpu(device)),
    ]


def noise_share(scale: float, batch_rows: int, row_count: int) -> float:
    """Return the length of the noise in a step's gradient over the length of the gradient, for rows drawn without replacement."""
    if batch_rows >= row_count:
        return 0.0
    return math.sqrt(scale / batch_rows * (row_count - batch_rows) / (row_count - 1))


def _gradients(found: Findings) -> str:
    measured = [item for item in sized(found) if any(math.isfinite(point.noise_scale.low) for point in item.noise)]
    if not measured:
        return "Not measured: no mini-batch has a noise scale with a bound."
    kept = measured[:1] if len(measured) == 1 else [measured[0], measured[-1]]
    if found.best in measured and found.best not in kept:
        kept.insert(1, found.best)
    parts = [f"batches of {number(item.candidate.batch_rows)}: {_shares(found, item)}" for item in kept]
    return f"Yes. The noise in a step's gradient, over the gradient's own length: {'; '.join(parts)}. With full batch: none."


def _shares(found: Findings, item: Finding) -> str:
    points = [point for point in item.noise if point.validation_loss > 0]
    parts = [f"{_share(found, item, points[0].noise_scale)} before the first step"]
    near = nearest_to(None if found.target_loss is None else found.target_loss / found.loss_unit, points)
    if near is not None and near is not points[0]:
        parts.append(
            f"{_share(found, item, near.noise_scale)} near the target (validation loss {near.validation_loss * found.loss_unit:.4g})"
        )
    return " and ".join(parts)


def _share(found: Findings, item: Finding, scale: Estimate) -> str:
    rows, count = item.candidate.batch_rows, found.row_count
    if math.isfinite(scale.value):
        return number(noise_share(scale.value, rows, count))
    return (
        f"over {number(noise_share(scale.low, rows, count))}"
        if math.isfinite(scale.low)
        else "beyond measuring (no gradient above the noise)"
    )


def _memory(found: Findings) -> str:
    full = full_batch(found)
    others = {
        "mini-batches": sized(found)[:1],
        "accumulated": [item for item in found.settings if isinstance(item.candidate.strategy, Accumulated)],
    }
    if full is None or _peak(full) is None:
        return "Not measured: there is no full batch to compare with." if full is None else "Not measured: see the notes."
    whole, parts, ratios = _peak(full) or 0.0, [], []
    for name, items in others.items():
        peaks = [(peak, item) for item in items if (peak := _peak(item)) is not None]
        if peaks:
            peak, item = min(peaks, key=lambda pair: pair[0])
            parts.append(f"{item.candidate.label if name == 'mini-batches' else name} {memory(peak)}")
            ratios.append(whole / peak)
    if not parts:
        return f"Full batch peaks at {memory(whole)}; nothing else was measured."
    said = "Yes" if ratios[0] > ALIKE else "Hardly" if ratios[0] > 1 / ALIKE else "No"
    if abs(whole - whole / ratios[0]) <= FEW_PAGES:
        said = "Not to be told here: the difference is a few of the operating system's pages of 4 KiB"
    return f"{said}. Peak with the rows held in memory: full batch {memory(whole)}, {', '.join(parts)}."


def _peak(item: Finding) -> float | None:
    peaks = item.outcome.peak_bytes
    return float(np.median(peaks)) if len(peaks) and np.isfinite(peaks).all() else None


def _updates(found: Findings) -> str:
    items, full = sized(found), full_batch(found)
    if not items:
        return "Not measured: there is no mini-batch in this search."
    counts = [-(-found.row_count // item.candidate.batch_rows) for item in items]
    said = f"More often, yes: {number(counts[0])} updates an epoch at batches of {number(items[0].candidate.batch_rows)}"
    said += f", {number(counts[-1])} at {number(items[-1].candidate.batch_rows)}" if len(items) > 1 else ""
    said += ", 1 with full batch."
    quick = min((item for item in items if item.outcome.status == "reached"), key=lambda item: item.seconds.value, default=None)
    if quick is None:
        return f"{said} Faster cannot be said: no mini-batch reached the target."
    if full is None or full.outcome.status == "diverged":
        return f"{said} Faster cannot be said: full batch has no time to the target."
    bound = "" if full.outcome.status == "reached" else "more than "
    rows = f"{number(quick.rows.value)} rows against {bound}{number(full.rows.value)}"
    times = f"{seconds(quick.seconds.value)} against {bound}{seconds(full.seconds.value)}"
    pair = paired(full.outcome, quick.outcome, "time")
    faster = "no difference detectable" if not pair.detectable else "yes" if pair.ratio > 1 else "no"
    return f"{said} Faster to the target, {faster}: {quick.candidate.label} takes {times} of full batch, and {rows}."


def _shuffling(found: Findings) -> str:
    pair = found.sorted_order
    if pair is None:
        return "Not measured: no mini-batch of two rows or more reached the target."
    low, high = pair.ratio_ci
    ends = f"over {number(low)}" if math.isinf(high) else f"{number(low)}–{number(high)}"
    if pair.at_least:
        return (
            f"Yes. Sorted by the target, {found.sorted_label} does not reach the target; "
            f"it saw at least {number(pair.ratio)}× the rows that it needs when shuffled ({ends})."
        )
    said = "No difference detectable" if not pair.detectable else "Yes" if pair.ratio > 1 else "No, the other way round"
    return f"{said}. Sorted by the target, {found.sorted_label} needs {number(pair.ratio)}× the rows to the target ({ends})."


def _workers(found: Findings) -> str:
    ways = [way for way in found.deliveries if way.label != "slices"]
    alone = [way for way in ways if way.workers == 0]
    helped = [way for way in ways if way.workers > 0]
    if not alone or not helped:
        return "Not measured: see the notes." if not found.deliveries else "Not measured: workers need more than one way to compare."
    base, best = (max(group, key=lambda way: way.rows_per_second) for group in (alone, helped))
    times = best.rows_per_second / base.rows_per_second
    said = "Yes" if times > ALIKE else "Hardly any difference" if times > 1 / ALIKE else "No, here they slow it down"
    slices = next((way for way in found.deliveries if way.label == "slices"), None)
    beside = "" if slices is None else f" Slices of the rows in memory, without a DataLoader: {number(slices.rows_per_second)}."
    fast = f"{number(best.rows_per_second)} with {best.workers} ({number(times)}×)"
    return f"{said}. Rows a second at best: {number(base.rows_per_second)} without workers, {fast}.{beside}"


def _gpu(device: str) -> str:
    if "cuda" in device.lower():
        return f"This search ran on {device}; how long the same takes on a CPU was not measured, so a speed-up cannot be said."
    return "Not measured: this search ran on a CPU."
