"""Where files are: a local path or the URL of an object store, what is found there, and how it looked when it was found."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchlab.errors import BadInput

if TYPE_CHECKING:
    from pyarrow import fs

FILE_SCHEMES = ("file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_PASSWORD = re.compile(r"(://[^/@:\s]*:)[^/\s]*@")
_SECRET = re.compile(r"([?&][^=&\s]*(?:password|passwd|pwd|secret|token|key)[^=&\s]*=)[^&\s']*", re.IGNORECASE)
_WILD = re.compile(r"[*?\[]")
_WILD_PARTS = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}


def scheme(text: str) -> str | None:
    """Return the scheme of a URL in lower case, or None for a path."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else None


_VARIABLE = re.compile(r"(?::|[?&][^=&\s]*=)?\$\{\w+\}")


def without_password(text: str) -> str:
    """Return the text with every password and key of a URL in it as `***`."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def check_no_password(text: str) -> None:
    """Raise BadInput for a URL with a password written out: Prefect and shells keep what they are given."""
    named = _VARIABLE.sub("", text)
    if without_password(named) != named:
        raise BadInput(
            f"'{without_password(text)}' holds a password, which Prefect's records and the shell's history would keep; "
            "write ${NAME} in its place and set that variable, or use PGPASSWORD."
        )


class NoTable(Exception):
    """Content that is no table; `Place.readable` makes it a BadInput that says which file."""


@dataclass(frozen=True)
class FoundFile:
    """A file as it was found: its path on the file system, its name below the root, its bytes, and what changes when it is written."""

    path: str
    name: str
    size: int
    stamp: tuple[int, ...]
    """`(size, mtime_ns)`, and `(…, ctime_ns, inode)` of a local file."""


@dataclass(frozen=True)
class Place:
    """A file, a folder or a pattern on a file system."""

    filesystem: "fs.FileSystem"
    path: str
    shown: str
    """What the user wrote, without a password."""

    @classmethod
    def of(cls, text: str) -> "Place":
        """Return the place of a path or URL; raises BadInput for a scheme that is unknown or whose store cannot be reached."""
        import pyarrow as pa
        from pyarrow import fs

        shown = without_password(text)
        if scheme(text) is None:
            return cls(fs.LocalFileSystem(), str(Path(text).absolute()), shown)
        try:
            filesystem, path = fs.FileSystem.from_uri(text)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadInput(f"'{shown}' cannot be opened: {_first_line(error)}; known are {', '.join(FILE_SCHEMES)}, and paths.") from error
        return cls(filesystem, path, shown)

    @property
    def is_local(self) -> bool:
        """Whether the files are on a disk of this machine."""
        return bool(self.filesystem.type_name == "local")

    def found(self, endings: tuple[str, ...]) -> list[FoundFile]:
        """Return the file, or the files of the folder that end so, or those that the pattern names, sorted by name.

        Raises BadInput when there is none. Names that begin with `.` or `_` are left out, as everybody who writes tables expects.
        """
        from pyarrow import fs

        with self.readable("files"):
            info = self.filesystem.get_file_info(self.path)
            if info.type == fs.FileType.File:
                return [self._found(info, "")]
            if info.type == fs.FileType.Directory:
                files = self._below(self.path, re.compile(".*(" + "|".join(map(re.escape, endings)) + ")", re.IGNORECASE))
                if not files:
                    raise BadInput(f"folder '{self.shown}' holds no {', '.join(endings)} file; give a folder with at least one.")
                return files
            if _WILD.search(self.path):
                return self._matching()
        where = f" (looked in {Path.cwd()})" if self.is_local and not Path(self.shown).is_absolute() else ""
        raise BadInput(f"'{self.shown}' does not exist{where}; give a file, a folder, or the name of a bundled data set.")

    def stamp(self, path: str) -> tuple[int, ...]:
        """Return what changes when the file is written; empty when it is gone."""
        if self.is_local:
            try:
                held = Path(path).stat()
            except FileNotFoundError:
                return ()
            return held.st_size, held.st_mtime_ns, held.st_ctime_ns, held.st_ino
        info = self.filesystem.get_file_info(path)
        return (info.size, info.mtime_ns or 0) if info.is_file else ()

    @contextmanager
    def readable(self, kind: str, path: str | None = None) -> Iterator[None]:
        """Raise BadInput, naming the file, for whatever is raised about content that cannot be read."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError, NoTable) as error:
            shown = self.shown_path(path) if path else self.shown
            raise BadInput(f"'{shown}' cannot be read as {kind}: {_first_line(error)}") from error

    def shown_path(self, path: str) -> str:
        """Return a file's path as the user would write it."""
        if self.is_local and Path(self.shown).is_absolute():
            return path
        if path == self.path or not path.startswith(self.path.rstrip("/") + "/"):
            return self.shown if path == self.path else path
        return self.shown.rstrip("/") + path[len(self.path.rstrip("/")) :]

    def _matching(self) -> list[FoundFile]:
        """Return the files that a pattern names: `*` and `?` within a folder's name, `**` over any depth."""
        parts = self.path.split("/")
        fixed = next(position for position, part in enumerate(parts) if _WILD.search(part))
        root = "/".join(parts[:fixed]) or "/"
        files = self._below(root, _pattern("/".join(parts[fixed:])))
        if not files:
            raise BadInput(f"'{self.shown}' matches no file; `*` stands for part of a name, `**` for folders of any depth.")
        return files

    def _below(self, root: str, wanted: re.Pattern[str]) -> list[FoundFile]:
        from pyarrow import fs

        prefix = root.rstrip("/") + "/"
        wide = list(_local_files(root)) if self.is_local else fs.FileSelector(root, recursive=True, allow_not_found=True)
        infos = self.filesystem.get_file_info(wide)
        named = sorted((info.path[len(prefix) :], info) for info in infos if info.type == fs.FileType.File)
        hidden = re.compile(r"(^|/)[._]")
        return [self._found(info, name) for name, info in named if wanted.fullmatch(name) and not hidden.search(name)]

    def _found(self, info: Any, name: str) -> FoundFile:
        return FoundFile(info.path, name, info.size or 0, self.stamp(info.path))


def _local_files(root: str) -> Iterator[str]:
    """Yield the files below a folder, links followed: each folder once, since links may lead in circles."""
    seen = set[tuple[int, int]]()
    for folder, below, names in os.walk(root, followlinks=True):
        held = os.stat(folder)
        if (held.st_dev, held.st_ino) in seen:
            below.clear()
            continue
        seen.add((held.st_dev, held.st_ino))
        below.sort()
        yield from (f"{folder.rstrip('/')}/{name}" for name in names)


def _pattern(wild: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", wild)
    return re.compile("".join(_WILD_PARTS.get(piece, piece if position % 2 else re.escape(piece)) for position, piece in enumerate(pieces)))


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return without_password(text.splitlines()[0])[:300].rstrip(". ")
