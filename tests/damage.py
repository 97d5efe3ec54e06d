"""Damage to files as it happens and as somebody may do it: bits that flip, files cut off, parts swapped, numbers and JSON edited."""

import json
import random
import re
import zipfile
from pathlib import Path
from typing import Any

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
WORDS: tuple[Any, ...] = (None, True, -1, 0, 1e308, 2**70, "", "x", "../../etc/passwd", [], {}, [[[]]], {"kind": "Known", "fields": {}})
"""What takes the place of a value in edited JSON."""


def damage(path: Path, others: list[Path], rng: random.Random) -> str:
    """Change the file in one way that its name allows, and return which."""
    ways = [flip, cut, swap, renumber, grow]
    if path.suffix == ".json":
        ways += [edit, edit]
    if path.name in ("weights.npz", "model.pt2"):
        ways += [rewritten, rewritten]
    way = rng.choice(ways)
    path.write_bytes(way(path, others, rng))
    return way.__name__


def flip(path: Path, others: list[Path], rng: random.Random) -> bytes:
    """Some bits."""
    changed = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 3, 20])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(path: Path, others: list[Path], rng: random.Random) -> bytes:
    """The end, or a piece of the middle."""
    whole = path.read_bytes()
    start = rng.randrange(len(whole))
    return whole[:start] + (whole[start + rng.randrange(1, 64) :] if rng.random() < 0.5 else b"")


def swap(path: Path, others: list[Path], rng: random.Random) -> bytes:
    """Two parts of the file, or the file for another of its folder."""
    whole = path.read_bytes()
    if others and rng.random() < 0.3:
        return rng.choice(others).read_bytes()
    size = rng.choice([1, 4, 8, 64])
    if len(whole) < 2 * size:
        return whole[::-1]
    one, other = sorted((rng.randrange(len(whole) - size), rng.randrange(len(whole) - size)))
    changed = bytearray(whole)
    changed[one : one + size], changed[other : other + size] = whole[other : other + size], whole[one : one + size]
    return bytes(changed)


def renumber(path: Path, others: list[Path], rng: random.Random) -> bytes:
    """One number that is written in digits."""
    whole = path.read_bytes()
    found = list(NUMBER.finditer(whole))
    if not found:
        return flip(path, others, rng)
    chosen = rng.choice(found)
    new = rng.choice([b"0", b"-1", b"7", b"99999999999", b"1e400", b"0.1", chosen[0] + b"0", b"NaN"])
    return whole[: chosen.start()] + new + whole[chosen.end() :]


def grow(path: Path, others: list[Path], rng: random.Random) -> bytes:
    """Something at the end."""
    return path.read_bytes() + rng.choice([b"\n", b"\0" * 64, b"{}", rng.randbytes(100), path.read_bytes()])


def edit(path: Path, others: list[Path], rng: random.Random) -> bytes:
    """One value of JSON: taken out, doubled or replaced."""
    return json.dumps(edited(json.loads(path.read_bytes()), rng)).encode()


def rewritten(path: Path, others: list[Path], rng: random.Random) -> bytes:
    """One entry of an archive, whose checksums are then right again."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(held))
    part = path.with_name("part.json" if held[name][:1] in (b"{", b"[") and name.endswith(("json", "text.npy")) else "part.bin")
    part.write_bytes(held[name])
    way = rng.choice([edit] if part.suffix == ".json" else [flip, cut, swap, renumber])
    held[name] = way(part, [], rng) if held[name] else b"x"
    part.unlink()
    if rng.random() < 0.1:
        del held[name]
    out = path.with_name("rewritten")
    with zipfile.ZipFile(out, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for entry, content in held.items():
            archive.writestr(entry, content)
    content = out.read_bytes()
    out.unlink()
    return content


def edited(value: Any, rng: random.Random) -> Any:
    """Return the JSON value with one value in it taken out, doubled or replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {name: item for name, item in value.items() if name != key}
        return {name: edited(item, rng) if name == key else item for name, item in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        if rng.random() < 0.1:
            return [*value[:place], *value[place + 1 :]]
        return [edited(item, rng) if number == place else item for number, item in enumerate(value)]
    return rng.choice([*WORDS, value + 1 if isinstance(value, int | float) else value])


def nested(levels: int) -> str:
    """JSON within JSON within JSON."""
    return "[" * levels + "]" * levels
