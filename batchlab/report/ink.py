"""How the verdict's pictures look: a colour and a line for every setting that trains alike, axes that read as words."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchlab.search.findings import Finding, Findings
from batchlab.snippets.quantities import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, PAPER, QUIET, ACCENT, WARNING = "#000000", "#ffffff", "#6b6f76", "#0a7a4b", "#b3261e"
RAMP = ("#3f0a5c", "#4b2fb0", "#2f5fd0", "#1f86c9", "#0f9fae", "#12a582", "#3fae49", "#7fb800", "#b3a800")
"""Constant batch sizes, from the smallest: ever lighter, so that also colour-blind people read them as an order."""
OTHERS = ("#d55e00", "#c2478f", "#96700a", "#5b7083")
PARTS = ("#2f6db3", "#e08a1e", "#8d6bb8", "#7d8790")
"""Parts of a stacked bar: delivery, compute, evaluation, recording."""
ON_DARK = {
    BLACK: "currentColor",
    PAPER: "var(--paper)",
    QUIET: "var(--quiet)",
    ACCENT: "var(--accent)",
    WARNING: "var(--warning)",
    **{colour: f"var(--ramp-{place})" for place, colour in enumerate(RAMP)},
    **{colour: f"var(--other-{place})" for place, colour in enumerate(OTHERS)},
    **{colour: f"var(--part-{place})" for place, colour in enumerate(PARTS)},
}
"""What a page writes instead of a drawn colour, so that it follows the reader's colour scheme."""
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (6, 1.5, 1.4, 1.5)))
SMALL, USUAL, LONGEST = 8.0, 9.0, 30
WIDTH = 10.0
"""Inches; a page shows it at full width."""


@dataclass(frozen=True)
class Line:
    """Settings whose weights move alike, so that one curve shows them all; `label` names them all."""

    members: tuple[Finding, ...]
    label: str
    colour: str
    dash: "str | tuple[float, tuple[float, ...]]"
    chosen: bool

    @property
    def first(self) -> Finding:
        return self.members[0]

    @property
    def width(self) -> float:
        return 2.6 if self.chosen else 1.3


def lines(found: Findings) -> list[Line]:
    """Return one line for every group of settings that share their trainings: constant batch sizes ascending, then the others."""
    groups: dict[object, list[Finding]] = {}
    for item in (*found.settings, *found.typed):
        groups.setdefault(item.candidate.setting, []).append(item)
    sized = sorted((group for group in groups.values() if is_sized(group[0])), key=lambda group: group[0].candidate.batch_rows)
    rest = [group for group in groups.values() if not is_sized(group[0])]
    drawn = [_line(found, group, _of_ramp(place, len(sized)), place % 3) for place, group in enumerate(sized)]
    return drawn + [_line(found, group, OTHERS[place % len(OTHERS)], 1 + place % 3) for place, group in enumerate(rest)]


def is_sized(item: Finding) -> bool:
    """Whether the setting is one of the constant batch sizes that a colour ramp puts in order."""
    return item.sampled and not item.candidate.typed


def _line(found: Findings, group: Sequence[Finding], colour: str, dash: int) -> Line:
    chosen = any(item is found.best for item in group)
    return Line(tuple(group), " · ".join(shortened(item.candidate.label) for item in group), colour, DASHES[0 if chosen else dash], chosen)


def _of_ramp(place: int, count: int) -> str:
    return RAMP[round(place * (len(RAMP) - 1) / max(1, count - 1))]


def sheet(width: float = WIDTH, height: float = 4.4) -> "Figure":
    """Return an empty figure whose parts make room for one another."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def dressed(panel: "Axes", along: str = "both") -> "Axes":
    """Take away what carries no data: the frame's upper and right edges; grid lines are faint."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis=along, color=QUIET, alpha=0.22, linewidth=0.6)  # type: ignore[arg-type]
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=SMALL, length=3)
    panel.xaxis.label.set_fontsize(USUAL)
    panel.yaxis.label.set_fontsize(USUAL)
    return panel


def logarithmic(panel: "Axes", axis: str, shown: Callable[[float], str] = number) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks and more of them where it spans little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    getattr(panel, f"set_{axis}scale")("log")
    low, high = getattr(panel, f"get_{axis}lim")()
    decades = math.log10(high / low) if 0 < low < high else 1.0
    subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.4 else (1.0, 2.0, 3.0, 5.0, 7.0)
    ruler = getattr(panel, f"{axis}axis")
    ruler.set_major_locator(LogLocator(subs=subs, numticks=12))
    ruler.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))
    ruler.set_minor_locator(NullLocator())


def shortened(text: str) -> str:
    """Return the text, or its beginning where a legend has no room for all of it."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def literal(text: str) -> str:
    """Return the user's text so that matplotlib draws a dollar sign instead of reading mathematics."""
    return text.replace("$", r"\$")


def nothing(panel: "Axes", why: str) -> None:
    """Say in an empty panel why it is empty."""
    panel.set_axis_off()
    panel.text(0.5, 0.5, literal(why), ha="center", va="center", fontsize=USUAL, color=QUIET, transform=panel.transAxes, wrap=True)
