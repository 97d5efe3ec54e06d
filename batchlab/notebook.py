"""The whole comparison from a notebook or a script: a data frame in, the verdict out, without Prefect or MLflow."""

import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from batchlab.config import load_profile
from batchlab.experiment import Experiment
from batchlab.report.wording import verdict_text
from batchlab.results import Verdict
from batchlab.search.records import to_target, trials_frame, verdict_of
from batchlab.search.search import Search
from batchlab.search.space import optimizer_words
from batchlab.split import split
from batchlab.table import pack

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. In a notebook it shows itself; `verdict` is the same record that `--json` writes."""

    search: Search

    @cached_property
    def verdict(self) -> Verdict:
        """The recommendation with its evidence in numbers."""
        return verdict_of(self.search.findings, verdict_text(self.search.findings))

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a setting, those that people type by default last; losses are in the target's unit."""
        import pandas as pd

        found = self.search.findings
        return pd.DataFrame(
            {
                "setting": item.candidate.label,
                "strategy": item.candidate.name,
                "batch_rows": item.candidate.batch_rows,
                "optimizer": optimizer_words(item.candidate.optimizer),
                "learning_rate": item.learning_rate,
                "recommended": item is found.best,
                **to_target(item),
            }
            for item in (*found.settings, *found.typed)
        )

    def trials(self) -> "pd.DataFrame":
        """Return every training of the search, one row each, with its curve."""
        return trials_frame(self.search.known, self.search.experiment.loss_unit)

    def plot(self) -> "Figure":
        """Draw the verdict: what each setting takes, and the curves behind it."""
        from batchlab.report.pictures import overview

        return overview(self.search.findings, self.search.experiment.loss_unit_name)

    def save(self, path: str | Path) -> Path:
        """Write the whole report there as one HTML page."""
        place = Path(path)
        place.write_text(self.page())
        return place

    def page(self) -> str:
        """Return the whole report as one HTML page."""
        from batchlab.report.page import page

        experiment = self.search.experiment
        schema, sizes = experiment.table.schema, experiment.split.sizes()
        facts = {"task": schema.target.task, "device": str(experiment.device), **{part: f"{rows:,} rows" for part, rows in sizes.items()}}
        title, unit = f"{schema.target.name} of {schema.source}", experiment.loss_unit_name
        return page(self.search.findings, title=title, unit=unit, facts=facts, tracking_seconds={}, links={}, experiment=experiment)

    def _repr_html_(self) -> str:
        """Show the verdict and the table in a notebook."""
        from html import escape

        lines = self.verdict.text.splitlines()
        shown = "<br>".join(f"<b>{escape(line)}</b>" if number < 2 else escape(line) for number, line in enumerate(lines))
        columns = [
            "setting",
            "batch_rows",
            "optimizer",
            "learning_rate",
            "recommended",
            "status",
            "mean_validation_loss",
            "mean_test_loss",
            "seconds_to_target",
        ]
        return f"<p>{shown}</p>{self.to_frame()[columns].to_html(index=False, float_format=lambda value: f'{value:.4g}', na_rep='–')}"

    def __repr__(self) -> str:
        return self.verdict.text


def compare(
    frame: "pd.DataFrame",
    target: str,
    *,
    profile: str = "quick",
    task: str | None = None,
    strategies: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Find the strategy, batch size and learning rate to train with on the rows of `frame`, and return the evidence.

    `overrides` are settings as `key=value`, for example `"model.kind=mlp"` or `"search.max_minutes=2"`. `progress` shows a bar in the
    cell or the terminal; left out, it does where there is one. An interruption ends the search with the verdict of what is known. Raises
    BadInput for a column, task or setting that does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="batchlab-") as folder:
        path = Path(folder) / "frame.parquet"
        _written(frame, path)
        target, overrides = str(target), [overrides] if isinstance(overrides, str) else list(overrides)
        settings = load_profile(profile, data=str(path), target=target, task=task, strategies=strategies, overrides=overrides, seed=seed)
        table = pack(settings.source, settings.named_columns(), Path(folder) / "tables", settings.seed, settings.checks)
        experiment = Experiment(settings, table, split(table, settings.split, settings.seed))
        experiment.check()
        # what is memory-mapped stays readable when the folder is gone; what is read from its files is read now
        _ = table.features, table.target, experiment.data, experiment.leaks, experiment.portrait
        return Comparison(_searched(experiment, progress))


def _written(frame: "pd.DataFrame", path: Path) -> None:
    """Write the frame where it can be packed; its index is no column."""
    import pyarrow as pa

    from batchlab.errors import BadInput

    if not hasattr(frame, "to_parquet"):
        raise BadInput(f"batchlab.compare takes a pandas DataFrame, not {type(frame).__name__}.")
    try:
        frame.rename(columns=str).to_parquet(path, index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise BadInput(f"the frame cannot be read as a table: {error}") from error


def _searched(experiment: Experiment, progress: bool | None) -> Search:
    """Run a search to its end, with a bar where somebody looks; the first interruption ends it with what is known."""
    from tqdm.auto import tqdm

    search = Search(experiment)
    hidden = None if progress is None else not progress  # None: hidden where there is no terminal
    if "ipykernel" in sys.modules:
        hidden = progress is False
    form = "{desc:<40.40} {percentage:3.0f}%|{bar}| {elapsed}"
    with _interruptible(search), tqdm(total=1.0, disable=hidden, leave=False, bar_format=form) as bar:
        for part in search.parts():
            bar.set_description_str(part.label)
            part.run()
            bar.update(search.share - bar.n)
    return search


@contextmanager
def _interruptible(search: Search) -> Iterator[None]:
    """Let the first interruption end the search with what is known, between two runs of steps; a second one, and one before anything is
    known, end it at once. Other threads than the main one, and those who handle interruptions themselves, are left alone."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        if not search.stopped():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
