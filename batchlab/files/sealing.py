"""The seal of a folder: a digest of every file in it, written when it is complete and looked at when it is opened again.

It tells damage, edits and parts of other folders; who can write the folder can also write a seal.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from batchlab.errors import BadInput
from batchlab.files.received import check_plain, json_of

SEAL = "seal.json"
BLOCK_BYTES = 2**22
LAST_BYTES = 128
"""The first bytes of a file come last in its digest: a `.npy` header is known when all rows are written."""


class Digest:
    """A digest of a file (xxh3, 128 bits) that can be begun before its first bytes are known."""

    def __init__(self) -> None:
        import xxhash

        self._digest = xxhash.xxh3_128()

    def add(self, content: Any) -> None:
        """Take in what follows, after the first 128 bytes."""
        self._digest.update(content)

    def finished(self, first: bytes) -> str:
        """Return the digest of a file that begins with these 128 bytes, or is them."""
        self._digest.update(first)
        return self._digest.hexdigest()


def digest_of(path: Path) -> str:
    """Return the digest of a file."""
    digest = Digest()
    with path.open("rb") as file:
        first = file.read(LAST_BYTES)
        while block := file.read(BLOCK_BYTES):
            digest.add(block)
    return digest.finished(first)


def seal(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Write the seal of the folder's files as they are now; `known` holds digests that need not be made again."""
    digests = {path.name: (known or {}).get(path.name) or digest_of(path) for path in _files(folder)}
    facts = {name: {"digest": digest, "stamp": _stamp(folder / name)} for name, digest in sorted(digests.items())}
    (folder / SEAL).write_text(json.dumps(facts, indent=1))


def check_sealed(folder: Path, way_out: str) -> bool:
    """Raise BadInput, with the `way_out`, unless the folder holds the files that were sealed, as they were.

    Files that nobody has touched on this disk (their size, both times and inode say so; the kernel sets one of the times) are not read
    again. Returns whether all are such.
    """
    try:
        facts = json_of(folder / SEAL)
        sealed = {str(name): (str(fact["digest"]), list(fact["stamp"])) for name, fact in facts.items()}
    except BadInput as error:
        raise BadInput(f"{str(error).rstrip('.')}; {way_out}.") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise BadInput(f"'{folder / SEAL}' is no list of files and their digests; {way_out}.") from error
    held, untouched = {path.name for path in _files(folder)}, True
    if differing := held ^ sealed.keys():
        name = min(differing)
        what = "was added since it was written" if name in held else "is missing"
        raise BadInput(f"'{folder / name}' {what}; {way_out}.")
    for name, (digest, stamp) in sealed.items():
        check_plain(folder / name)
        now = _stamp(folder / name)
        if now != stamp:
            untouched = False
            if _digest_now(folder / name, tuple(now)) != digest:
                raise BadInput(f"'{folder / name}' is not as it was written: its digest is another; {way_out}.")
    return untouched


def _files(folder: Path) -> list[Path]:
    """Return what the seal is about: all but folders, hidden files, the seal, and splits, which name their own digest."""
    return [
        path
        for path in folder.iterdir()
        if not path.name.startswith((".", "split-")) and path.name != SEAL and (path.is_symlink() or not path.is_dir())
    ]


def _stamp(path: Path) -> list[int]:
    held = path.lstat()
    return [held.st_size, held.st_mtime_ns, held.st_ctime_ns, held.st_ino]


@lru_cache(maxsize=4096)
def _digest_now(path: Path, stamp: tuple[int, ...]) -> str:
    """Return the digest of a file as it is; read once a process while its stamp stays."""
    return digest_of(path)
