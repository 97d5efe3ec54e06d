"""Where rows come from, one file a source; a new file is found on arrival."""

import re
from pathlib import Path
from typing import Any, get_args

from batchlab.errors import BadInput, nearest
from batchlab.records import discover
from batchlab.sources.arrays import Arrays
from batchlab.sources.arrow import Arrow
from batchlab.sources.base import Source
from batchlab.sources.bundled import Name
from batchlab.sources.csv import Csv
from batchlab.sources.files import FileSource
from batchlab.sources.parquet import Parquet
from batchlab.sources.places import FILE_SCHEMES, Place, scheme, without_password

DATA_SET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""What makes a data set: `package.module:function`."""
SOURCES = discover(__name__, Source)
FILES: tuple[type[FileSource], ...] = (Parquet, Arrow, Csv, Arrays)


def located(data: str) -> dict[str, Any]:
    """Return the source's settings for what a user wrote after `--data`.

    That is a bundled name, `synthetic`, a file, a folder or a pattern, the URL of one in an object store, the URL of a database, or
    `package.module:function`, which makes a data set.
    """
    bundled = get_args(Name)
    if data in bundled:
        return {"kind": "bundled", "dataset": data}
    if data == "synthetic":
        return {"kind": "synthetic"}
    if DATA_SET.fullmatch(data) and not Path(data).exists():
        return {"kind": "dataset", "factory": data}
    if not data:
        raise BadInput("--data is empty; give a file, a folder, a URL, or the name of a bundled data set.")
    if scheme(data) in FILE_SCHEMES or scheme(data) is None:
        return {"kind": _kind_of(data, [*bundled, "synthetic"]), "path": data}
    _check_database(data)
    return {"kind": "sql", "url": data}


def _kind_of(data: str, names: list[str]) -> str:
    """Return the kind of source for a file by its ending, or for a folder or pattern by the endings of what it holds."""
    ending = _by_ending(data)
    if ending is not None:
        return ending
    try:
        found = Place.of(data).found(tuple(ending for kind in FILES for ending in kind.endings))
    except BadInput as error:
        if scheme(data) is None and "does not exist" in str(error):
            raise BadInput(f"'{data}' is no file, no folder and no bundled data set{nearest(data, names)}") from error
        raise
    kinds = {kind: sum(_by_ending(file.path) == kind for file in found) for kind in ("parquet", "arrow", "csv", "arrays")}
    held = [kind for kind, count in kinds.items() if count]
    if "csv" in held and len(held) > 1 and all(file.path.lower().endswith(".txt") for file in found if _by_ending(file.path) == "csv"):
        held.remove("csv")  # notes beside the data
    if len(held) == 1:
        return held[0]
    if not held:
        raise BadInput(f"'{data}' has none of the endings of tables ({_endings()}); rename it, or convert it to one of these.")
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in held)
    raise BadInput(
        f"'{data}' holds files of several kinds ({counts}); choose some with a pattern, such as '{data.rstrip('/')}/*.{held[0]}'."
    )


def _by_ending(path: str) -> str | None:
    lower = path.lower().split("?")[0] if scheme(path) else path.lower()
    return next((str(kind.model_fields["kind"].default) for kind in FILES if lower.endswith(kind.endings)), None)


def _endings() -> str:
    return ", ".join(ending for kind in FILES for ending in kind.endings)


def _check_database(url: str) -> None:
    """Raise BadInput for a URL whose scheme is neither of files nor of a database."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    kind = (scheme(url) or "").split("+")[0]
    try:
        if kind not in {"postgres", "postgresql"}:  # the driver is chosen when it is read
            make_url(url).get_dialect()
    except (SQLAlchemyError, ValueError, ImportError) as error:
        known = ", ".join(f"{name}://" for name in (*FILE_SCHEMES, "sqlite", "postgresql"))
        raise BadInput(f"'{without_password(url)}' has a scheme that nothing here reads; known are {known}.") from error


__all__ = ["SOURCES", "Source", "located"]
