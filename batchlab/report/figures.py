"""The pictures of a comparison. Each function returns a matplotlib figure and draws on no global state."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchlab.packing import PackedTable
from batchlab.split import Split
from batchlab.target import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_AT_MOST = 2000
LOG_FROM = 10
"""Losses that differ by this factor are drawn on a logarithmic axis; within it, a linear one has the better labels."""
Curves = Mapping[str, Mapping[str, Sequence[float]]]
"""By strategy: `step`, `epoch`, `rows_seen`, `wall_seconds`, `train_loss`, `validation_loss`."""

AXES = (("step", "updates"), ("rows_seen", "rows seen"), ("wall_seconds", "seconds of training"))


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def loss_curves(curves: Curves, unit: str) -> "Figure":
    """Draw every strategy's validation loss (bold) and training loss (thin) against updates, rows seen and seconds.

    A strategy that diverged before its first evaluation is named, not drawn.
    """
    figure = _figure(13, 4.2)
    panels = figure.subplots(1, 3, sharey=True)
    for position, (name, curve) in enumerate(curves.items()):
        line = "--" if position % 2 else "-"
        for panel, (axis, _) in zip(panels, AXES, strict=True):
            panel.plot(curve[axis][1:], curve["train_loss"][1:], color=f"C{position}", linestyle=line, linewidth=0.6, alpha=0.7)
            panel.plot(curve[axis][1:], curve["validation_loss"][1:], color=f"C{position}", linestyle=line, label=_label(name, curve))
    lowest = min((min(curve["validation_loss"]) for curve in curves.values()), default=0.0)
    for panel, (_, words) in zip(panels, AXES, strict=True):
        panel.set_xlabel(words)
        panel.grid(alpha=0.25)
        if any(len(curve["step"]) > 1 for curve in curves.values()):
            panel.set(xscale="log", yscale="log" if panel.get_ylim()[1] > LOG_FROM * max(lowest, 1e-12) else "linear")
        else:
            panel.set(xticks=[], yticks=[])
            panel.text(0.5, 0.5, "diverged before the first evaluation", ha="center", transform=panel.transAxes)
    panels[0].set_ylabel(f"loss ({_literal(unit)}): validation bold, training thin")
    panels[2].legend(fontsize=8)
    return figure


def _label(name: str, curve: Mapping[str, Sequence[float]]) -> str:
    return name if len(curve["step"]) > 1 else f"{name} (diverged)"


def data_overview(table: PackedTable, split: Split) -> "Figure":
    """Draw the target's distribution and the target against the feature that goes with it most closely."""
    target, figure = table.schema.target, _figure(10, 4)
    left, right = figure.subplots(1, 2)
    values = np.asarray(table.target)
    if target.classes:
        left.bar([_short(name) for name in target.classes], np.bincount(values, minlength=len(target.classes)))
        left.tick_params(axis="x", rotation=45 if len(target.classes) > 4 else 0)
    else:
        left.hist(values, bins=min(40, max(5, len(values) // 8)))
    left.set(xlabel=_literal(target.name), ylabel="rows", title=f"{table.schema.rows:,} rows of {_literal(table.schema.source)}")
    chosen = _thinned(split.train)
    features = np.asarray(table.features[chosen], np.float64)
    best = _most_related(features, values[chosen], target)
    _scatter_by_target(right, features[:, best], values[chosen], target)
    right.set(xlabel=_literal(table.schema.features[best]), title="training rows, feature closest to the target")
    return figure


def _scatter_by_target(panel: "Axes", feature: NDArray[np.float64], values: NDArray[Any], target: Target) -> None:
    if target.classes:
        groups = [feature[values == label] for label in range(len(target.classes))]
        panel.boxplot(groups, orientation="horizontal", tick_labels=[_short(name) for name in target.classes])
    else:
        panel.scatter(feature, values, s=9, alpha=0.6)
    panel.set_ylabel(_literal(target.name))


def _most_related(features: NDArray[np.float64], values: NDArray[Any], target: Target) -> int:
    """Return the feature with the largest F statistic between classes, or the largest correlation; constant ones have none."""
    from sklearn.feature_selection import f_classif, r_regression

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        strength = f_classif(features, values)[0] if target.classes else np.abs(r_regression(features, values))
    return int(np.argmax(np.nan_to_num(strength, nan=-1.0, posinf=0.0)))


def predicted_against_actual(truth: NDArray[np.float64], predictions: NDArray[np.float64], name: str) -> "Figure":
    """Draw regression predictions `[rows, 1]` of the test rows against what happened."""
    figure = _figure(5, 4.6)
    panel = figure.subplots()
    chosen = _thinned(np.arange(len(truth)))
    panel.scatter(truth[chosen], predictions[chosen, 0], s=10, alpha=0.6)
    ends = [float(min(truth.min(), predictions.min())), float(max(truth.max(), predictions.max()))]
    panel.plot(ends, ends, color="black", linewidth=0.8, linestyle=":", label="predicted = actual")
    panel.set(xlabel=f"actual {_literal(name)}", ylabel=f"predicted {_literal(name)}", title=f"{len(truth):,} test rows")
    panel.legend(fontsize=8)
    return figure


def confusion(truth: NDArray[np.int64], predictions: NDArray[np.float64], classes: Sequence[str]) -> "Figure":
    """Draw how many test rows of each class were predicted as which class; `predictions` are probabilities `[rows, classes]`."""
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    size = 3.4 + 0.32 * len(classes)
    figure = _figure(size + 0.8, size)
    panel = figure.subplots()
    counts = confusion_matrix(truth, predictions.argmax(axis=1), labels=np.arange(len(classes)))
    display = ConfusionMatrixDisplay(counts, display_labels=[_short(name) for name in classes])
    display.plot(ax=panel, colorbar=False, xticks_rotation=45 if len(classes) > 4 else 0, include_values=len(classes) <= 30)
    panel.set_title(f"{len(truth):,} test rows")
    return figure


def _thinned(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most `DOTS_AT_MOST` of the rows, evenly spaced."""
    return rows[:: max(1, -(-len(rows) // DOTS_AT_MOST))]


def _short(name: str) -> str:
    return _literal(name if len(name) <= 14 else f"{name[:13]}…")


def _literal(text: str) -> str:
    """Return the user's text so that matplotlib draws a dollar sign instead of reading mathematics."""
    return text.replace("$", r"\$")
