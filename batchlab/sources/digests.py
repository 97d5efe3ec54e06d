"""What files hold, as a digest, and a memory of it: a file that was read once is not read again until it changes."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchlab.errors import BadInput
from batchlab.files.received import json_of
from batchlab.sources.places import FoundFile, Place

BLOCK_BYTES = 1 << 22
SETTLED_NS = 2_000_000_000
"""A file written within this time before it was looked at may be written again without its times changing (coarse clocks)."""

Findings = dict[str, Any]


class Memory:
    """Findings about files, kept as JSON in a folder; a file is recognised by its path and by what changes when it is written.

    A local file's size, both its times and its inode must be the same. Its ctime is set by the kernel at every change and by no
    user, so that `touch -d` after a change does not deceive. Stores whose times a user can set (HDFS, say) are read every time.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "files.json"
        self._held: dict[str, Any] = _loaded(self._path)
        self._new: dict[str, Any] = {}

    def recalled(self, place: Place, file: FoundFile, what: str, find_out: Callable[[], Findings]) -> Findings:
        """Return what is known about the file, or find it out and remember it unless the file was written a moment ago."""
        key = f"{what}:{place.filesystem.type_name}:{file.path}"
        held = self._held.get(key)
        if isinstance(held, dict) and held.get("stamp") == list(file.stamp) and isinstance(held.get("findings"), dict):
            return dict(held["findings"])
        settled = len(file.stamp) > 1 and time.time_ns() - max(file.stamp[1:3]) > SETTLED_NS
        findings = find_out()
        trusted = place.filesystem.type_name in {"local", "s3", "gcs"}
        if trusted and settled and place.stamp(file.path) == file.stamp:
            self._held[key] = self._new[key] = {"stamp": list(file.stamp), "findings": findings}
        return findings

    def keep(self) -> None:
        """Write what is new beside the old, then rename; of two writers at once the later wins, the other's files are read again."""
        if not self._new:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=".files-", dir=self._path.parent)
        with os.fdopen(handle, "w") as file:
            held = {**_loaded(self._path), **self._new}
            json.dump({"files": held, "digest": joint_digest(held)}, file)
        os.replace(draft, self._path)
        self._new = {}


def _loaded(path: Path) -> dict[str, Any]:
    try:
        held = json_of(path)
        return dict(held["files"]) if joint_digest(held["files"]) == held["digest"] else {}
    except (BadInput, KeyError, TypeError, ValueError):
        return {}  # it is a memory, not a record: without it files are read again


def content_digest(place: Place, file: FoundFile) -> str:
    """Return a digest of the file's bytes (xxh3, 128 bits), read in blocks."""
    import xxhash

    digest = xxhash.xxh3_128()
    with place.filesystem.open_input_stream(file.path, compression=None) as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def joint_digest(*parts: object) -> str:
    """Return a digest of the parts' JSON: of settings, names and digests together."""
    import xxhash

    return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True, default=str).encode())
