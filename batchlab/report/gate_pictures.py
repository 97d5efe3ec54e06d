"""Pictures of what decided a retraining: both sides' losses, the improvement with its interval, and the slices of the holdout."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from batchlab.report.data_table import cut
from batchlab.report.ink import ACCENT, BLACK, LONGEST, PARTS, QUIET, SMALL, WARNING, dressed, literal, nothing, sheet, shortened
from batchlab.retraining.promotion import Promotion, Slice
from batchlab.snippets.quantities import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": SMALL}
MOST_SLICES, FARTHEST = 30, 2.0
"""A change of more than so many times the champion's loss is drawn there, and told in words."""
NEAR = 1.2
"""The loss of a constant is shown where it is at most so many times the other losses' largest."""


def evidence(promotion: Promotion, unit: str) -> "Figure":
    """Draw both sides' mean holdout losses with those of all seeds, and the improvement with its interval against the minimum effect."""
    compared = promotion.improvement is not None and promotion.champion_loss is not None
    figure = sheet(height=3.6 if compared else 2.0)
    if not compared:
        losses_on(figure.subplots(), promotion, unit)
        return figure
    upper, lower = figure.subplots(2, 1, height_ratios=[1.5, 1])
    losses_on(upper, promotion, unit)
    improvement_on(lower, promotion)
    return figure


def losses_on(panel: "Axes", promotion: Promotion, unit: str) -> None:
    """Draw a row a side: its mean loss, and as upright strokes those of every seed's training."""
    sides = {"champion": promotion.champion_loss, "challenger": promotion.challenger_loss}
    if promotion.champion is None and promotion.champion_loss is None:
        del sides["champion"]
    seeds = [loss for loss in promotion.seed_losses if loss is not None]
    known = [loss for loss in (*sides.values(), *seeds) if loss is not None]
    if not known:
        return nothing(panel, "no loss of either side is finite")
    constant = promotion.constant_loss
    if constant is not None and constant <= NEAR * max(known):
        sides["always the mean"] = constant
    for place, (name, loss) in enumerate(sides.items()):
        _loss(panel, place, loss, {"champion": BLACK, "challenger": PARTS[0]}.get(name, QUIET))
    at = list(sides).index("challenger")
    panel.plot(seeds, [at] * len(seeds), "|", color=PARTS[0], markersize=16, markeredgewidth=1.2, alpha=0.7)
    panel.set_yticks(range(len(sides)), list(sides))
    panel.set_ylim(len(sides) - 0.4, -0.6)
    ends = [loss for loss in (*sides.values(), *seeds) if loss is not None]
    room = (max(ends) - min(ends)) or abs(max(ends)) or 1.0
    panel.set_xlim(min(ends) - 0.06 * room, max(ends) + 0.16 * room)
    dressed(panel, "x").set(xlabel=f"mean loss on the holdout ({literal(unit)})")
    return None


