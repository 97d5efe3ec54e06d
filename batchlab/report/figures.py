"""Pictures of the rows and of predictions. Each function returns a matplotlib figure and draws on no global state."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchlab.files.mapped import gathered
from batchlab.rows.split import Split
from batchlab.table import PackedTable
from batchlab.table.alone import Truth, unexplained
from batchlab.table.target import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_AT_MOST, MOST_COUNTED = 2000, 200_000


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def data_overview(table: PackedTable, split: Split) -> "Figure":
    """Draw the target's distribution and the target against the feature that goes with it most closely."""
    target, figure = table.schema.target, _figure(10, 4)
    left, right = figure.subplots(1, 2)
    shown = np.arange(0, table.schema.rows, max(1, -(-table.schema.rows // MOST_COUNTED)))
    values = gathered(table.target, shown)
    if target.classes:
        left.bar([_short(name) for name in target.classes], np.bincount(values, minlength=len(target.classes)))
        left.tick_params(axis="x", rotation=45 if len(target.classes) > 4 else 0)
    else:
        left.hist(values, bins=min(40, max(5, len(values) // 8)))
    left.set(xlabel=_literal(target.name), ylabel="rows", title=f"{table.schema.rows:,} rows of {_literal(table.schema.source)}")
    chosen = _thinned(split.rows("train", MOST_COUNTED), DOTS_AT_MOST)
    features, truth = gathered(table.features, chosen), gathered(table.target, chosen)
    best = _closest(features, truth, target)
    _scatter_by_target(right, np.nan_to_num(features[:, best]), truth, target)
    right.set(xlabel=_literal(table.schema.packed_names[best]), title="training rows, feature closest to the target")
    return figure


def _scatter_by_target(panel: "Axes", feature: NDArray[np.float32], values: NDArray[Any], target: Target) -> None:
    if target.classes:
        groups = [feature[values == label] for label in range(len(target.classes))]
        panel.boxplot(groups, orientation="horizontal", tick_labels=[_short(name) for name in target.classes])
    else:
        panel.scatter(feature, values, s=9, alpha=0.6)
    panel.set_ylabel(_literal(target.name))


def _closest(features: NDArray[np.float32], values: NDArray[Any], target: Target) -> int:
    """Return the packed column that alone leaves least of the target's variation."""
    mixed = np.random.default_rng(0).permutation(len(values))  # equal values lie together in many a table
    return int(np.argmin(unexplained(features[mixed], Truth(target.name, values[mixed], target.classes))))


def predicted_against_actual(truth: NDArray[np.float64], predictions: NDArray[np.float64], name: str) -> "Figure":
    """Draw regression predictions `[rows, 1]` of the test rows against what happened."""
    figure = _figure(5, 4.6)
    panel = figure.subplots()
    chosen = _thinned(np.arange(len(truth)), DOTS_AT_MOST)
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


def _thinned(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many of the rows, evenly spaced."""
    return rows[:: max(1, -(-len(rows) // most))]


def _short(name: str) -> str:
    return _literal(name if len(name) <= 14 else f"{name[:13]}…")


def _literal(text: str) -> str:
    """Return the user's text so that matplotlib draws a dollar sign instead of reading mathematics."""
    return text.replace("$", r"\$")
