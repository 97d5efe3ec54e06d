"""Options that several commands share, and what they mean as settings of a profile."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from batchlab.config import Profile

Data = Annotated[
    str | None,
    typer.Option(help="A bundled data set (diabetes, breast_cancer, digits, wine), `synthetic`, a path, a glob, a folder or a URL."),
]
Target = Annotated[str | None, typer.Option(help="The column to predict.")]
TaskOfTarget = Annotated[str | None, typer.Option(help="regression, binary or multiclass; else inferred from the target.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE on top of the profile, e.g. train.epochs=200.")]
Drop = Annotated[str | None, typer.Option(help="Columns to leave out, with commas between (names with commas: --set 'columns.drop=[…]').")]
Categorical = Annotated[str | None, typer.Option(help="Columns to take as categories, with commas between.")]
TimeColumn = Annotated[str | None, typer.Option(help="The column that orders the rows in time, for chronological splits.")]
Window = Annotated[
    int | None, typer.Option(help="See so many rows at once: a row and those before it, of its group, in the order of time.")
]
Horizon = Annotated[int | None, typer.Option(help="With --window: predict the target so many rows later (default 1).")]
Missing = Annotated[
    list[str] | None, typer.Option(help="What stands for a missing value, such as -999; give the option again for several.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result there as JSON.")]
NoServer = Annotated[bool, typer.Option("--no-server", help="Use Prefect's own temporary server (slower to start).")]
Model = Annotated[str | None, typer.Option("--model", help="The registered model; needed only where there are several.")]


def column_overrides(
    drop: str | None,
    categorical: str | None,
    time_column: str | None,
    group_column: str | None = None,
    missing: Sequence[str] | None = None,
    window: int | None = None,
    horizon: int | None = None,
) -> list[str]:
    """Return the options on columns as key=value; a time or group column also chooses the split that needs it, and a window the one in the
    order of time."""
    lists = {"drop": drop, "categorical": categorical}
    given = [f"columns.{key}={json.dumps(separated(names), ensure_ascii=False)}" for key, names in lists.items() if names is not None]
    if missing:
        given.append(f"columns.missing={json.dumps(list(missing), ensure_ascii=False)}")
    for key, name, kind in (("time", time_column, "chronological"), ("group", group_column, "group")):
        if name is not None:
            given += [f"columns.{key}={json.dumps(name, ensure_ascii=False)}", f"split.kind={kind}"]
    if window is not None:
        given += [f"columns.window.rows={window}", "split.kind=chronological"]
    elif horizon is not None:
        from batchlab.errors import BadInput

        raise BadInput(f"--horizon {horizon} says how far ahead a window of rows predicts; give --window, too.")
    if horizon is not None:
        given.append(f"columns.window.horizon={horizon}")
    return given


SHORT = {"search.objective": "--objective", "search.target_loss": "--target-loss", "search.max_minutes": "--max-minutes"}
"""Keys of the search that have an option of their own."""


def named(message: str) -> str:
    """Return what is wrong with a key beside the option that is short for it, which is what was typed."""
    key = message.partition(":")[0]
    return f"{SHORT[key]} ({key}){message.removeprefix(key)}" if key in SHORT else message


def separated(names: str) -> list[str]:
    """Return names that were written with commas between."""
    return [name.strip() for name in names.split(",") if name.strip()]


def check_early(settings: "Profile", json_file: Path | None) -> None:
    """Refuse what can be refused before anything is started: columns, the store, the place of the JSON file."""
    from batchlab.table.columns import check_columns
    from tasks import store

    schema = settings.source.peek()
    if schema is not None:
        check_columns(schema, settings.named_columns())
    if json_file is not None:
        _check_place(json_file)
    store.check_ready()


def _check_place(json_file: Path) -> None:
    from batchlab.errors import BadInput

    folder = json_file.resolve().parent
    if not folder.is_dir():
        raise BadInput(f"--json: folder '{folder}' does not exist; make it first.")
    if json_file.is_dir():
        raise BadInput(f"--json: '{json_file}' is a folder; name a file in it.")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"--json: folder '{folder}' cannot be written; name a file elsewhere.")


def write_json(json_file: Path | None, text: str) -> None:
    """Write the result as JSON where it was asked for, whole or not at all."""
    if json_file is not None:
        draft = json_file.with_name(f".{json_file.name}.part")
        draft.write_text(text + "\n")
        draft.replace(json_file)
