"""What a file is by its first bytes, whatever its name says."""

from typing import Literal

from batchlab.errors import BadInput
from batchlab.sources.places import FoundFile, Place

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
COMPRESSIONS: dict[str, bytes] = {".gz": GZIP, ".zst": ZSTD}
_STREAM = b"\xff\xff\xff\xff"
_ZIP = b"PK\x03\x04"
_MAGIC = (
    (b"PAR1", "Parquet", "parquet"),
    (b"PARE", "encrypted Parquet", ""),
    (b"ARROW1", "Arrow", "arrow"),
    (_STREAM, "Arrow stream", "arrow"),
    (b"FEA1", "Feather version 1", ""),
    (GZIP, "gzip", "gzip"),
    (ZSTD, "zstd", "zstd"),
    (b"\x93NUMPY", "NumPy array", "arrays"),
    (_ZIP, "zip or Excel", ""),
    (b"\xd0\xcf\x11\xe0", "Excel", ""),
    (b"SQLite format 3\0", "SQLite", "sql"),
)


def beginning(place: Place, file: FoundFile) -> bytes:
    """Return the first 16 bytes of the file."""
    with place.filesystem.open_input_stream(file.path, compression=None, buffer_size=None) as stream:
        return bytes(stream.read(16))


def compression(path: str) -> Literal["gzip", "zstd"] | None:
    """Return how a file is compressed, by its name; `check_beginning` has held its first bytes to it."""
    lower = path.lower()
    return "gzip" if lower.endswith(".gz") else "zstd" if lower.endswith(".zst") else None


def check_beginning(place: Place, file: FoundFile, kind: str) -> None:
    """Raise BadInput when the file begins as a file of another format does, saying which."""
    first, shown = beginning(place, file), place.shown_path(file.path)
    wanted = compression(file.path) if kind == "csv" else None
    if kind == "arrays" and file.path.lower().endswith(".npz") and first.startswith(_ZIP):
        return
    held = next(((name, of_kind) for magic, name, of_kind in _MAGIC if first.startswith(magic)), None)
    if held is not None and held[1] != (wanted or kind):
        raise BadInput(f"'{shown}' is a {held[0]} file by its first bytes, not {wanted or kind}; {_remedy(*held)}.")
    if held is None and (wanted or kind in {"parquet", "arrow"} or (kind == "arrays" and file.path.lower().endswith((".npy", ".npz")))):
        expected = wanted or kind
        looks = "text" if first.isascii() and b"\0" not in first else "of no known format"
        raise BadInput(f"'{shown}' is no {expected} file: it begins with {first[:8]!r}, which looks {_like(looks)}.")


def _like(looks: str) -> str:
    return "like text; name it .csv if it is a table" if looks == "text" else looks


def _remedy(name: str, kind: str) -> str:
    if kind in {"gzip", "zstd"}:
        return f"let its name end in {'.gz' if kind == 'gzip' else '.zst'} if it is a compressed CSV file, else decompress it"
    if kind == "sql":
        return "read it with --data sqlite:///its/path"
    return f"set source.kind={kind}, or give its name that ending" if kind else "convert it to Parquet or CSV"
