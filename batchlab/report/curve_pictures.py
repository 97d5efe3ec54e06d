"""Loss curves of a search: against steps, rows and seconds, every group of settings once, with the spread over seeds and the target."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchlab.report.ink import PAPER, QUIET, SMALL, Line, dressed, lines, literal, logarithmic, nothing, sheet
from batchlab.search.findings import Finding, Findings
from batchlab.search.standings import measured
from batchlab.snippets.quantities import number, seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARE_OF_FIRST, BELOW, BAND = 1.15, 0.02, (25, 75)
"""What lies so far above the first loss is cut off; the axis of losses is logarithmic in the distance to a loss so far below the lowest,
as a share of the way there; a band reaches from one percentile of the draws to the other."""
Numbers = NDArray[np.float64]


def loss_against_steps(found: Findings, unit: str) -> "Figure":
    """Draw the validation loss against updates of the weights."""
    return _loss(found, unit, "step", "updates (steps)")


def loss_against_rows(found: Findings, unit: str) -> "Figure":
    """Draw the validation loss against training rows seen, repeats counted."""
    return _loss(found, unit, "rows_seen", "rows seen")


def loss_against_seconds(found: Findings, unit: str) -> "Figure":
    """Draw the validation loss against seconds of training: steps × the seconds of a step of that setting trained alone."""
    return _loss(found, unit, "seconds", "seconds of training (steps × seconds a step)")


def spread(item: Finding, unit: float) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return rows, and geometric mean and band of the validation loss over draws there: at the points of the draw that has the fewest."""
    found = measured([result.curve for result in item.results if result.diverged_at is None] or [item.shown.curve])
    values = np.maximum(found.losses * unit, 1e-300)
    low, high = np.percentile(values, BAND, axis=0)
    return found.rows, np.exp(np.log(values).mean(0)), low, high


def _loss(found: Findings, unit: str, axis: str, words: str) -> "Figure":
    figure = sheet(height=4.7)
    panel = figure.subplots()
    losses_on(panel, found, unit, axis, words)
    if panel.get_legend_handles_labels()[0]:
        legend = panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=SMALL, handlelength=2.8)
        for text, line in zip(legend.get_texts(), [line for line in lines(found) if _drawable(line)], strict=False):
            text.set_fontweight("bold" if line.chosen else "normal")
    return figure


def losses_on(panel: "Axes", found: Findings, unit: str, axis: str, words: str) -> None:
    """Draw the curves onto a panel; against seconds, settings that share a curve differ: all but the first are thin and dotted."""
    drawn = [line for line in lines(found) if _drawable(line)]
    if not drawn:
        return nothing(panel, "every setting diverged before its second evaluation")
    for line in drawn:
        shown = line.members if axis == "seconds" else line.members[:1]
        for place, item in enumerate(shown):
            _curve(panel, line, item, found.loss_unit, axis, second=place > 0)
    _limits(panel, found, drawn)
    _levels(panel, found)
    logarithmic(panel, "x", seconds if axis == "seconds" else number)
    dressed(panel).set(xlabel=words, ylabel=f"validation loss ({literal(unit)})")
    return None


def _drawable(line: Line) -> bool:
    return len(line.first.shown.curve.step) > 2


def _curve(panel: "Axes", line: Line, item: Finding, unit: float, axis: str, second: bool) -> None:
    rows, middle, low, high = spread(item, unit)
    along = _along(item, axis, rows)
    kept = along > 0
    style: dict[str, Any] = {"color": line.colour, "linewidth": 0.9 if second else line.width}
    panel.fill_between(along[kept], low[kept], high[kept], color=line.colour, alpha=0.05 if second else 0.13, linewidth=0)
    label = None if second else literal(line.label)
    panel.plot(along[kept], middle[kept], linestyle=(0, (1, 1.6)) if second else line.dash, label=label, **style)


def _along(item: Finding, axis: str, rows: Numbers) -> Numbers:
    """Return where these rows lie on the axis; the training that is shown tells after how many steps they were seen."""
    if axis == "rows_seen":
        return rows
    curve = item.shown.curve
    steps = np.interp(np.log1p(rows), np.log1p(curve.rows_seen), curve.step)
    return np.asarray(steps * item.timings.step().value if axis == "seconds" else steps)


def _levels(panel: "Axes", found: Findings) -> None:
    """Draw the target, and the loss before the first step, which a logarithmic axis has no place for."""
    for value, words, dash in ((found.target_loss, "target", (0, (4, 3))), (found.first_loss, "before the first step", (0, (1, 3)))):
        if value is not None and math.isfinite(value):
            panel.axhline(value, color=QUIET, linewidth=1, linestyle=dash)
            at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
            at["bbox"] = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
            panel.annotate(f"{words}: {value:.4g}", (1.0, value), xytext=(-3, 3), color=QUIET, fontsize=SMALL, **at)


def _limits(panel: "Axes", found: Findings, drawn: list[Line]) -> None:
    """Show losses from a little below the lowest to a little above the first one; noise far above it is cut off."""
    middles = [spread(line.first, found.loss_unit)[1] for line in drawn]
    lowest = min(float(np.nanmin(values)) for values in middles)
    first = found.first_loss if math.isfinite(found.first_loss) else max(float(values[0]) for values in middles)
    stretched(panel, lowest, first)


def stretched(panel: "Axes", lowest: float, first: float) -> None:
    """Stretch the axis near the lowest loss, where settings differ: logarithmic in the distance to a loss a little below it.

    The first loss may lie below: training may do harm.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    first = max(first, 1.01 * lowest, lowest + 1e-9)
    floor, tiny = lowest - BELOW * (first - lowest), 1e-6 * (first - lowest)
    panel.set_yscale(
        "function",
        functions=(lambda loss: np.log(np.maximum(np.asarray(loss) - floor, tiny)), lambda value: floor + np.exp(np.asarray(value))),
    )
    ticks = _rounded(floor + np.geomspace(lowest - floor, 1.05 * (first - floor), 8))
    panel.yaxis.set_major_locator(FixedLocator(ticks))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"))
    panel.set_ylim(floor + 0.6 * (lowest - floor), floor + SHARE_OF_FIRST * (first - floor))


def _rounded(values: Numbers) -> list[float]:
    """Return the values with as few digits as keep them apart."""
    for digits in range(2, 6):
        short = sorted({float(f"{value:.{digits}g}") for value in values})
        if len(short) >= len(values) - 1:
            return short
    return [float(value) for value in values]
