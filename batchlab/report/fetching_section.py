"""What fetching a data set's items costs, as a section of the page."""

import html
from typing import TYPE_CHECKING

from batchlab.report.document import filled
from batchlab.report.fetching import BUSY, fetching_text
from batchlab.snippets.quantities import number, seconds

if TYPE_CHECKING:
    from batchlab.results import Fetching


def fetching_section(fetching: "Fetching") -> str:
    """Return the sentence and the tables: the loop by its workers, and by the rows of a step what the model needs."""
    alone = fetching.batch_rows / fetching.step_seconds[fetching.batch_rows]
    loop = [
        [f"{count}", number(speed), f"{min(1.0, speed / alone):.0%}", "the model" if speed >= BUSY * alone else "the loader"]
        for count, speed in fetching.trained.items()
    ]
    steps = [
        [f"{rows:,}", seconds(taken), number(rows / taken), f"{max(1.0, fetching.kept_busy_by(rows)):.3g}"]
        for rows, taken in fetching.step_seconds.items()
    ]
    of_loop = ["workers", f"rows a second, {fetching.batch_rows:,} a step", "of the model's own speed", "the limit"]
    of_steps = ["rows of a step", "a step, from memory", "rows a second", "workers that keep it busy"]
    tables = (filled(of_loop, loop), filled(of_steps, steps))
    return f"<p>{html.escape(fetching_text(fetching)[0])}</p>{''.join(tables)}"
