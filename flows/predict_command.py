"""`batchlab predict`: a prediction for every row of a table, by a registered model."""

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from flows import local_server, options

if TYPE_CHECKING:
    from batchlab.sources import Source


def predict(
    data: Annotated[str, typer.Option(help="The rows: a path, a glob, a folder, a URL, or a bundled data set, as for `compare`.")],
    out: Annotated[str, typer.Option(help="The file to write: .parquet, .csv or .csv.gz; an older one is replaced when all is written.")],
    model: options.Model = None,
    version: Annotated[str, typer.Option(help="champion, challenger, previous, another alias, or a number.")] = "champion",
    keep: Annotated[str | None, typer.Option(help="Columns of the data to write before the predictions, with commas between.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="source.KEY=VALUE, e.g. source.table=orders.")] = None,
) -> None:
    """Write a prediction for every row, with the version and run of the model that made it."""
    from batchlab.scoring.scored_file import checked_place

    os.environ.update(local_server.QUIET)
    began = time.perf_counter()
    checked_place(out)
    source = _source(data, settings or [])
    rows, without, signature, seconds = _scored(source, out, model, version, options.separated(keep or ""))
    rate = f"{rows / max(seconds, 1e-9):,.0f} rows/s in {seconds:.1f} s"
    absent = f" ({without:,} of them have too few rows before them, and no prediction)" if without else ""
    typer.echo(f"{rows:,} rows{absent} predicted by {signature} into {out}: {rate}, {time.perf_counter() - began:.1f} s with loading.")


def _source(data: str, settings: list[str]) -> "Source":
    """Return where the rows are; `settings` are the source's own, as `compare` takes them."""
    from batchlab.config import load_profile
    from batchlab.errors import BadInput

    for setting in settings:
        if not setting.startswith("source."):
            raise BadInput(f"--set here takes settings of the source, for example source.table=orders; got '{setting}'.")
    return load_profile(data=data, overrides=settings).source


def _scored(source: "Source", out: str, name: str | None, which: str, keep: list[str]) -> tuple[int, int, str, float]:
    """Score the rows with a bar on the terminal; return how many, how many without a prediction, who predicted, and the seconds it took."""
    from batchlab.scoring.predictions import scored
    from flows.display import SearchProgress, console
    from tasks import registry, serving, store

    version = registry.version_of(name, which)
    signature = f"'{version.name}' version {version.number} (run {version.run_id})"
    with SearchProgress(console(stderr=True)) as bar:
        bar.moved(f"loading {version.name} version {version.number}", 0.0)
        model = serving.saved_model(version)
        began = time.perf_counter()
        rows, without = scored(model, source, out, store.tables() / ".reading", keep, bar.moved)
    return rows, without, signature, time.perf_counter() - began
