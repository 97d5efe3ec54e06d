"""All decisions on a model so far, in one picture: both sides' holdout losses, and what was decided."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from batchlab.report.ink import ACCENT, BLACK, OTHERS, PARTS, QUIET, SMALL, WARNING, dressed, literal, logarithmic, nothing, sheet
from batchlab.snippets.quantities import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {
    "first": ("first champion", "D", ACCENT),
    "promoted": ("promoted", "^", ACCENT),
    "kept": ("champion kept", "o", QUIET),
    "rollback": ("rolled back", "v", OTHERS[0]),
    "by_hand": ("promoted by hand", "P", OTHERS[0]),
    "failed": ("failed", "X", WARNING),
    "waiting": ("waiting for rows", "_", QUIET),
    "nothing_new": ("nothing new", "_", QUIET),
}
"""What was decided: in words, and as a mark and its colour."""
CHANGES, JUDGED = ("first", "promoted", "rollback", "by_hand"), ("first", "promoted", "kept")
"""Decisions that change the champion; and those of the gate, which has both sides' losses."""
WIDE_RATIO, MOST_TICKS = 5.0, 14
"""From so large a ratio of the losses on their axis is logarithmic."""


class Decided(Protocol):
    """One decision: when, what, on which version, both sides' mean holdout losses where there were any, and why."""

    @property
    def when(self) -> datetime: ...
    @property
    def decision(self) -> str: ...
    @property
    def version(self) -> int | None: ...
    @property
    def champion_loss(self) -> float | None: ...
    @property
    def challenger_loss(self) -> float | None: ...
    @property
    def reason(self) -> str: ...


class Span(NamedTuple):
    """A stretch of time that a picture shades, and why."""

    first: datetime
    last: datetime
    words: str


def history(decisions: Sequence[Decided], unit: str, spans: Sequence[Span] = (), floor: Sequence[float | None] = ()) -> "Figure":
    """Draw the decisions, oldest first and evenly apart: above, both sides' mean holdout losses; below, what was decided.

    `spans` are shaded; `floor` `[decisions]` is the lowest loss that any model could have had on the same rows, where that is known.
    """
    rows = [kind for kind in KINDS if any(item.decision == kind for item in decisions)]
    rows += sorted({item.decision for item in decisions} - {*KINDS})
    figure = sheet(height=3.6 + 0.24 * max(1, len(rows)))
    if not decisions:
        nothing(figure.subplots(), "nothing has been decided yet")
        return figure
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 0.35 + 0.24 * len(rows)])
    for panel in (upper, lower):
        _shaded(panel, decisions, spans, told=panel is upper)
        for place, item in enumerate(decisions):
            if item.decision in CHANGES:
                panel.axvline(place, color=QUIET, linewidth=0.7, alpha=0.45)
    _losses(upper, decisions, unit, floor)
    _strip(lower, decisions, rows)
    if upper.get_legend_handles_labels()[0]:
        figure.legend(*upper.get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False, fontsize=SMALL)
    return figure


def _losses(panel: "Axes", decisions: Sequence[Decided], unit: str, floor: Sequence[float | None]) -> None:
    """Draw the losses; what is not finite is marked at the upper edge."""
    champion = _finite([item.champion_loss for item in decisions])
    challenger = _finite([item.challenger_loss for item in decisions])
    known = np.concatenate([champion, challenger, _finite(floor)])
    if not np.isfinite(known).any():
        panel.set_yticks([])
        panel.annotate("no holdout loss is known", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=SMALL, color=QUIET)
        return
    along = np.arange(len(decisions))
    _line(panel, along, champion, BLACK, "o", "champion's loss")
    _line(panel, along, challenger, PARTS[0], "s", "challenger's loss")
    if np.isfinite(_finite(floor)).any():
        _line(panel, along, _finite(floor), ACCENT, "", "lowest loss possible")
    _limits(panel, known[np.isfinite(known)])
    lost = [place for place, item in enumerate(decisions) if item.decision in JUDGED and not np.isfinite(challenger[place])]
    if lost:
        at = panel.get_xaxis_transform()
        panel.plot(lost, [0.96] * len(lost), "x", color=WARNING, transform=at, label="challenger's loss not finite")
    dressed(panel, "y").set(ylabel=f"mean loss on that holdout ({literal(unit)})")


def _finite(losses: Sequence[float | None]) -> NDArray[np.float64]:
    found = np.array([math.nan if loss is None else loss for loss in losses], np.float64)
    return np.where(np.isfinite(found), found, math.nan)


def _line(panel: "Axes", along: NDArray[np.int64], losses: NDArray[np.float64], colour: str, mark: str, words: str) -> None:
    """Draw a line over the decisions that have a loss; those without, where nobody was judged, are passed over."""
    known = np.isfinite(losses)
    dash = "-" if mark else (0, (4, 2))
    panel.plot(along[known], losses[known], linestyle=dash, marker=mark or None, markersize=3.4, linewidth=1.3, color=colour, label=words)


def _limits(panel: "Axes", known: NDArray[np.float64]) -> None:
    low, high = float(known.min()), float(known.max())
    if low > 0 and high / low > WIDE_RATIO:
        panel.set_ylim(low / (high / low) ** 0.06, high * (high / low) ** 0.2)
        logarithmic(panel, "y", number)
    else:
        room = (high - low) or abs(high) or 1.0
        panel.set_ylim(low - 0.08 * room, high + 0.25 * room)


def _strip(panel: "Axes", decisions: Sequence[Decided], rows: Sequence[str]) -> None:
    """Draw a row a kind of decision, with the number of the version that became champion."""
    for place, item in enumerate(decisions):
        _, mark, colour = KINDS.get(item.decision, ("", "s", QUIET))
        at = rows.index(item.decision)
        hollow = "none" if item.decision == "kept" else colour
        panel.plot(place, at, mark, color=colour, markerfacecolor=hollow, markersize=6)
        if item.decision in CHANGES and item.version is not None and len(decisions) <= 80:
            above: dict[str, Any] = {"xytext": (0, -7), "textcoords": "offset points", "ha": "center", "va": "top"}
            panel.annotate(f"v{item.version}", (place, at), fontsize=SMALL - 2, color=colour, **above)
    panel.set_yticks(range(len(rows)), [literal(KINDS.get(kind, (kind, "", ""))[0]) for kind in rows])
    panel.set_ylim(len(rows) - 0.3, -0.7)
    every = max(1, math.ceil(len(decisions) / MOST_TICKS))
    places = range(0, len(decisions), every)
    panel.set_xticks(places, [f"{place + 1}\n{decisions[place].when:%d %b}" for place in places])
    panel.set_xlim(-0.7, len(decisions) - 0.3)
    dressed(panel, "x").set(xlabel="decision, by its number in the table, and its day")


def _shaded(panel: "Axes", decisions: Sequence[Decided], spans: Sequence[Span], told: bool) -> None:
    """Shade the decisions that fall into each span, and say why in one of the panels."""
    for row, span in enumerate(spans):
        within = [place for place, item in enumerate(decisions) if span.first <= item.when <= span.last]
        if within:
            panel.axvspan(within[0] - 0.5, within[-1] + 0.5, color=PARTS[1], alpha=0.13, linewidth=0)
        if within and told:
            at: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
            panel.annotate(literal(span.words), (within[0] - 0.5, 1.0), xytext=(3, -3 - 11 * (row % 3)), fontsize=SMALL, color=QUIET, **at)
