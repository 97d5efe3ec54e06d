"""The pictures that a verdict rests on: time to target, learning rates, and four in one. Each returns a matplotlib figure."""

import math
from typing import TYPE_CHECKING, Any

from batchlab.report.critical_pictures import frontier_on
from batchlab.report.curve_pictures import losses_on, stretched
from batchlab.report.ink import (
    ACCENT,
    BLACK,
    OTHERS,
    PAPER,
    QUIET,
    SMALL,
    WARNING,
    WIDTH,
    Line,
    dressed,
    lines,
    literal,
    logarithmic,
    nothing,
    sheet,
)
from batchlab.report.ranking import ranked, times_shown
from batchlab.report.wording import status
from batchlab.search.findings import Finding, Findings, RateSummary
from batchlab.search.space import optimizer_words
from batchlab.snippets.quantities import seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOM = 0.32
"""The words right of the intervals get this share of their room."""


def time_to_target(found: Findings, unit: str) -> "Figure":
    """Draw seconds to the target of every setting with their 95% interval, best first; one that never got there is an arrow."""
    figure = sheet(height=1.1 + 0.27 * len(ranked(found)))
    forest_on(figure.subplots(), found)
    return figure


def forest_on(panel: "Axes", found: Findings, most: int | None = None) -> None:
    """Draw the best settings' seconds to the target onto a panel."""
    items = ranked(found)[:most]
    timed = [item for item in items if times_shown(found, item)]
    if not timed:
        return nothing(panel, "no setting has a time to the target")
    for place, item in enumerate(items):
        _time(panel, found, item, place)
    panel.set_yticks(range(len(items)), [literal(item.candidate.label) for item in items])
    for text, item in zip(panel.get_yticklabels(), items, strict=True):
        text.set_fontweight("bold" if item is found.best else "normal")
    panel.set_ylim(len(items) - 0.4, -0.6)
    low = 0.8 * min(item.seconds.low for item in timed)
    high = max(item.seconds.high if item.outcome.status == "reached" else 2 * item.seconds.value for item in timed)
    panel.set_xlim(low, high * max(1.5, (high / low) ** ROOM))
    logarithmic(panel, "x", seconds)
    dressed(panel, "x").set(xlabel="seconds to the target, with 95% interval")
    return None


