"""Two ways to a critical batch size: the frontier of steps against rows, and the gradient noise scale along training."""

import math
from typing import TYPE_CHECKING

import numpy as np

from batchlab.analysis.frontier import Frontier
from batchlab.report.ink import (
    ACCENT,
    BLACK,
    OTHERS,
    QUIET,
    SMALL,
    USUAL,
    WARNING,
    Line,
    dressed,
    is_sized,
    lines,
    literal,
    logarithmic,
    nothing,
    sheet,
)
from batchlab.search.findings import Findings
from batchlab.snippets.quantities import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOISE_LINES = 4
"""So many settings' noise scales are drawn: the recommended one, and others from the smallest batch to the largest."""


def steps_against_rows(found: Findings, unit: str) -> "Figure":
    """Draw the frontier: steps against rows to the target over batch sizes, its fit, and the critical batch size."""
    figure = sheet(height=4.6)
    frontier_on(figure.subplots(), found)
    return figure


def frontier_on(panel: "Axes", found: Findings) -> None:
    """Draw the frontier onto a panel; where there is none, say why."""
    fit = found.frontier
    if fit is None:
        return nothing(panel, "no frontier: fewer than three batch sizes\nreached the target in more than one step")
    sizes = np.geomspace(min(fit.batch_rows) / 1.6, max(fit.batch_rows) * 1.6, 120)
    panel.plot(fit.steps_at(sizes), fit.steps_at(sizes) * sizes, color=QUIET, linewidth=1.4, linestyle=(0, (4, 3)) if fit.poor else "-")
    for size, steps in zip(fit.batch_rows, fit.steps, strict=True):
        chosen = found.best is not None and found.best.candidate.batch_rows == size
        colour = ACCENT if chosen else BLACK
        panel.plot(steps, steps * size, "o", color=colour, markersize=7 if chosen else 5)
        panel.annotate(
            number(size), (steps, steps * size), xytext=(6, 5), textcoords="offset points", fontsize=SMALL, color=colour, fontweight="bold"
        )
    _critical(panel, fit)
    logarithmic(panel, "x")
    logarithmic(panel, "y")
    dressed(panel).set(xlabel="steps to the target", ylabel="rows to the target")
    return None


def _critical(panel: "Axes", fit: Frontier) -> None:
    """Mark the critical batch size and, along the curve, its interval; where the fit is poor or that is no size tried, say so instead."""
    size = fit.critical_batch
    if not fit.poor and not fit.within:
        least, most = min(fit.batch_rows), max(fit.batch_rows)
        where = f"below {number(least)}" if size.value < least else f"above {number(most)}"
        panel.set_title(f"critical batch {where} rows, beyond the sizes tried", fontsize=USUAL, color=OTHERS[0], loc="right")
        return
    panel.axvline(fit.smallest_steps, color=QUIET, linewidth=0.8, linestyle=":")
    panel.axhline(fit.smallest_rows, color=QUIET, linewidth=0.8, linestyle=":")
    if fit.poor:
        panel.set_title("poor fit: the points do not follow a frontier", fontsize=USUAL, color=WARNING, loc="right")
        return
    span = np.geomspace(max(size.low, 1e-9), min(size.high, 1e15), 40)
    span = span[(span >= min(fit.batch_rows) / 1.6) & (span <= max(fit.batch_rows) * 1.6)]
    panel.plot(fit.steps_at(span), fit.steps_at(span) * span, color=OTHERS[0], linewidth=5, alpha=0.4, solid_capstyle="round")
    steps = float(fit.steps_at(size.value))
    panel.plot(steps, steps * size.value, "s", color=OTHERS[0], markersize=7)
    words = f"critical batch {number(size.value)}\n({number(size.low)}–{number(size.high)})"
    panel.annotate(
        words,
        (steps, steps * size.value),
        xytext=(16, 14),
        textcoords="offset points",
        fontsize=SMALL,
        color=OTHERS[0],
    )


