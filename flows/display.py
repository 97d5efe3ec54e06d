"""What the command line shows: progress while strategies train, the table of results, and where to look further."""

import time
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from batchlab.engine.records import Progress as Trained
from batchlab.results import SPARED, Comparison, remarks, table

PLAIN_WIDTH = 200
SECONDS_BETWEEN_LINES = 10.0


def console(stderr: bool = False) -> Console:
    """Return the console; where the output is no terminal its lines are wide enough not to be folded."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


class TrainingProgress:
    """Shows how far each strategy is: bars with time left in a terminal, else a line now and then."""

    def __init__(self, shown_on: Console) -> None:
        self.console = shown_on
        self.bars = Progress(
            TextColumn("{task.description:>14}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=shown_on,
            disable=not shown_on.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.began: dict[str, float] = {}
        self.done: set[str] = set()
        self.last_line = 0.0

    def __enter__(self) -> "TrainingProgress":
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()

    def __call__(self, strategy: str, progress: Trained) -> None:
        """Take note of one strategy's progress; called from the thread that trains."""
        if strategy in self.done:
            return
        if strategy not in self.tasks:
            self.tasks[strategy] = self.bars.add_task(strategy, total=progress.rows_total)
            self.began[strategy] = self.last_line = time.monotonic()
        if progress.rows_seen >= progress.rows_total:
            self.done.add(strategy)
        self.bars.update(self.tasks[strategy], completed=progress.rows_seen)
        if not self.console.is_terminal:
            self._line(strategy, progress)

    def _line(self, strategy: str, progress: Trained) -> None:
        now, seconds = time.monotonic(), time.monotonic() - self.began[strategy]
        if strategy in self.done:
            self.console.print(f"{strategy}: trained, {seconds:.1f} s")
        elif now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            share = progress.rows_seen / progress.rows_total
            self.console.print(f"{strategy}: {share:.0%} trained, {seconds * (1 - share) / share:.0f} s left")


def show_result(shown_on: Console, result: Comparison, timing: str) -> None:
    """Print the table of results, the remarks, which strategy did best, and where to look further."""
    facts = result.comparison
    headings, rows = table(facts.task, result.strategies)
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    needed = sum(max(map(len, column)) + 2 for column in zip(headings, *rows, strict=True))
    roomy = needed <= shown_on.width
    shown = [place for place, heading in enumerate(headings) if roomy or heading not in SPARED]
    for place in shown:
        words = headings[place] in ("strategy", "status")
        heading = headings[place] if roomy else headings[place].replace(" ", "\n")
        grid.add_column(heading, justify="left" if words else "right", no_wrap=True)
    for row, item in zip(rows, result.strategies, strict=True):
        grid.add_row(*[row[place] for place in shown], style="red" if item.status == "diverged" else "")
    sizes = facts.rows
    shown_on.print(f"\n{facts.task} on {facts.device}: {sizes.train:,} training, {sizes.validation:,} validation, {sizes.test:,} test rows")
    shown_on.print(grid)
    for remark in remarks(result.strategies):
        shown_on.print(f"• {remark}")
    shown_on.print(best_line(result), style="bold")
    shown_on.print(f"{timing}\nSee every curve, plot and model: batchlab ui   (MLflow run {facts.mlflow_run_id})", style="dim")


def best_line(result: Comparison) -> str:
    """Say which strategy ended with the lowest validation loss, and how far that may be trusted."""
    finished = [item for item in result.strategies if item.validation_loss is not None]
    if not finished:
        return "Every strategy diverged."
    best = min(finished, key=lambda item: float(f"{item.validation_loss:.6g}"))  # equal to six digits: the first in the table
    return (
        f"Lowest validation loss: {best.name}, batch_rows {best.batch_rows:,}, learning rate {best.learning_rate:g}. "
        "One seed each, so a small lead may be chance."
    )
