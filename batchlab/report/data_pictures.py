"""Pictures of the rows along time: the parts of the split, and the target."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchlab.report.ink import BLACK, OTHERS, PARTS, SMALL, dressed, literal, nothing, sheet, shortened
from batchlab.rows.assigning import EVERY, TEST, TRAIN, UNUSED, VALIDATION
from batchlab.rows.timeline import LABELS, Timeline
from batchlab.serving.batchlab_serving import DAY, YEAR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {TRAIN: PARTS[0], VALIDATION: PARTS[1], TEST: PARTS[2], EVERY: PARTS[0], UNUSED: PARTS[3]}
CLASS_COLOURS = (*PARTS[:3], *OTHERS, PARTS[3])
FIRST_YEAR, LAST_YEAR = 1, 9999


def split_picture(line: Timeline, sizes: dict[str, int]) -> "Figure":
    """Draw which share of the rows at each time is in which part; `sizes` are the rows of each label."""
    figure = sheet(height=2.9)
    panel = figure.subplots()
    parts = [label for label in (TRAIN, VALIDATION, TEST, EVERY, UNUSED) if sizes.get(LABELS[label])]
    names = [f"{LABELS[label]}, {sizes[LABELS[label]]:,} rows" for label in parts]
    _stacked(panel, line, line.split_edges, line.split[:, parts], names, [COLOURS[label] for label in parts])
    return figure


def target_picture(line: Timeline, name: str, classes: tuple[str, ...]) -> "Figure":
    """Draw the target along time: its mean with the band of most rows, or the shares of its classes."""
    figure = sheet(height=3.6)
    panel = figure.subplots()
    if classes:
        counts, names = gathered(line.target, classes)
        _stacked(panel, line, line.target_edges, counts, names, list(CLASS_COLOURS[: len(names)]))
        return figure
    centres = (line.target_edges[:-1] + line.target_edges[1:]) / 2
    if not np.isfinite(line.target).any():
        nothing(panel, "too few rows at each time for a mean")
        return figure
    along, words = _axis(line, centres)
    mean, low, high = line.target.T
    panel.fill_between(along, low, high, color=PARTS[0], alpha=0.22, linewidth=0, label="middle 80% of rows")
    panel.plot(along, mean, color=BLACK, linewidth=1.6, marker="o", markersize=2.4, label="mean")
    dressed(panel).set(xlabel=words, ylabel=literal(shortened(name)))
    edges, _ = _axis(line, line.target_edges)
    panel.set_xlim(edges[0], edges[-1])
    _ruled(panel, along)
    _legend(panel)
    return figure


def gathered(counts: NDArray[np.float64], classes: tuple[str, ...]) -> tuple[NDArray[np.float64], list[str]]:
    """Return the counts `[bins, classes]` of the most frequent classes, all others as one where there are many."""
    most = len(CLASS_COLOURS)
    if len(classes) <= most:
        return counts, list(classes)
    order = np.argsort(-counts.sum(axis=0), kind="stable")
    first, rest = order[: most - 1], order[most - 1 :]
    found = np.concatenate([counts[:, first], counts[:, rest].sum(axis=1, keepdims=True)], axis=1)
    return found, [*(classes[place] for place in first), f"{len(rest):,} others"]


def _stacked(
    panel: "Axes", line: Timeline, edges: NDArray[np.float64], counts: NDArray[np.float64], names: list[str], colours: list[str]
) -> None:
    """Draw shares of 100% in every bin; a bin without rows stays empty."""
    along, words = _axis(line, np.repeat(edges, 2)[1:-1])
    whole = counts.sum(axis=1, keepdims=True)
    tops = np.cumsum(100 * counts / np.maximum(whole, 1), axis=1)
    below = np.zeros(2 * len(counts))
    for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
        above = np.repeat(tops[:, number], 2)
        panel.fill_between(along, below, above, color=colour, linewidth=0, label=literal(shortened(name)))
        below = above
    panel.set_ylim(0, 100)
    panel.set_yticks(range(0, 101, 25), [f"{share}%" for share in range(0, 101, 25)])
    panel.set_xlim(along[0], along[-1])
    dressed(panel).set(xlabel=words, ylabel="share of rows")
    _ruled(panel, along)
    _legend(panel)


def _axis(line: Timeline, values: NDArray[np.float64]) -> tuple[Any, str]:
    """Return values as matplotlib takes them, and the axis' words: dates as dates, or as years where they are beyond the calendar."""
    if not line.dated:
        return (values + 1, "row, in the table's order") if line.name is None else (values, literal(shortened(line.name)))
    years = values / (DAY * YEAR) + 1970
    name = literal(shortened(line.name or ""))
    if years.min() < FIRST_YEAR + 1 or years.max() > LAST_YEAR - 1:
        return years, f"{name} (year)"
    return values.astype(np.int64).astype("datetime64[us]"), name


def _ruled(panel: "Axes", along: Any) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import FuncFormatter

    if np.issubdtype(np.asarray(along).dtype, np.datetime64):
        locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
        panel.xaxis.set_major_locator(locator)
        panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        panel.xaxis.get_offset_text().set_fontsize(SMALL)
    elif np.abs(along).max() >= 1e4:
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _legend(panel: "Axes") -> None:
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, fontsize=SMALL, borderaxespad=0.2)
