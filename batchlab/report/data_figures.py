"""Figures of the data on a page: the split, and the target along time, each with the sentence that says what it shows."""

import numpy as np

from batchlab.experiment import Experiment
from batchlab.report.data_pictures import gathered, split_picture, target_picture
from batchlab.report.data_table import DAY_LONG, cut, percent, when
from batchlab.report.document import framed
from batchlab.rows.timeline import FEWEST_ROWS, LABELS, TIMED, Timeline
from batchlab.snippets.quantities import number

SPLIT_READING = (
    "Every upright slice is the rows of a stretch of it, divided into the parts that they are in; where it is empty there are none."
)
BAND_READING = (
    f"Line: the mean of the rows of a stretch; band: the middle 80% of them. Stretches with fewer than {FEWEST_ROWS} sampled rows are "
    "left out."
)
SHARE_READING = "Every upright slice is the rows of a stretch of it, divided into their classes."
LONGEST = 80


def split_figure(experiment: Experiment) -> str:
    """Return the figure of which rows are in which part of the split."""
    split, rule, line = experiment.split, experiment.profile.split, experiment.portrait.timeline
    sizes = {**split.sizes(), "unused": split.unused}
    if rule.kind == "in_sample":
        said = f"All {sizes['train']:,} rows are in every part: scores say nothing about new rows."
        return framed("data-split", "The split", said, "", None)
    rows = len(split.labels)
    parts = [f"{name} {count:,} rows ({percent(count / rows)}){_span(line, name, rule.kind)}" for name, count in sizes.items() if count]
    gap = f" An embargo of {rule.embargo} before each cut keeps the parts apart." if rule.embargo and rule.kind in TIMED else ""
    last = f" This is the last of {rule.folds} periods." if rule.kind == "walk_forward" else ""
    said = f"Rows are divided by split.kind {rule.kind}: {'; '.join(parts)}.{gap}{last}"
    drawn = split_picture(line, {label: sizes.get(label, 0) for label in LABELS})
    return framed("data-split", "The split", said, SPLIT_READING, drawn)


def _span(line: Timeline, part: str, kind: str) -> str:
    """Say from when to when a part goes, where the split goes by time."""
    if kind not in TIMED or part not in line.spans:
        return ""
    low, high = line.spans[part]
    return f" from {_moment(line, low)} to {_moment(line, high)}"


def _moment(line: Timeline, value: float) -> str:
    if line.name is None:
        return f"row {int(value) + 1:,}"
    if not line.dated:
        return number(value)
    return when(value) if line.exact else when(value)[:DAY_LONG]  # the packed days of a feature are exact to minutes only


def target_figure(experiment: Experiment) -> str:
    """Return the figure of the target along time, or along the table where nothing dates its rows."""
    target, line = experiment.table.schema.target, experiment.portrait.timeline
    along = "the order of rows" if line.name is None else f"'{cut(line.name, LONGEST)}'"
    ends = f"{_moment(line, float(line.target_edges[0]))} – {_moment(line, float(line.target_edges[-1]))}"
    what = _of_classes(line, target.classes) if target.classes else _of_means(line)
    said = f"{what} of '{cut(target.name, LONGEST)}' along {along}, {ends}."
    heading = "The target along the table" if line.name is None else "The target along time"
    reading = SHARE_READING if target.classes else BAND_READING
    return framed("data-target", heading, said, reading, target_picture(line, target.name, target.classes))


def _of_means(line: Timeline) -> str:
    known = line.target[np.isfinite(line.target[:, 0]), 0]
    if not len(known):
        return "Too few rows at each time for means"
    return f"Means from {number(known.min())} to {number(known.max())}"


def _of_classes(line: Timeline, classes: tuple[str, ...]) -> str:
    """Say how the share of the most frequent class moves."""
    counts, names = gathered(line.target, classes)
    rows = counts.sum(axis=1)
    named = len(names) if len(names) == len(classes) else len(names) - 1  # the last are all others
    usual = int(np.argmax(counts.sum(axis=0)[:named]))
    shares = counts[rows >= FEWEST_ROWS, usual] / rows[rows >= FEWEST_ROWS]
    if not len(shares):
        return f"Shares of the {len(classes):,} classes"
    low, high = percent(shares.min()), percent(shares.max())
    return f"Shares of the {len(classes):,} classes ('{cut(names[usual], LONGEST)}' takes {low} to {high} of rows)"