def _time(panel: "Axes", found: Findings, item: Finding, place: int) -> None:
    if not times_shown(found, item):
        why = status(item) if item.outcome.status in ("diverged", "behind") else "no target"
        panel.annotate(f"× {why}", (0.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL, color=WARNING)
        return
    at, reached = item.seconds, item.outcome.status == "reached"
    colour = ACCENT if item is found.best else OTHERS[1] if item.candidate.typed else BLACK
    tied = found.choice is not None and item.candidate.label in found.choice.ties
    face = PAPER if tied else colour
    if reached:
        panel.plot([at.low, at.high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
    else:
        panel.annotate("", (at.value * 2, place), (at.value, place), arrowprops={"arrowstyle": "->", "color": colour})
    shape = "D" if item.candidate.typed else "o"
    panel.plot(at.value, place, shape, markersize=5.5, markerfacecolor=face, markeredgecolor=colour, markeredgewidth=1.5)
    end = max(at.high, at.value) if reached else 2 * at.value
    words = seconds(at.value) if reached else f"> {seconds(at.value)}"
    panel.annotate(words, (end, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=SMALL, color=colour)


def rate_sensitivity(found: Findings, unit: str) -> "Figure":
    """Draw the loss that every learning rate came to in the race, and which rates stayed in it."""
    tuned = [line for line in lines(found) if own_rates(line.first)]
    figure = sheet(height=3.9 + 0.23 * len(tuned))
    if not tuned:
        nothing(figure.subplots(), "no learning rate was searched for: all were given")
        return figure
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 0.4 + 0.23 * len(tuned)])
    rates_on(upper, found, unit, tuned)
    for place, line in enumerate(tuned):
        _rates_row(lower, line, place)
    lower.set_yticks(range(len(tuned)), [literal(line.label) for line in tuned])
    for text, line in zip(lower.get_yticklabels(), tuned, strict=True):
        text.set(color=line.colour, fontweight="bold" if line.chosen else "normal")
    lower.set_ylim(len(tuned) - 0.4, -0.6)
    logarithmic(lower, "x", lambda value: f"{value:g}")
    dressed(lower, "x").set(xlabel="learning rate")
    lower.tick_params(axis="y", labelsize=SMALL - 0.5)
    upper.set_xlabel("")
    return figure


def own_rates(item: Finding) -> list[RateSummary]:
    """Return what the learning rates of the setting's own optimizer came to."""
    own = optimizer_words(item.candidate.optimizer)
    return [rate for rate in item.rates if rate.optimizer == own]


def rates_on(panel: "Axes", found: Findings, unit: str, tuned: list[Line]) -> None:
    """Draw what every learning rate came to, the chosen one ringed; a hollow dot stands for one that left the race before."""
    losses = [rate.loss * found.loss_unit for line in tuned for rate in own_rates(line.first) if math.isfinite(rate.loss)]
    if not losses:
        return nothing(panel, "no learning rate got anywhere")
    for line in tuned:
        points = [(rate, rate.loss * found.loss_unit) for rate in own_rates(line.first) if math.isfinite(rate.loss)]
        panel.plot([rate.learning_rate for rate, _ in points], [loss for _, loss in points], color=line.colour, linewidth=line.width)
        for rate, loss in points:
            _rate_dot(panel, line, rate, loss)
    stretched(panel, min(losses), min(max(losses), found.first_loss) if math.isfinite(found.first_loss) else max(losses))
    logarithmic(panel, "x", lambda value: f"{value:g}")
    dressed(panel).set(ylabel=f"validation loss in the race ({literal(unit)})", xlabel="learning rate")
    return None


def _rate_dot(panel: "Axes", line: Line, rate: RateSummary, value: float) -> None:
    face = line.colour if rate.left is None else PAPER
    panel.plot(rate.learning_rate, value, "o", markersize=3.6, markerfacecolor=face, markeredgecolor=line.colour)
    if math.isclose(rate.learning_rate, line.first.learning_rate):
        panel.plot(rate.learning_rate, value, "o", markersize=10, markerfacecolor="none", markeredgecolor=line.colour, markeredgewidth=1.6)


def _rates_row(panel: "Axes", line: Line, place: int) -> None:
    """Mark every rate of one group: full, in the race to its end; hollow, behind; dash, left for lack of time; cross, diverged."""
    for rate in own_rates(line.first):
        why = None if rate.left is None else rate.left.why
        if why == "diverged":
            style: dict[str, Any] = {"marker": "x", "color": WARNING, "markersize": 4.5}
        elif why == "time":
            style = {"marker": "_", "color": QUIET, "markersize": 6}
        else:
            style = {"marker": "o", "color": line.colour, "markerfacecolor": PAPER if why else line.colour, "markersize": 4}
        panel.plot(rate.learning_rate, place, linestyle="none", **style)
        if math.isclose(rate.learning_rate, line.first.learning_rate):
            panel.plot(
                rate.learning_rate, place, "o", markersize=9, markerfacecolor="none", markeredgecolor=line.colour, markeredgewidth=1.4
            )


def overview(found: Findings, unit: str) -> "Figure":
    """Draw what tells most in one figure: time to target, loss against seconds, learning rates and the frontier."""
    figure = sheet(WIDTH * 1.35, 9.2)
    (forest, loss), (rates, frontier) = figure.subplots(2, 2)
    forest_on(forest, found, most=14)
    losses_on(loss, found, unit, "seconds", "seconds of training (steps × seconds a step)")
    tuned = [line for line in lines(found) if own_rates(line.first)]
    if tuned:
        rates_on(rates, found, unit, tuned)
    else:
        nothing(rates, "no learning rate was searched for: all were given")
    frontier_on(frontier, found)
    if loss.get_legend_handles_labels()[0]:
        figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=SMALL)
    return figure
