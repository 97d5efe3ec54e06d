"""The whole comparison from a notebook or a script: a data frame in, the verdict out, without Prefect or MLflow."""

import json
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from batchlab.cluster.chosen import hands_for
from batchlab.config import Profile, load_profile
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.imported import name_of
from batchlab.intake.held import Held, taken
from batchlab.models.session import named
from batchlab.report.wording import verdict_text
from batchlab.results import Verdict
from batchlab.rows.split import split
from batchlab.search.records import to_target, trials_frame, verdict_of
from batchlab.search.search import Search
from batchlab.search.space import optimizer_words
from batchlab.sources.items import FETCHES
from batchlab.table import PackedTable, pack, pack_read
from batchlab.table.writing import TooManyBadRows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. In a notebook it shows itself; `verdict` is the same record that `--json` writes."""

    search: Search
    notes: tuple[str, ...] = ()
    """What people should know of how the frame was taken."""

    @cached_property
    def verdict(self) -> Verdict:
        """The recommendation with its evidence in numbers; its notes begin with what there is to know of the rows."""
        found = verdict_of(self.search.findings, verdict_text(self.search.findings))
        said = (*self.notes, *self.search.experiment.table.notes(with_place=False))
        return found.model_copy(update={"notes": (*said, *found.notes)})

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
        found = replace(self.search.findings, notes=(*self.notes, *self.search.findings.notes))
        return page(found, title=title, unit=unit, facts=facts, tracking_seconds={}, links={}, experiment=experiment)

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
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.verdict.notes)
        rows = self.to_frame()[columns].to_html(index=False, float_format=lambda value: f"{value:.4g}", na_rep="–")
        return f"<p>{shown}</p>{f'<ul>{notes}</ul>' if notes else ''}{rows}"

    def __repr__(self) -> str:
        return "\n".join([self.verdict.text, *(f"• {note}" for note in self.verdict.notes)])


def compare(
    frame: Any,
    target: Any = None,
    *,
    model: Any = None,
    loss: Any = None,
    plain: Any = None,
    fetches: int = FETCHES,
    profile: str = "quick",
    task: str | None = None,
    strategies: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    max_minutes: float | None = None,
    seed: int | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Find the strategy, batch size and learning rate to train with on the rows of `frame`, and return the evidence.

    `frame` is a pandas DataFrame, a polars or Arrow table (or what speaks Arrow's protocol), with the name of its `target`; or it is an
    array `[rows, …]` of numpy or torch, and `target` the values `[rows]`; or a data set, torch's or Hugging Face's, whose items are
    fetched once (`target` is then the key of a dict's, or left out). Where they differ each time (an augmentation), trainings see
    `fetches` versions of each in turn, and losses are told by the items of `plain`, the data set without it. A frame's index of dates
    becomes the time column, and its rows are then split by time, unless the settings say otherwise; another index that has a name is a
    column.

    `model` is `"linear"`, `"mlp"`, or a network of your own: an nn.Module, what makes one of (features, outputs), or the name of that,
    `"package.module:function"`. A module's layers draw their weights anew for every training. It takes an array's rows in their shape,
    which stands in place of features where it is made, and integers as such (tokens); other models take them flat.

    `loss` is one of the names in the settings (`"huber"`), or your own: a function of (predictions, target) `[rows]`, both in the target's
    unit, that returns a loss `[rows]` for every row; of classes it gets logits `[rows, classes]` and their numbers.

    `overrides` are settings as `key=value`, for example `"model.kind=mlp"`; `max_minutes` bounds the search. `progress` shows a bar in the
    cell or the terminal; left out, it does where there is one. An interruption ends the search with the verdict of what is known. Raises
    BadInput for a column, task or setting that does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="batchlab-") as folder:
        held = taken(frame, target, plain, fetches, seed or 0, Path(folder))
        path, given = Path(folder) / "frame.parquet", [overrides] if isinstance(overrides, str) else list(overrides)
        given = [*_model_settings(model, held), *_loss_settings(loss), *given]
        given += [] if max_minutes is None else [f"search.max_minutes={max_minutes}"]
        choices: dict[str, Any] = {"data": str(path), "target": held.target, "task": task, "strategies": strategies, "seed": seed}
        settings = load_profile(profile, overrides=given, **choices)
        by_time, said = _by_time(held, settings, _split_is_asked(settings, profile, given))
        settings = load_profile(profile, overrides=[*given, *by_time], **choices) if by_time else settings
        table = _packed(held, settings, path)
        experiment = Experiment(settings, table, split(table, settings.split, settings.seed), items=held.items)
        experiment.check()
        # what is memory-mapped stays readable when the folder is gone; what is read from its files is read now
        _ = table.features, table.target, table.history, experiment.data, experiment.leaks, experiment.portrait
        return Comparison(_searched(experiment, progress), (*said, *held.notes))


def _model_settings(model: Any, held: Held) -> list[str]:
    """Return the settings that name a model; one of the user's own takes an array's rows in their shape, and integers as such."""
    if model is None or (isinstance(model, str) and ":" not in model):
        return [] if model is None else [f"model.kind={model}"]
    if held.gaps and held.shape is not None and len(held.shape) > 1:
        what = "X holds" if held.reading is None else "the data set's items hold"
        raise BadInput(f"{what} {held.gaps}; fill them or drop these rows: a module takes rows of the shape {held.shape} without gaps.")
    shape = held.shape if held.shape is not None and (len(held.shape) > 1 or held.integers) else None
    of_rows = [] if shape is None else [f"model.shape={list(shape)}"]
    tokens = ["model.integers=true"] if held.integers else []
    return ["model.kind=custom", f"model.factory={json.dumps(named(model))}", *of_rows, *tokens]


def _loss_settings(loss: Any) -> list[str]:
    if loss is None or isinstance(loss, str):
        return [] if loss is None else [f"train.loss={json.dumps(loss)}"]
    if not callable(loss):
        raise BadInput(f"loss is {type(loss).__name__}; give a function of (predictions, target), a name, or 'package.module:function'.")
    return [f"train.loss={json.dumps(name_of(loss))}"]


def _packed(held: Held, settings: Profile, path: Path) -> PackedTable:
    """Pack what is held, a frame by way of a file; where too many rows are bad, they are kept when the folder is gone."""
    columns, tables = settings.named_columns(), path.parent / "tables"
    try:
        if held.reading is not None:
            return pack_read(held.reading, path.stem, columns, tables, settings.checks)
        held.write(path, settings.columns.drop)
        return pack(settings.source, columns, tables, settings.seed, settings.checks)
    except TooManyBadRows as error:
        if error.kept is None or not error.kept.exists():
            raise
        readable = Path(tempfile.gettempdir()) / f"batchlab-{error.kept.name}"  # one file a frame: the name holds its digest
        shutil.copyfile(error.kept, readable)
        raise TooManyBadRows(str(error).replace(str(error.kept), str(readable)), readable) from None


def _split_is_asked(settings: Profile, profile: str, overrides: Sequence[str]) -> bool:
    """Whether somebody chose how rows are divided; the shipped profiles' random split is nobody's choice."""
    if settings.split.kind != "random" or any(override.partition("=")[0].strip() == "split.kind" for override in overrides):
        return True
    return profile.endswith(".toml") and "kind" in settings.split.model_fields_set


def _by_time(held: Held, settings: Profile, split_asked: bool) -> tuple[list[str], list[str]]:
    """Return the settings with which an index of dates orders the rows and divides them, where nothing else was said, and a note on it."""
    name, own = held.time, settings.columns
    if name is None or own.time is not None or name in (*own.drop, *own.categorical, own.group, own.key, held.target):
        return [], []
    chosen = [f"columns.time={json.dumps(name, ensure_ascii=False)}"]
    note = f"the frame's index '{name}' holds dates and is the time column"
    if split_asked:
        return chosen, [f"{note}; the split is {settings.split.kind}, as asked for"]
    how = "the earliest rows train, the latest validate and test"
    ways = "for a random split: overrides=['split.kind=random']; without the dates: frame.reset_index(drop=True)"
    return [*chosen, "split.kind=chronological"], [f"{note}, so rows are split by time (chronological): {how}; {ways}"]


def _searched(experiment: Experiment, progress: bool | None) -> Search:
    """Run a search to its end, with a bar where somebody looks; the first interruption ends it with what is known."""
    from tqdm.auto import tqdm

    search = Search(experiment, hands=hands_for(experiment))
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
