"""What it gains to divide steps over processes, in words and as a table."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchlab.report.document import filled
from batchlab.snippets.quantities import number, seconds

if TYPE_CHECKING:
    from batchlab.results import OverProcesses

WORTH = 1.05
"""Less than this is no gain worth a process."""


def dividing_text(found: "Sequence[OverProcesses]") -> list[str]:
    """Return a line: what a step gains at most, how much of it is waiting, and how many processes which batch is worth."""
    most = max((item.processes for item in found), default=1)
    alone = {item.label: item.seconds_per_step for item in found if item.processes == 1}
    divided = [item for item in found if item.processes == most and item.label in alone]
    if most == 1 or not divided:
        return []
    longer = {item.label: item.seconds_per_step / alone[item.label] for item in divided}
    ends = min(divided, key=lambda item: longer[item.label]), max(divided, key=lambda item: longer[item.label])
    said = " and ".join(
        f"a step of {item.label} takes {number(longer[item.label])} times as long as in one "
        f"({item.waiting_share:.0%} of it waiting for the others' gradients)"
        for item in (ends if len(divided) > 1 else ends[:1])
    )
    return [f"Over {most} processes of this machine {said}.{_soonest(found)}"]


def _soonest(found: "Sequence[OverProcesses]") -> str:
    """Say with which batch the target is reached soonest, in one process and over more, and how many are worth it."""
    reached = [item for item in found if item.seconds_to_target is not None]
    latest_first = sorted(reached, key=lambda item: item.seconds_to_target or 0.0, reverse=True)
    soonest = {item.processes: item for item in latest_first}
    if 1 not in soonest or len(soonest) == 1:
        return ""
    took = {count: item.seconds_to_target or 0.0 for count, item in soonest.items()}
    worth = min(count for count in took if took[count] <= WORTH * min(took.values()))
    ways = ", ".join(f"over {count} with {soonest[count].label} ({seconds(took[count])})" for count in sorted(took) if count > 1)
    end = "one process is enough" if worth == 1 else f"{worth} processes are worth it"
    return f" In one process the target is reached soonest with {soonest[1].label} ({seconds(took[1])}), {ways}: {end}."


def dividing_section(found: "Sequence[OverProcesses]") -> str:
    """Return the sentence, and a table of every batch over every number of processes."""
    headings = ["setting", "processes", "a step", "waiting for the others", "to the target"]
    rows = [
        [
            item.label,
            f"{item.processes}",
            seconds(item.seconds_per_step),
            "–" if item.processes == 1 else f"{item.waiting_share:.0%}",
            "–" if item.seconds_to_target is None else seconds(item.seconds_to_target),
        ]
        for item in sorted(found, key=lambda item: (item.batch_rows, item.label, item.processes))
    ]
    return "".join(f"<p>{html.escape(line)}</p>" for line in dividing_text(found)) + filled(headings, rows)
