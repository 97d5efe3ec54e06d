"""What training costs: throughput over batch sizes, where the time goes, peak memory, and how fast rows can be delivered."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchlab.report.ink import ACCENT, BLACK, OTHERS, PARTS, QUIET, SMALL, dressed, is_sized, literal, logarithmic, nothing, sheet
from batchlab.report.ranking import ranked, times_shown
from batchlab.search.findings import Finding, Findings
from batchlab.snippets.quantities import memory, number, seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": SMALL}
NAMES = ("delivery", "compute", "evaluation", "recording")


def throughput(found: Findings, unit: str) -> "Figure":
    """Draw the rows trained a second over batch sizes, gathered from the packed rows and through a DataLoader, and the knee."""
    figure = sheet(height=4.2)
    panel = figure.subplots()
    ways = {"gathered from the packed rows": (False, BLACK, "-"), "through a DataLoader": (True, OTHERS[0], (0, (5, 2)))}
    for words, (loaded, colour, dash) in ways.items():
        items = [item for item in found.settings if is_sized(item) and (item.candidate.strategy.loader_workers is not None) == loaded]
        items = sorted({item.candidate.batch_rows: item for item in reversed(items)}.values(), key=lambda item: item.candidate.batch_rows)
        if items:
            _speeds(panel, items, words, colour, dash)
    if not panel.has_data():
        nothing(panel, "no constant batch size was timed")
        return figure
    if found.throughput_knee is not None:
        panel.axvline(
            found.throughput_knee, color=QUIET, linewidth=1.3, linestyle=":", label=f"knee at {number(found.throughput_knee)} rows"
        )
    if found.best is not None:
        size = found.best.candidate.batch_rows
        panel.axvline(size, color=ACCENT, linewidth=1.3, linestyle=(0, (4, 3)), label=f"recommended: {number(size)} rows")
    logarithmic(panel, "x")
    logarithmic(panel, "y")
    dressed(panel).set(xlabel="batch size (rows)", ylabel="rows trained a second")
    panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=SMALL)
    return figure


def _speeds(panel: "Axes", items: Sequence[Finding], words: str, colour: str, dash: object) -> None:
    rows = np.array([item.candidate.batch_rows for item in items], np.float64)
    steps = [item.timings.step() for item in items]
    speed = rows / np.array([step.value for step in steps])
    away = np.abs(np.array([rows / [step.high for step in steps], rows / [step.low for step in steps]]) - speed)
    panel.errorbar(rows, speed, yerr=away, color=colour, linestyle=dash, marker="o", markersize=4, linewidth=1.4, capsize=2, label=words)


def time_split(found: Findings, unit: str, tracking_seconds: Mapping[str, float] | None = None) -> "Figure":
    """Draw how one training's time to the target is divided, as shares; the whole is written beside the bar."""
    items = [item for item in ranked(found) if is_divided(found, item)]
    figure = sheet(height=1.3 + 0.25 * len(items))
    panel = figure.subplots()
    if not items:
        nothing(panel, "no setting was timed alone")
        return figure
    parts = np.array([split_seconds(item, (tracking_seconds or {}).get(item.candidate.label, 0.0)) for item in items])
    shares, left = 100 * parts / parts.sum(1, keepdims=True), np.zeros(len(items))
    for place, name in enumerate(NAMES if tracking_seconds else NAMES[:3]):
        panel.barh(range(len(items)), shares[:, place], left=left, color=PARTS[place], height=0.72, label=name)
        left += shares[:, place]
    for place, whole in enumerate(parts.sum(1)):
        panel.annotate(seconds(whole), (100, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=SMALL)
    _rows_named(panel, items, found)
    panel.set_xlim(0, 109)
    panel.set_xticks(range(0, 101, 20), [f"{share}%" for share in range(0, 101, 20)])
    dressed(panel, "x")
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, fontsize=SMALL)
    return figure


def is_divided(found: Findings, item: Finding) -> bool:
    """Whether the setting's time to the target can be divided: it has one, and was timed alone."""
    return times_shown(found, item) and bool(item.timings.seconds_per_evaluation)


def split_seconds(item: Finding, tracking: float = 0.0) -> tuple[float, float, float, float]:
    """Return the seconds of one training to the target: delivery, compute, evaluation of the curve's points up to there, recording."""
    steps = float(item.steps.value)
    training = steps * item.timings.step().value
    evaluations = 1 + int(np.searchsorted(item.shown.curve.step[1:], steps)) + 1
    evaluating = min(evaluations, len(item.shown.curve.step)) * float(np.median(item.timings.seconds_per_evaluation))
    share = item.timings.delivery_share
    return share * training, (1 - share) * training, evaluating, tracking


