"""What the command line shows: progress while strategies train, the table of results, and where to look further."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from batchlab.results import Comparison, StrategyResult
    from batchlab.search.findings import Findings
    from batchlab.search.search import Search
    from batchlab.table.target import Task
    from tasks.history import Decision

    Library = Literal["torch", "lightning", "skorch", "keras"]
    OnVerdict = Callable[[Search, Mapping[str, float | None]], None]

PLAIN_WIDTH, WIDE_WIDTH = 80, 200
NOTE_LINES = 8
"""Notes take so many lines at most, so that the whole fits on a screen; the page has them all."""
STYLES = {"first": "green", "promoted": "green", "rollback": "yellow", "by_hand": "yellow", "kept": "dim"}
SECONDS_BETWEEN_LINES = 10.0
BESIDE_LABEL = 36
"""The bar, the share, the time and the gaps between them are so wide."""


def console(stderr: bool = False, plain_width: int = PLAIN_WIDTH) -> Console:
    """Return the console; where the output is no terminal it is plain and of this width."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=plain_width)


class SearchProgress:
    """Shows how far the search is: a bar with the time left in a terminal, else a line now and then."""

    def __init__(self, shown_on: Console, on_verdict: "OnVerdict" = lambda search, scores: None) -> None:
        self.console, self.on_verdict = shown_on, on_verdict
        self.bar = self._bar()
        self.task: TaskID | None = None
        self.last_line = time.monotonic()

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> "SearchProgress":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def moved(self, label: str, share: float) -> None:
        """Take note of the part under way and of the share done; called from the thread that trains."""
        if self.task is None:
            self.task = self.bar.add_task(label, total=1.0)
        self.bar.update(self.task, completed=share, description=self._fitted(label))
        if not self.console.is_terminal and time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self.console.print(f"{share:.0%}: {label}", no_wrap=True, overflow="ellipsis")

    def _fitted(self, label: str) -> str:
        """Return the label as wide as there is room for."""
        room = max(20, self.console.width - BESIDE_LABEL)
        return f"{label:<{room}.{room}}"

    def announced(self, text: str) -> None:
        """Print a sentence above the bar."""
        self.console.print(text)

    def concluded(self, search: "Search", scores: Mapping[str, float | None]) -> None:
        """Hand on the verdict, with no bar in its way; a new one then tells of the records."""
        self.bar.stop()
        self.on_verdict(search, scores)
        self.bar, self.task, self.last_line = self._bar(), None, time.monotonic()
        self.bar.start()


def show_verdict(shown_on: Console, search: "Search", scores: Mapping[str, float | None], wide: bool) -> None:
    """Print what was compared, the table of settings, what to know beside it, and the verdict, last: as soon as it is known.

    `scores` are those of the recommended setting's model on the test rows; those of single classes are in MLflow. With `wide` the table has
    every row and column, and all notes.
    """
    from batchlab.report.ranking import ranked
    from batchlab.report.tables import remarks
    from batchlab.report.wording import beside_it, recommendation
    from tasks.recording import result_of

    found, sizes, task = search.findings, search.experiment.split.sizes(), search.experiment.table.schema.target.task
    parts = f"{sizes['train']:,} training, {sizes['validation']:,} validation, {sizes['test']:,} test rows"
    if search.profile.split.kind == "in_sample":
        parts = f"{sizes['train']:,} rows, which train, validate and test alike (split.kind is in_sample)"
    shown_on.print(f"\n{task}, {search.experiment.profile.model.kind} model on {search.experiment.device}: {parts}")
    results = [result_of(item, search) for item in ranked(found)]
    shown_on.print(grid(task, results, shown_on.width) if wide else narrow(found))
    said = remarks(results if wide else [item for item in results if item.status != "behind"])  # who left is in the narrow table
    _print_notes(shown_on, [*said, *found.notes], math.inf if wide else NOTE_LINES)
    for line in beside_it(found):
        shown_on.print(line, style="dim")
    shown_on.print()
    tested = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in scores.items() if value is not None and "/" not in name)
    for number, line in enumerate(recommendation(found)):
        shown_on.print(line, style="bold" if number < 2 else "")
    if tested:
        shown_on.print(f"Its model on the test rows: {tested}.")


