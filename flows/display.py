"""What the command line shows: progress while strategies train, the table of results, and where to look further."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from batchlab.report.tables import SPARED, remarks, table
from batchlab.results import Comparison, StrategyResult
from batchlab.table.target import Task

if TYPE_CHECKING:
    from tasks.history import Decision

PLAIN_WIDTH = 200
STYLES = {"first": "green", "promoted": "green", "rollback": "yellow", "by_hand": "yellow", "kept": "dim"}
SECONDS_BETWEEN_LINES = 10.0


def console(stderr: bool = False) -> Console:
    """Return the console; where the output is no terminal its lines are wide enough not to be folded."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


class SearchProgress:
    """Shows how far the search is: a bar with the time left in a terminal, else a line now and then."""

    def __init__(self, shown_on: Console) -> None:
        self.console = shown_on
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=shown_on,
            disable=not shown_on.is_terminal,
            transient=True,
        )
        self.task: TaskID | None = None
        self.last_line = time.monotonic()

    def __enter__(self) -> "SearchProgress":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def moved(self, label: str, share: float) -> None:
        """Take note of the part under way and of the share done; called from the thread that trains."""
        if self.task is None:
            self.task = self.bar.add_task(label, total=1.0)
        self.bar.update(self.task, completed=share, description=f"{label:<78.78}")
        if not self.console.is_terminal and time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self.console.print(f"{share:.0%}: {label}")

    def announced(self, text: str) -> None:
        """Print a sentence above the bar."""
        self.console.print(text)


def show_result(shown_on: Console, result: Comparison, timing: str) -> None:
    """Print the table of settings, what people type, the remarks, the verdict, and where to look further."""
    facts, sizes = result.comparison, result.comparison.rows
    shown_on.print(f"\n{facts.task} on {facts.device}: {sizes.train:,} training, {sizes.validation:,} validation, {sizes.test:,} test rows")
    shown_on.print(grid(facts.task, [*result.strategies, *result.typed], shown_on.width))
    whole = not shown_on.is_terminal  # a terminal folds between words, a file holds lines as they are
    for remark in [*remarks([*result.strategies, *result.typed]), *result.verdict.notes]:
        shown_on.print(f"• {remark}", soft_wrap=whole)
    shown_on.print()
    for number, line in enumerate(result.verdict.text.splitlines()):
        shown_on.print(line, style="bold" if number < 2 else "", soft_wrap=whole)
    shown_on.print(f"\n{timing}\nSee the page, every curve and model: batchlab ui   (MLflow run {facts.mlflow_run_id})", style="dim")


def grid(task: Task, items: Sequence[StrategyResult], width: int) -> Table:
    """Return the table, without its least important columns where there is little room, and with names folded where there is less still;
    the recommended setting is marked."""
    headings, rows = table(task, items)
    made = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown = _that_fit(headings, rows, width)
    for place in shown:
        words, folds = headings[place] in ("strategy", "optimizer", "status"), headings[place] in ("strategy", "optimizer")
        made.add_column(headings[place].replace(" ", "\n"), justify="left" if words else "right", no_wrap=not folds)
    for row, item in zip(rows, items, strict=True):
        style = "bold green" if item.recommended else {"diverged": "red", "behind": "dim"}.get(item.status, "")
        made.add_row(*[row[place] for place in shown], style=style)
    return made


def _that_fit(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the places of the columns to show: all, or without those that may be spared, one after the other until the rest fits."""
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
    """Print decisions on a model as a table, the latest first."""
    if not found:
        shown_on.print("no decision yet")
        return
    made = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("when (UTC)", "decision", "version", "champion", "champion's loss", "challenger's loss"):
        made.add_column(heading.replace(" ", "\n"), justify="left" if heading in ("when (UTC)", "decision") else "right", no_wrap=True)
    made.add_column("reason", overflow="fold")
    for item in found:
        numbers = (
            "–" if value is None else f"{value:,.6g}" for value in (item.version, item.champion, item.champion_loss, item.challenger_loss)
        )
        made.add_row(f"{item.when:%Y-%m-%d %H:%M:%S}", item.decision, *numbers, escape(item.reason), style=STYLES.get(item.decision, ""))
    shown_on.print(made)
