"""The race: who ran how far, at which loss, and who left when and why."""

import math
from typing import TYPE_CHECKING, Any

from batchlab.report.curve_pictures import stretched
from batchlab.report.ink import (
    BLACK,
    OTHERS,
    PAPER,
    QUIET,
    RAMP,
    SMALL,
    WARNING,
    dressed,
    literal,
    logarithmic,
    nothing,
    sheet,
)
from batchlab.report.wording import lane
from batchlab.search.findings import Findings
from batchlab.search.space import Branch, optimizer_words
from batchlab.search.standings import Entry
from batchlab.strategies.mini_batch import MiniBatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDS: dict[str, dict[str, Any]] = {
    "stayed": {"marker": "o", "markersize": 5.5},
    "behind": {"marker": "o", "markersize": 3.5, "markerfacecolor": PAPER},
    "time": {"marker": "_", "markersize": 7},
    "diverged": {"marker": "x", "markersize": 4.5},
}
"""How the end of a setting's run is marked, by why it ended there."""


def race(found: Findings, unit: str) -> "Figure":
    """Draw all settings' mean curves in the race above, and below a lane for every branch with the ends of its settings."""
    entries = [entry for entry in found.race.entries.values() if entry.trials]
    lanes = _lanes(entries)
    figure = sheet(height=3.8 + 0.19 * len(lanes))
    if not entries:
        nothing(figure.subplots(), "nothing has raced")
        return figure
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 0.5 + 0.19 * len(lanes)])
    colours = _colours(lanes)
    leader = found.race.leader
    _curves(upper, found, unit, entries, colours)
    for place, (branch, members) in enumerate(lanes.items()):
        for entry in members:
            _end(lower, entry, place, colours[branch], entry is leader)
        rows = [max(entry.rows, 1) for entry in members]
        lower.plot([min(rows), max(rows)], [place, place], color=colours[branch], linewidth=0.7, alpha=0.5)
    lower.set_yticks(range(len(lanes)), [literal(lane(branch)) for branch in lanes])
    lower.set_ylim(len(lanes) - 0.4, -0.6)
    lower.tick_params(axis="y", labelsize=SMALL - 1)
    logarithmic(lower, "x")
    dressed(lower, "x").set(xlabel="rows seen")
    lower.tick_params(axis="y", labelsize=SMALL - 1)
    return figure


def _lanes(entries: list[Entry]) -> dict[Branch, list[Entry]]:
    """Return the entries by branch: mini-batches from the smallest, then the others."""

    def order(entry: Entry) -> tuple[bool, int, str, str]:
        updates, optimizer = entry.setting.branch
        size = updates.batch_rows if isinstance(updates, MiniBatch) else 0
        return not isinstance(updates, MiniBatch), size, updates.kind, optimizer_words(optimizer)

    found: dict[Branch, list[Entry]] = {}
    for entry in sorted(entries, key=order):
        found.setdefault(entry.setting.branch, []).append(entry)
    return found


def _colours(lanes: dict[Branch, list[Entry]]) -> dict[Branch, str]:
    """Return a colour for every branch: that of its batch size, ever lighter, or of its strategy."""
    sizes = sorted({updates.batch_rows for updates, _ in lanes if isinstance(updates, MiniBatch)})
    others = sorted({updates.kind for updates, _ in lanes if not isinstance(updates, MiniBatch)})
    ramp = {size: RAMP[round(place * (len(RAMP) - 1) / max(1, len(sizes) - 1))] for place, size in enumerate(sizes)}
    return {
        branch: ramp[branch[0].batch_rows] if isinstance(branch[0], MiniBatch) else OTHERS[others.index(branch[0].kind) % len(OTHERS)]
        for branch in lanes
    }


def _curves(panel: "Axes", found: Findings, unit: str, entries: list[Entry], colours: dict[Branch, str]) -> None:
    lowest, first, leader = math.inf, found.first_loss, found.race.leader
    for entry in sorted(entries, key=lambda entry: entry is leader):
        measured = entry.measured
        if measured is None:
            continue
        kept = measured.rows > 0
        rows, losses = measured.rows[kept], measured.mean[kept] * found.loss_unit
        if not len(rows):
            continue
        lowest = min(lowest, float(losses.min()))
        colour, leads = colours[entry.setting.branch], entry is leader
        panel.plot(rows, losses, color=colour, linewidth=2.6 if leads else 0.8, alpha=1.0 if leads else 0.6)
        why = entry.left.why if entry.left is not None else "stayed"
        panel.plot(rows[-1], losses[-1], linestyle="none", color=colour, **ENDS[why])
    if not math.isfinite(lowest):
        return nothing(panel, "every setting diverged")
    stretched(panel, lowest, first if math.isfinite(first) else lowest * 2)
    logarithmic(panel, "x")
    dressed(panel).set(ylabel=f"validation loss ({literal(unit)})", xlabel="")
    return None


def _end(panel: "Axes", entry: Entry, place: int, colour: str, leads: bool) -> None:
    why = entry.left.why if entry.left is not None else "stayed"
    shown: dict[str, Any] = {"color": WARNING if why == "diverged" else QUIET if why == "time" else colour}
    panel.plot(max(entry.rows, 1), place, linestyle="none", **ENDS[why], **shown)
    if leads:
        panel.plot(max(entry.rows, 1), place, "o", markersize=10, markerfacecolor="none", markeredgecolor=BLACK, markeredgewidth=1.4)
