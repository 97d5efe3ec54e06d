"""The walk forward as a table: how the recommended setting did, period by period."""

import html
from collections.abc import Sequence

from batchlab.report.document import section, table
from batchlab.results import Period
from batchlab.snippets.quantities import number

HEADINGS = ("period", "training rows", "test rows", "test loss", "95% CI", "always the mean")


def periods_section(periods: Sequence[Period], unit: str) -> str:
    """Return the section of the page; nothing where no walk was made."""
    if not periods:
        return ""
    told = (
        f"<p>The recommended setting, trained afresh with every seed on all rows before a period and tested on it. Losses in "
        f"{html.escape(unit)}; beside them what always predicting the training rows' mean costs.</p>"
    )
    return section("Walking forward", told + table(HEADINGS, "".join(_row(period) for period in periods)))


def _row(period: Period) -> str:
    low, high = period.test_loss_ci
    ends = f"over {number(low)}" if high is None else f"{number(low)}–{number(high)}"
    cells = (f"{period.train_rows:,}", f"{period.test_rows:,}", number(period.test_loss), ends, number(period.constant_test_loss))
    shown = "".join(f'<td data-label="{name}">{cell}</td>' for name, cell in zip(HEADINGS[1:], cells, strict=True))
    return f'<tr><td class="name">{html.escape(period.first)} to {html.escape(period.last)}</td>{shown}</tr>'
