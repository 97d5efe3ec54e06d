"""Where rows come from, one file a source; a new file is found on arrival."""

from pathlib import Path
from typing import Any, get_args

from batchlab.errors import BadInput, nearest
from batchlab.records import discover
from batchlab.sources.base import Source
from batchlab.sources.bundled import Name

SOURCES = discover(__name__, Source)


def located(data: str) -> dict[str, Any]:
    """Return the source's settings for what a user wrote after `--data`: a bundled name, `synthetic`, a file or a folder."""
    bundled = get_args(Name)
    if data in bundled:
        return {"kind": "bundled", "dataset": data}
    if data == "synthetic":
        return {"kind": "synthetic"}
    if not data:
        raise BadInput("--data is empty; give a file, a folder, or the name of a bundled data set.")
    path = Path(data)
    if path.is_dir() or path.suffix.lower() in {".parquet", ".pq"}:
        return {"kind": "parquet", "path": path}
    if path.suffix.lower() == ".csv":
        return {"kind": "csv", "path": path}
    if path.exists():
        raise BadInput(f"'{data}' is neither .csv nor .parquet; rename it, or convert it to one of the two.")
    raise BadInput(f"'{data}' is no file, no folder and no bundled data set{nearest(data, [*bundled, 'synthetic'])}")


__all__ = ["SOURCES", "Source", "located"]
