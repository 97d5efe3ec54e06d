"""The table of columns: how each was read, its range, its gaps, and a thumbnail of its distribution."""

import html

import numpy as np

from batchlab.report.document import table
from batchlab.rows.portrait import ColumnPortrait, Distribution
from batchlab.serving.batchlab_serving import PackedColumn
from batchlab.snippets.quantities import number

LONGEST_NAME, LONGEST_VALUE = 80, 24
WIDE, HIGH, LEAST_HIGH = 120.0, 26.0, 0.7
"""Units of a thumbnail, and how high a bar of few rows is at least."""
DAY_LONG = 10
HEADINGS = ("column", "read as", "range", "missing", "distribution")


def columns_table(target: ColumnPortrait, features: tuple[ColumnPortrait, ...], kept: dict[str, int]) -> str:
    """Return one row a column, target first; `kept` says how many values a category keeps."""
    rows = _row(target, "", kept) + "".join(_row(item, f" {place}", kept) for place, item in enumerate(features, 1))
    return table(HEADINGS, rows, "columns")


def _row(item: ColumnPortrait, place: str, kept: dict[str, int]) -> str:
    name, mark = item.facts.name, "" if place else ' <span class="mark tie">target</span>'
    title = f' title="{html.escape(cut(name, 300), quote=True)}"' if len(name) > LONGEST_NAME else ""
    return (
        f'<tr><td class="name"{title}>{html.escape(cut(name, LONGEST_NAME))}{mark}</td><td>{_read_as(item, kept)}</td>'
        f"<td>{_range(item)}</td><td>{_missing(item)}</td><td>{_thumbnail(item)}</td></tr>"
    )


def cut(text: str, most: int) -> str:
    """Return the text, or its beginning where it is longer than `most`."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def when(micros: float) -> str:
    """Return microseconds since 1970 as a date, with the time of day where it is not midnight."""
    shown = str(np.datetime64(int(micros), "us").astype("datetime64[s]")).replace("T", " ")
    return shown.removesuffix(" 00:00:00").removesuffix(":00")


def _read_as(item: ColumnPortrait, kept: dict[str, int]) -> str:
    column, distinct = item.column, item.facts.distinct
    if column is None:
        return f"{distinct:,} classes" if distinct else "numbers"
    if column.kind == "category":
        own = kept.get(column.name)
        shared = f"<small>{own:,} kept, the others share one input</small>" if own is not None and own < (distinct or 0) else ""
        return f"{distinct or 0:,} categor{'y' if distinct == 1 else 'ies'}{shared}"
    words = {"number": "whole numbers" if column.integer else "numbers", "boolean": "true or false", "datetime": "dates"}[column.kind]
    if column.kind == "datetime" and column.parts[0] != "days":
        words = "times of day"
    details = _details(column)
    return words + (f"<small>{html.escape(details)}</small>" if details else "")


def _details(column: PackedColumn) -> str:
    """Say how a column's text was read."""
    if not column.text:
        return ""
    if column.kind == "datetime":
        return f"as {', '.join(column.formats[:3])}{' and others' if len(column.formats) > 3 else ''}"
    signed = f" with {column.unit}" if column.unit else ""
    return f"with decimal comma{signed and f' and {column.unit}'}" if column.decimal == "," else f"from text{signed}"


def _range(item: ColumnPortrait) -> str:
    facts = item.facts
    if item.top:
        shares = (f"{html.escape(cut(name, LONGEST_VALUE))} {html.escape(percent(share))}" for name, share in item.top)
        return f'<span class="values">{", ".join(shares)}</span>'
    if facts.minimum is None or facts.maximum is None or facts.mean is None or facts.spread is None:
        return "–"
    if facts.kind == "datetime":
        return f"{when(facts.minimum)} – {when(facts.maximum)}"
    if facts.minimum == facts.maximum:
        return f"always {_exact(facts.minimum)}"
    return f"{_exact(facts.minimum)} – {_exact(facts.maximum)}<small>mean {number(facts.mean)}, spread {number(facts.spread)}</small>"


def _exact(value: float) -> str:
    """Return whole numbers below a million as they are, others with three significant digits."""
    if value != round(value) or abs(value) >= 1e6:
        return number(value)
    return f"{value:.0f}" if abs(value) < 1e4 else f"{value:,.0f}"  # years have no comma


def _missing(item: ColumnPortrait) -> str:
    facts = item.facts
    if not facts.missing and not facts.infinite:
        return "–"
    counts = ((facts.missing, "rows"), (facts.infinite, "rows infinite"))
    return html.escape(percent(facts.missing_share)) + "".join(f"<small>{rows:,} {words}</small>" for rows, words in counts if rows)


def percent(share: float) -> str:
    """Return a share in percent; one that is not nothing never reads as 0%, nor one that is not all as 100%."""
    if share in (0, 1):
        return f"{share:.0%}"
    return "< 0.1%" if share < 0.001 else "> 99.9%" if share > 0.999 else f"{share:.1%}"


def _thumbnail(item: ColumnPortrait) -> str:
    found = item.distribution
    top, step = max(float(found.rows.max()), 1.0), WIDE / len(found.rows)
    gap = min(1.0, step / 6)
    bars = [
        f"M{round(step * place, 1):g} {HIGH:g}v-{high:g}h{round(step - gap, 1):g}v{high:g}z"
        for place, rows in enumerate(found.rows)
        if (high := round(max(LEAST_HIGH, (HIGH - 1) * float(rows) / top), 1)) and rows
    ]
    words = html.escape(f"distribution of {cut(item.facts.name, LONGEST_NAME)}", quote=True)
    picture = f'<svg class="bars" viewBox="0 0 {WIDE:g} {HIGH:g}" role="img" aria-label="{words}"><path d="{"".join(bars)}"/></svg>'
    return picture + _below(item, found)


def _below(item: ColumnPortrait, found: Distribution) -> str:
    """Say what a thumbnail leaves out."""
    if found.clipped:
        ends = (
            (when(found.low)[:DAY_LONG], when(found.high)[:DAY_LONG])
            if item.facts.kind == "datetime"
            else (number(found.low), number(found.high))
        )
        return f"<small>from {ends[0]} to {ends[1]}; ends hold the rest</small>"
    distinct = item.facts.distinct or 0
    return f"<small>the {len(found.rows)} most frequent</small>" if item.top and distinct > len(found.rows) else ""
