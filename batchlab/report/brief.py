"""The verdict's table in a few narrow lines: what is recommended, what comes next, every strategy's best, what people type."""

from typing import NamedTuple

from batchlab.analysis.verdict import paired
from batchlab.engine.optimizers import Optimizer, Sgd
from batchlab.report.ranking import ranked, times_shown
from batchlab.report.wording import cut
from batchlab.search.findings import Finding, Findings
from batchlab.snippets.quantities import number, seconds

MOST_LINES = 10
HEADINGS = ("setting", "optimizer", "rate", "loss", "to target", "what to know")


class Line(NamedTuple):
    """A line of the table: its cells under HEADINGS, and the finding that it tells of."""

    cells: tuple[str, ...]
    item: Finding


def brief(found: Findings, most: int = MOST_LINES) -> list[Line]:
    """Return at most so many lines, best first: the recommended setting, the one with the lowest loss, the runner-up, the best of every
    strategy, what people type.

    Where these are more, strategies whose best is worst are left out.
    """
    order = ranked(found)
    choice = found.choice
    named = () if choice is None else (choice.best, *(() if choice.runner_up is None else (choice.runner_up.label,)))
    firsts: dict[str, Finding] = {}
    for item in order:
        if not item.candidate.typed:
            firsts.setdefault(item.candidate.name, item)
    needed = [item for item in order if item is found.best or item.candidate.label in named or item.candidate.typed][:most]
    spare = [item for item in firsts.values() if item not in needed][: most - len(needed)]
    return [Line(_cells(found, item), item) for item in order if item in needed or item in spare]


def _cells(found: Findings, item: Finding) -> tuple[str, ...]:
    candidate, outcome = item.candidate, item.outcome
    label = f"typed batch {candidate.batch_rows}" if candidate.typed else candidate.label
    to_target = "–"
    if times_shown(found, item):
        to_target = f"{'' if outcome.status == 'reached' else '> '}{seconds(item.seconds.value)}"
    loss = "–" if outcome.status == "diverged" else f"{outcome.loss:.4g}"
    return label, _optimizer(candidate.optimizer), f"{candidate.learning_rate:g}", loss, to_target, _note(found, item)


def _optimizer(optimizer: Optimizer) -> str:
    return "momentum" if isinstance(optimizer, Sgd) and optimizer.momentum else optimizer.kind


def _note(found: Findings, item: Finding) -> str:
    """Return what to know of a setting in two or three words."""
    choice, outcome = found.choice, item.outcome
    if item is found.best:
        return "best of these" if any(yardstick.beats for yardstick in found.yardsticks) else "recommended"
    if outcome.status == "diverged":
        return "diverged"
    if outcome.status == "behind" or choice is None:
        return f"left at {number(outcome.budget_rows)} rows"
    above = outcome.loss / choice.loss.value - 1 if choice.loss.value else 0.0
    if item.candidate.label in choice.as_good:
        return f"as good ({above:+.1%})"
    more = f"{above:+.1%}" if abs(above) < 0.1 else f"{above:+.0%}"
    unsure = found.best is not None and paired(item.outcome, found.best.outcome, "time").loss_ratio_ci[0] < 1
    return f"loss {more}{cut(found, item).replace(' after', ' at') or (', unsure' if unsure else '')}"