def _print_notes(shown_on: Console, notes: Sequence[str], most_lines: float) -> None:
    """Print the notes that fit into so many lines, and how many there are beside them."""
    lines, printed = 0, 0
    for note in notes:
        lines += len(Text(f"• {note}").wrap(shown_on, shown_on.width))
        if lines > most_lines and printed:
            break
        shown_on.print(f"• {note}", markup=False)
        printed += 1
    if printed < len(notes):
        shown_on.print(f"• {len(notes) - printed} more on the page, or with --wide", style="dim")


def show_end(shown_on: Console, result: "Comparison", timing: str, library: "Library | None" = None) -> None:
    """Print what the comparison took, and where to look further; with a `library` also the code that trains so with it."""
    from tasks import progress, spool

    left = sum(item.mlflow_run_id is None for item in (*result.strategies, *result.typed))
    if left and not spool.holds(result.comparison.mlflow_run_id):
        why = ", because you asked to end" if progress.hurried.is_set() else "; see above"
        shown_on.print(f"{left} settings were not recorded{why}.")
    shown_on.print(timing, style="dim")
    shown_on.print("Page, curves and models: batchlab ui", style="dim")
    if library is not None:
        shown_on.print(f"\n{result.verdict.code(library)}", markup=False, soft_wrap=True)


def narrow(found: "Findings") -> Table:
    """Return the table in a few narrow lines."""
    from batchlab.report.brief import HEADINGS, brief

    made = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in HEADINGS:
        words = heading in ("setting", "optimizer", "what to know")
        made.add_column(heading, justify="left" if words else "right", no_wrap=heading != "setting")
    for line in brief(found):
        made.add_row(*line.cells, style=_style(line.item is found.best, line.item.outcome.status))
    return made


def _style(recommended: bool, status: str) -> str:
    return "bold green" if recommended else {"diverged": "red", "behind": "dim"}.get(status, "")


def grid(task: "Task", items: "Sequence[StrategyResult]", width: int) -> Table:
    """Return the table, without its least important columns where there is little room, and with names folded where there is less still;
    the recommended setting is marked."""
    from batchlab.report.tables import table

    headings, rows = table(task, items)
    made = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown = _that_fit(headings, rows, width)
    for place in shown:
        words, folds = headings[place] in ("strategy", "optimizer", "status"), headings[place] in ("strategy", "optimizer")
        made.add_column(headings[place].replace(" ", "\n"), justify="left" if words else "right", no_wrap=not folds)
    for row, item in zip(rows, items, strict=True):
        made.add_row(*[row[place] for place in shown], style=_style(item.recommended, item.status))
    return made


def _that_fit(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the places of the columns to show: all, or without those that may be spared, one after the other until the rest fits."""
    from batchlab.report.tables import SPARED

    spared: list[str] = []
    for candidate in ("", *SPARED):
        spared.append(candidate)
        shown = [place for place, heading in enumerate(headings) if heading not in spared]
        needed = sum(max(*(len(word) for word in headings[place].split()), *(len(row[place]) for row in rows)) + 3 for place in shown)
        if needed <= width:
            break
    return shown


def facts(shown_on: Console, found: Mapping[str, str]) -> None:
    """Print facts, a line each."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in found.items():
        made.add_row(name, escape(value))
    shown_on.print(made)


def decisions(shown_on: Console, found: "Sequence[Decision]") -> None:
    """Print decisions on a model, the latest first: what was decided on which version, both losses, and below it the reason."""
    if not found:
        shown_on.print("no decision yet")
    for item in found:
        refused = "not " if item.decision == "kept" else ""
        parts = [f"{item.when:%Y-%m-%d %H:%M:%S}", item.decision, "" if item.version is None else f"{refused}version {item.version}"]
        if item.challenger_loss is not None:
            parts.append(f"loss {item.challenger_loss:,.6g}")
        if item.champion_loss is not None:
            parts.append(f"against the champion's {item.champion_loss:,.6g}")
        shown_on.print("  ".join(filter(None, parts)), style=STYLES.get(item.decision, ""))
        shown_on.print(Padding(escape(item.reason), (0, 0, 0, 2)))