def noise_along_training(found: Findings, unit: str) -> "Figure":
    """Draw the gradient noise scale against rows seen, with its interval; an end that the data do not bound is drawn open."""
    figure = sheet(height=4.6)
    panel = figure.subplots()
    noise_on(panel, found)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=SMALL)
    return figure


def noise_on(panel: "Axes", found: Findings) -> None:
    """Draw the noise scale of a few settings, the critical batch size and the recommended one."""
    drawn = noise_lines(found)
    if not drawn:
        return nothing(panel, "the noise scale could not be measured anywhere")
    ends = [end for line in drawn for point in line.first.noise for end in (point.noise_scale.low, point.noise_scale.value)]
    top = 6 * max(end for end in ends if math.isfinite(end))
    least = min(point.rows_seen for line in drawn for point in line.first.noise if point.rows_seen > 0)
    for place, line in enumerate(drawn):
        _trace(panel, line, top, least / 3, 1.06**place)
    _sizes(panel, found)
    sizes = [found.best.candidate.batch_rows] if found.best is not None else []
    panel.set_ylim(0.5 * min([*sizes, *(end for end in ends if end > 0)]), top)
    panel.set_xlim(least / 4, 1.5 * max(point.rows_seen for line in drawn for point in line.first.noise))
    logarithmic(panel, "y")
    logarithmic(panel, "x", lambda value: "start" if value < least / 2 else number(value))
    dressed(panel).set(xlabel="rows seen (leftmost: before the first step)", ylabel="noise scale (rows)")
    return None


def noise_lines(found: Findings, most: int = NOISE_LINES) -> list[Line]:
    """Return the recommended setting's line and others from the smallest batch to the largest, where any noise scale is bounded below."""
    able = [line for line in lines(found) if any(math.isfinite(point.noise_scale.low) for point in line.first.noise)]
    able = [line for line in able if any(point.rows_seen > 0 for point in line.first.noise)]
    sized = [line for line in able if is_sized(line.first) or line.chosen] or able
    places = {round(place) for place in np.linspace(0, len(sized) - 1, most)} if sized else set()
    kept = [line for place, line in enumerate(sized) if place in places]
    missing = [line for line in sized if line.chosen and line not in kept]
    return kept[: most - len(missing)] + missing if missing else kept


def _trace(panel: "Axes", line: Line, top: float, start: float, shift: float) -> None:
    """Draw one setting's noise scales; where the value is unbounded a triangle marks the lower end, and the bar is open above."""
    at, values = [], []
    for point in line.first.noise:
        scale, rows = point.noise_scale, shift * (point.rows_seen or start)
        if not math.isfinite(scale.low):
            continue
        open_above = math.isinf(scale.high)
        style = (0, (1, 2)) if open_above else "-"
        panel.plot(
            [rows, rows], [scale.low, top if open_above else scale.high], color=line.colour, linewidth=0.9, alpha=0.7, linestyle=style
        )
        if math.isfinite(scale.value):
            at.append(rows)
            values.append(scale.value)
        else:
            panel.plot(rows, scale.low, "^", color=line.colour, markersize=4.5)
    panel.plot(
        at, values, marker="o", markersize=3.5, color=line.colour, linewidth=line.width, linestyle=line.dash, label=literal(line.label)
    )


def _sizes(panel: "Axes", found: Findings) -> None:
    """Draw the critical batch size and the recommended one."""
    fit = found.frontier
    if fit is not None and not fit.poor and fit.within:
        size = fit.critical_batch.value
        panel.axhline(size, color=OTHERS[0], linewidth=1.3, label=f"critical batch size {number(size)}")
    if found.best is not None:
        size = found.best.candidate.batch_rows
        panel.axhline(size, color=QUIET, linewidth=1.3, linestyle=(0, (4, 3)), label=f"recommended batch size {number(size)}")