def memory_peaks(found: Findings, unit: str) -> "Figure":
    """Draw the peak memory of every setting's training, its rows included; a line spans the lowest and highest measurement."""
    items = [item for item in (*found.settings, *found.typed) if np.isfinite(item.outcome.peak_bytes).any()]
    figure = sheet(height=1.1 + 0.25 * max(2, len(items)))
    panel = figure.subplots()
    if not items:
        nothing(panel, "memory was not measured")
        return figure
    most = 1.3 * max(float(np.median(item.outcome.peak_bytes)) for item in items)
    for place, item in enumerate(items):
        peaks = item.outcome.peak_bytes
        middle = float(np.median(peaks))
        panel.barh(place, middle, color=ACCENT if item is found.best else PARTS[3], height=0.7)
        panel.plot([peaks.min(), min(peaks.max(), most)], [place, place], color=BLACK, linewidth=1.2)
        at = max(middle, peaks.max()) if peaks.max() < 0.9 * most else middle
        panel.annotate(memory(middle), (at, place), xytext=(5, 6 if at < peaks.max() else 0), **BESIDE)
    _rows_named(panel, items, found)
    _held(panel, found)
    panel.set_xlim(0, most)
    _in_bytes(panel)
    dressed(panel, "x").set(xlabel="peak memory of a training, training rows included (median of the measurements)")
    return figure


def held_bytes(found: Findings) -> int | None:
    """Return the bytes of the training rows as float32 (features and target), told by the first layer's shape; None where it is unknown."""
    for item in found.settings:
        for name in ("weight", "0.weight"):
            layer = item.shown.weights.get(name)
            if layer is not None and layer.ndim == 2:
                return int(found.row_count * (layer.shape[1] + 1) * 4)
    return None


def _held(panel: "Axes", found: Findings) -> None:
    held = held_bytes(found)
    if held is not None:
        panel.axvline(held, color=OTHERS[0], linewidth=1.2, linestyle=(0, (4, 3)))
        panel.annotate(
            f"the rows alone: {memory(held)}", (held, 1.0), xycoords=("data", "axes fraction"), xytext=(3, 2), textcoords="offset points",
            fontsize=SMALL, color=OTHERS[0],
        )  # fmt: skip


def _in_bytes(panel: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    unit = max(size for size in (1, 2**10, 2**20, 2**30) if size <= panel.get_xlim()[1])
    most = panel.get_xlim()[1] / unit
    ticks = MaxNLocator(6).tick_values(0, most)
    panel.set_xticks([tick * unit for tick in ticks if tick <= most])
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: memory(value) if value else "0"))


def _rows_named(panel: "Axes", items: Sequence[Finding], found: Findings) -> None:
    panel.set_yticks(range(len(items)), [literal(item.candidate.label) for item in items])
    for text, item in zip(panel.get_yticklabels(), items, strict=True):
        text.set_fontweight("bold" if item is found.best else "normal")
    panel.set_ylim(len(items) - 0.4, -0.6)


def loaders(found: Findings, unit: str) -> "Figure":
    """Draw the rows a second that slices and DataLoaders with 0, 1, … workers deliver."""
    ways = found.deliveries
    figure = sheet(height=1.1 + 0.3 * max(2, len(ways)))
    panel = figure.subplots()
    if not ways:
        nothing(panel, "loaders were not measured")
        return figure
    for place, way in enumerate(ways):
        colour = PARTS[0] if way.label == "slices" else PARTS[1] if "row by row" in way.label else PARTS[2]
        panel.plot(way.rows_per_second, place, "o", color=colour, markersize=8)
        words = f"{number(way.rows_per_second)} rows/s; first batch after {seconds(way.first_batch_seconds)}"
        panel.annotate(words, (way.rows_per_second, place), xytext=(9, 0), textcoords="offset points", va="center", fontsize=SMALL)
    panel.set_yticks(range(len(ways)), [_way(way.label, way.workers) for way in ways])
    panel.set_ylim(len(ways) - 0.4, -0.6)
    speeds = [way.rows_per_second for way in ways]
    panel.set_xlim(min(speeds) / 2, max(speeds) * 12)
    logarithmic(panel, "x")
    dressed(panel, "x").set(xlabel="rows delivered a second (logarithmic)")
    return figure


def _way(label: str, workers: int) -> str:
    if label == "slices":
        return "slices of the packed rows"
    return f"{label}, {workers} worker{'' if workers == 1 else 's'}"
