"""What every picture shows on this data, in one sentence with numbers."""

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from batchlab.analysis.throughput import KNEE_SHARE
from batchlab.report.cost_pictures import held_bytes, is_divided, split_seconds
from batchlab.report.critical_pictures import noise_lines
from batchlab.report.ink import lines
from batchlab.report.ranking import ranked, times_shown
from batchlab.report.wording import critical, in_short, interval, listed
from batchlab.search.findings import Finding, Findings
from batchlab.snippets.quantities import memory, number, seconds

CURVES = (
    "Lines are geometric means over draws (seeds and, on small tables, divisions of the rows), bands hold the middle half of them; losses "
    "are those of the weights' running average. Short lines left the race. The axis of losses is stretched where they are low."
)
SECONDS = (
    " Settings that share a curve differ in the seconds of a step: the first named is the line, the others are thin and dotted. A growing "
    "batch is drawn with the seconds of its average step."
)
TIMES = (
    "Hollow: cannot be told from the recommended one. Diamonds: what people type. Arrows: trained to the end without reaching the target. "
    "Those that left the race have no time."
)
RATES = (
    "Rates of the optimizer that the setting is shown with. Ringed: the chosen rate. Full dots: in the race to its end; hollow: behind; "
    "dash: left for lack of time; red cross: diverged. A rate that left is drawn with its loss then."
)
RACE = (
    "Above, mean curves of all settings that raced: they end where a setting left, in a dot where it was behind, a dash where time was "
    "short, a cross where it diverged. Below, a lane for every strategy, batch size and optimizer, and how far each of its rates ran. "
    "The leader is thick."
)
FRONTIER = "Every dot is a batch size; dotted: the fewest steps and rows. A thick part of the curve is the critical batch size's interval."
NOISE = "A value that is not bounded is a triangle at its lower end; dotted bars are open above. Marks are moved apart a little."
SPLIT = "Delivery is measured alone: where it overlaps compute, its share is too high. A growing batch's is part of compute."
MEMORY = "Bars are medians; a line spans the lowest and the highest measurement, and goes on where it leaves the picture."
"""How the pictures are read."""


def of_times(found: Findings) -> str:
    """Say who is first and who never got there."""
    timed = [item for item in ranked(found) if times_shown(found, item)]
    reached = [item for item in timed if item.outcome.status == "reached"]
    if not reached:
        return "No setting reached the target, so all times are lower bounds."
    slowest = max(reached, key=lambda item: item.seconds.value)
    first = min(reached, key=lambda item: item.seconds.value)
    said = f"From {seconds(first.seconds.value)} ({first.candidate.label}) to {seconds(slowest.seconds.value)} ({slowest.candidate.label})"
    missed = [item.candidate.label for item in timed if item.outcome.status != "reached"]
    arrows = f"; {listed(missed)} did not get there, and the arrow begins at what was spent" if missed else ""
    return f"{said}{arrows}."


def of_steps(found: Findings) -> str:
    """Say who needs the fewest updates and who the most."""
    return _extremes(found, "steps", "updates")


def of_rows(found: Findings) -> str:
    """Say who needs the fewest rows and who the most."""
    return _extremes(found, "rows", "rows")


def of_seconds(found: Findings) -> str:
    """Say who needs the least time and who the most."""
    return _extremes(found, "seconds", "time")


def _extremes(found: Findings, what: str, words: str) -> str:
    items = [item for item in (*found.settings, *found.typed) if item.outcome.status == "reached"]
    if not items:
        return "No setting reached the target."

    def value(item: Finding) -> float:
        return float(getattr(item, what).value)

    least, most = min(items, key=value), max(items, key=value)
    shown = seconds if what == "seconds" else number
    target = "" if found.target_loss is None else f" to validation loss {found.target_loss:.4g}"
    few, many = (f"{item.candidate.label} with {shown(value(item))}" for item in (least, most))
    return f"Least {words}{target}: {few}; most: {many}."


def of_rates(found: Findings) -> str:
    """Say which rates were chosen, and how many of those tried stayed in the race."""
    tuned = [line.first for line in lines(found) if line.first.rates]
    if not tuned:
        return "The learning rates were given, so there is nothing to compare."
    entries = [entry for entry in found.race.entries.values() if entry.trials and not entry.setting.typed]
    chosen = [item.learning_rate for item in tuned]
    best = f"run from {min(chosen):g} to {max(chosen):g}" if len(set(chosen)) > 1 else f"are all {chosen[0]:g}"
    why = Counter(entry.left.why if entry.left is not None else "stayed" for entry in entries)
    return (
        f"The chosen rates {best}; of {len(entries)} settings that raced, {why['stayed']} stayed to the end, {why['behind']} were behind, "
        f"{why['time']} left for lack of time and {why['diverged']} diverged."
    )