def _loss(panel: "Axes", place: int, loss: float | None, colour: str) -> None:
    if loss is None:
        panel.annotate("× not finite", (0.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL, color=WARNING)
        return
    panel.plot(loss, place, "o", color=colour, markersize=7)
    panel.annotate(f"{loss:.5g}", (loss, place), xytext=(9, 0), color=colour, **BESIDE)


def improvement_on(panel: "Axes", promotion: Promotion) -> None:
    """Draw by how much of the champion's loss the challenger's is lower, with its interval; both lines have to be passed."""
    value, least = 100 * (promotion.improvement or 0.0), 100 * promotion.minimum_effect
    low, high = (None if end is None else 100 * end for end in promotion.interval)
    colour = ACCENT if promotion.wins else WARNING if high is not None and high < 0 else BLACK
    if low is not None and high is not None:
        panel.plot([low, high], [0, 0], color=colour, linewidth=2.2, solid_capstyle="butt")
    panel.plot(value, 0, "o", color=colour, markersize=7)
    sure = "" if low is not None and high is not None else ", how sure is not known"
    panel.annotate(f"{value:+.2f}%{sure}", (value, 0), xytext=(0, 11), ha="center", color=colour, **BESIDE)
    panel.axvline(0, color=BLACK, linewidth=1)
    panel.axvline(least, color=ACCENT, linewidth=1.3, linestyle=(0, (4, 3)))
    words = f"minimum effect {least:g}%"
    panel.annotate(words, (least, 0), xycoords=("data", "axes fraction"), xytext=(4, 6), color=ACCENT, **BESIDE)
    ends = [end for end in (low, high, value, 0.0, least) if end is not None]
    room = max(ends) - min(ends)
    panel.set_xlim(min(ends) - 0.08 * room, max(ends) + 0.2 * room)
    panel.set_ylim(-1, 1)
    panel.axvspan(panel.get_xlim()[0], 0, color=WARNING, alpha=0.07, linewidth=0)
    panel.set_yticks([])
    dressed(panel, "x").set(xlabel="improvement of the mean loss, % of the champion's (left of 0: worse)")


def slices_picture(promotion: Promotion) -> "Figure":
    """Draw by how much the loss changed on every slice; beyond the dashed line and surely so is too much harm."""
    shown = most_harmed(promotion)
    figure = sheet(height=1.1 + 0.27 * max(1, len(shown)))
    panel = figure.subplots()
    if not shown:
        nothing(panel, "there is no slice that both sides have a loss on")
        return figure
    limit = next((guard.limit for guard in promotion.guards if guard.name == "slices"), None)
    for place, item in enumerate(shown):
        _slice(panel, place, item, bool(limit is not None and item.harm > limit and item.p_value < 1 - promotion.confidence))
    panel.axvline(0, color=BLACK, linewidth=1)
    changes = [100 * _change(item) for item in shown]
    if limit is not None:
        panel.axvline(100 * limit, color=WARNING, linewidth=1.3, linestyle=(0, (4, 3)))
        changes.append(100 * limit)
    room = max(*changes, 0.0) - min(*changes, 0.0) or 1.0
    panel.set_xlim(min(*changes, 0.0) - 0.05 * room, max(*changes, 0.0) + 0.45 * room)
    panel.set_yticks(range(len(shown)), [literal(_named(item.name)) for item in shown])
    panel.set_ylim(len(shown) - 0.4, -0.6)
    dressed(panel, "x").set(xlabel="change of the mean loss, % of the champion's (right of 0: worse)")
    return figure


def most_harmed(promotion: Promotion) -> list[Slice]:
    """Return the slices that are drawn: stretches of time in their order, then values of columns, the most harmed first."""
    known = [item for item in promotion.slices if item.champion_loss is not None and item.challenger_loss is not None]
    periods = [item for item in known if item.name.startswith("period ")]
    values = sorted((item for item in known if item not in periods), key=lambda item: -item.harm)
    return (periods[:MOST_SLICES] + values)[: max(MOST_SLICES, len(periods[:MOST_SLICES]))]


def _named(name: str) -> str:
    """Return a slice's name, short enough for an axis: of a column's value both are kept."""
    column, equals, value = name.partition(" = ")
    if not equals or len(name) <= LONGEST:
        return shortened(name)
    return f"{cut(column, LONGEST // 2)} = {cut(value, LONGEST // 2)}"


def _change(item: Slice) -> float:
    return float(np.clip(item.harm, -FARTHEST, FARTHEST)) if not math.isnan(item.harm) else 0.0


def _slice(panel: "Axes", place: int, item: Slice, harmed: bool) -> None:
    change = 100 * _change(item)
    colour = WARNING if harmed else ACCENT if change < 0 else QUIET
    panel.plot([0, change], [place, place], color=colour, linewidth=2.4, solid_capstyle="butt")
    panel.plot(change, place, "o", color=colour, markersize=5.5)
    assert item.champion_loss is not None
    assert item.challenger_loss is not None
    said = f"{number(item.champion_loss)} → {number(item.challenger_loss)}, {item.rows:,} rows{', surely too much worse' if harmed else ''}"
    panel.annotate(said, (max(change, 0.0), place), xytext=(9, 0), color=colour, **BESIDE)
