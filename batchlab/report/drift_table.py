"""How fresh rows differ from those before, as a table: what drifted first, with both distributions where they are known."""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from batchlab.files.mapped import gathered
from batchlab.report.data_table import HIGH, LONGEST_NAME, WIDE, cut, percent
from batchlab.report.document import table
from batchlab.retraining.drift import MADE_BY_CHAMPION, ColumnDrift, Drift
from batchlab.rows.portrait import BARS, spread_out
from batchlab.serving.batchlab_serving import PackedColumn
from batchlab.snippets.quantities import number
from batchlab.table import PackedTable

Numbers = NDArray[np.float64]
MOST_SHOWN, MOST_ROWS, LONGEST_CHANGE = 10, 20_000, 160
HEADINGS = ("column", "PSI", "p, corrected", "missing", "what changed", "before (line), now (bars)")


@dataclass(frozen=True)
class Shapes:
    """Shares of rows in the same bars, before and now, `[bars]` each; numbers go from `low` to `high`, the ends hold what lies beyond;
    categories (None) are ordered as they were frequent before."""

    before: Numbers
    now: Numbers
    low: float | None = None
    high: float | None = None


def shown_drift(drift: Drift) -> list[ColumnDrift]:
    """Return the columns that are shown: what drifted, then what changed most."""
    tested = [item for item in drift.every if item.untested is None]
    return sorted(tested, key=lambda item: (not item.drifted, -item.psi))[:MOST_SHOWN]


def shapes(table: PackedTable, before: NDArray[np.int64], now: NDArray[np.int64], wanted: Iterable[str]) -> dict[str, Shapes]:
    """Return the distributions of the wanted columns on both sides (row numbers), the target among them; of many rows a sample counts."""
    sides, names, place, found = (_some(before), _some(now)), set(wanted), 0, {}
    for column in table.schema.columns:
        if column.name in names and column.kind != "datetime":
            values = [gathered(table.features[:, place], rows).astype(np.float64) for rows in sides]
            found[column.name] = _of_column(column, *values)
        place += len(column.packed_names)
    target = table.schema.target
    if target.name in names:
        values = [gathered(table.target, rows).astype(np.float64) for rows in sides]
        found[target.name] = _of_codes(values[0], values[1], len(target.classes)) if target.classes else _of_numbers(*values)
    return found


def _some(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[:: max(1, -(-len(rows) // MOST_ROWS))]


def _of_column(column: PackedColumn, before: Numbers, now: Numbers) -> Shapes:
    if column.kind in ("category", "boolean"):
        return _of_codes(before, now, len(column.vocabulary) if column.kind == "category" else 2)
    return _of_numbers(before + column.offset, now + column.offset)


def _of_codes(before: Numbers, now: Numbers, count: int) -> Shapes:
    """Count codes; the one after the last stands for values without one of their own."""
    counts = [np.bincount(side[np.isfinite(side)].astype(np.int64), minlength=count + 1).astype(np.float64) for side in (before, now)]
    order = np.argsort(-(counts[0] + 1e-9 * counts[1]), kind="stable")
    used = [code for code in order if counts[0][code] or counts[1][code]][:BARS]
    return Shapes(counts[0][used] / max(1, len(before)), counts[1][used] / max(1, len(now)))


def _of_numbers(before: Numbers, now: Numbers) -> Shapes:
    known = [side[np.isfinite(side)] for side in (before, now)]
    both = spread_out(np.concatenate(known))
    low, high = (both.low, both.high) if both.high > both.low else (both.low - 0.5, both.high + 0.5)
    counts = [np.histogram(np.clip(side, low, high), len(both.rows), (low, high))[0].astype(np.float64) for side in known]
    return Shapes(counts[0] / max(1, len(before)), counts[1] / max(1, len(now)), low, high)


def drift_table(drift: Drift, shapes: Mapping[str, Shapes]) -> str:
    """Return the table; a column without known distributions has none drawn."""
    return table(HEADINGS, "".join(_row(item, shapes) for item in shown_drift(drift)), "words dense")


def _row(item: ColumnDrift, shapes: Mapping[str, Shapes]) -> str:
    name = MADE_BY_CHAMPION.get(item.kind) or cut(item.name, LONGEST_NAME)
    mark = ' <span class="mark bad">drifted</span>' if item.drifted else ""
    missing = "–" if not item.missing_before and not item.missing_now else f"{percent(item.missing_before)} → {percent(item.missing_now)}"
    known = None if item.kind in MADE_BY_CHAMPION else shapes.get(item.name)
    cells = (
        number(item.psi),
        f"{item.p_value:.2g}" if item.p_value else "&lt; 1e-300",
        html.escape(missing),
        html.escape(cut(item.change, LONGEST_CHANGE)),
        "–" if known is None else _thumbnail(name, known),
    )
    labelled = "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in zip(HEADINGS[1:], cells, strict=True))
    return f'<tr><td class="name">{html.escape(name)}{mark}</td>{labelled}</tr>'


def _thumbnail(name: str, found: Shapes) -> str:
    """Draw the shares now as bars and those before as a line over them."""
    top, step = max(float(found.before.max(initial=0)), float(found.now.max(initial=0)), 1e-12), WIDE / max(1, len(found.now))
    bars = "".join(
        f"M{step * place:.1f} {HIGH:g}v-{high:.1f}h{step * 0.85:.1f}v{high:.1f}z"
        for place, share in enumerate(found.now)
        if (high := (HIGH - 1) * float(share) / top) > 0
    )
    heights = [HIGH - (HIGH - 1) * float(share) / top for share in found.before]
    steps = chain.from_iterable((f"{step * place:.1f},{y:.1f}", f"{step * (place + 1):.1f},{y:.1f}") for place, y in enumerate(heights))
    words = html.escape(f"distribution of {name} before and now", quote=True)
    line = f'<polyline points="{" ".join(steps)}" fill="none" stroke="currentColor" stroke-width="1.4"/>'
    picture = f'<svg class="bars" viewBox="0 0 {WIDE:g} {HIGH:g}" role="img" aria-label="{words}"><path d="{bars}"/>{line}</svg>'
    if found.low is None or found.high is None:
        return f"{picture}<small>{len(found.now)} values</small>"
    return f"{picture}<small>{html.escape(number(found.low))} to {html.escape(number(found.high))}</small>"