def of_race(found: Findings) -> str:
    """Say how many raced, who led at the end, and how many left why."""
    leader, entries = found.race.leader, [entry for entry in found.race.entries.values() if entry.trials]
    if not entries:
        return "Nothing has raced."
    if leader is None:
        return f"{len(entries)} settings raced, and all of them diverged."
    why = Counter(entry.left.why for entry in entries if entry.left is not None)
    parts = [
        f"{count} {what}"
        for count, what in ((why["behind"], "were behind"), (why["time"], "left for lack of time"), (why["diverged"], "diverged"))
        if count
    ]
    left = f"; {', '.join(parts)}" if parts else ""
    waiting = len(found.race.entries) - len(entries)
    begun = f"; {waiting} never began" if waiting else ""
    return (
        f"{len(entries)} settings raced{left}{begun}. At the end {in_short(leader.setting)} led with validation loss "
        f"{found.race.losses[leader.setting] * found.loss_unit:.4g} after {leader.rows:,} rows."
    )


def of_frontier(found: Findings) -> str:
    """Say the critical batch size, or why there is none."""
    fit = found.frontier
    if fit is None:
        return f"{critical(found)}."
    ends = f"over batches of {number(min(fit.batch_rows))} to {number(max(fit.batch_rows))} rows"
    if fit.poor:
        return f"{critical(found)}; the dashed curve is the best fit all the same, {ends}."
    off = f"(fit off by {math.expm1(fit.misfit):.0%})"
    if not fit.within:
        return f"{critical(found)}; {ends} {off}."
    said = f"larger ones save steps, down to {number(fit.smallest_steps)}; smaller ones save rows, down to {number(fit.smallest_rows)}"
    return f"{critical(found)}; {ends}, {said} {off}."


def of_noise(found: Findings) -> str:
    """Say how the noise scale goes along training."""
    drawn = noise_lines(found)
    if not drawn:
        return "No noise scale could be bounded."
    line = next((line for line in drawn if line.chosen), drawn[0])
    first, scale = line.first.noise[0].noise_scale, line.first.noise_scale
    said = f"For {line.first.candidate.label} the noise scale begins at {number(first.value)} rows ({interval(first)})"
    if scale is None:
        return f"{said}."
    near = f"{number(scale.value)} rows ({interval(scale)})" if math.isfinite(scale.value) else f"more than {number(scale.low)} rows"
    near = near if math.isfinite(scale.low) else "beyond measuring, all noise"
    return f"{said} and is {near} at the target's loss."


def of_throughput(found: Findings) -> str:
    """Say where larger batches stop to train more rows a second."""
    items = [line.first for line in lines(found) if line.first.sampled and not line.first.candidate.typed]
    if not items or found.throughput_knee is None:
        return "It takes two batch sizes or more to find a knee."
    speeds = [item.candidate.batch_rows / item.timings.step().value for item in items]
    best = int(np.argmax(speeds))
    most = f"At most {number(speeds[best])} rows a second, with {items[best].candidate.label}"
    return f"{most}; {KNEE_SHARE:.0%} of the most from {number(found.throughput_knee)} rows a batch on (interpolated)."


def of_split(found: Findings, tracking_seconds: Mapping[str, float]) -> str:
    """Say what takes most of the time of the recommended setting."""
    item = found.best if found.best is not None and is_divided(found, found.best) else None
    left_out = "" if tracking_seconds else " Recording was not timed and is left out."
    if item is None:
        return f"No time to the target to divide.{left_out}"
    parts = split_seconds(item, tracking_seconds.get(item.candidate.label, 0.0))
    whole = sum(parts)
    names = ("delivery", "compute", "evaluation", "recording")[: 4 if tracking_seconds else 3]
    said = ", ".join(f"{name} {part / whole:.0%}" for name, part in zip(names, parts, strict=False))
    return f"{item.candidate.label}: {said} of {seconds(whole)} to the target with evaluation.{left_out}"


def of_memory(found: Findings) -> str:
    """Say the smallest and largest peak."""
    items = [item for item in (*found.settings, *found.typed) if np.isfinite(item.outcome.peak_bytes).all()]
    if not items:
        return "Memory was not measured; see the notes."
    middle = {item.candidate.label: float(np.median(item.outcome.peak_bytes)) for item in items}
    least, most = min(middle, key=lambda label: middle[label]), max(middle, key=lambda label: middle[label])
    held = held_bytes(found)
    rows = "" if held is None else f"; the rows themselves are {memory(held)} as float32"
    return f"Peaks run from {memory(middle[least])} ({least}) to {memory(middle[most])} ({most}){rows}."


def of_loaders(found: Findings) -> str:
    """Say which way is the fastest, and what a DataLoader costs beside it."""
    if not found.deliveries:
        return "Loaders were not measured; see the notes."
    ways = sorted(found.deliveries, key=lambda way: way.rows_per_second)
    slow, fast = ways[0], ways[-1]
    names = [
        way.label if way.label == "slices" else f"{way.label} with {way.workers} worker{'' if way.workers == 1 else 's'}"
        for way in (fast, slow)
    ]
    times = fast.rows_per_second / slow.rows_per_second
    return f"Fastest: {names[0]}, {number(fast.rows_per_second)} rows a second; slowest: {names[1]}, {number(times)}× slower."


def draws(found: Findings) -> int:
    """Return how many draws confirmed each setting."""
    return max((len(item.results) for item in found.settings if item.left is None), default=0)
