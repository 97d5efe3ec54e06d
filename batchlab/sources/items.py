"""A data set → arrays X `[rows, …]`, in a file, and y `[rows]`: every item is fetched once, several times where it changes."""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.allowance import Allowance
from batchlab.errors import BadInput, UnknownName
from batchlab.sources.arrays import check_width
from batchlab.sources.unloaded import iterates

FIRST = "when they were fetched first"
TWICE = 8
"""So many items, evenly spread, are fetched twice: those of an augmentation differ."""
FETCHES, VERSIONS_SECONDS = 8, 60.0
"""Of items that differ trainings see so many versions; no further one is fetched after so long."""
TRAINED_BYTES = 4
"""A number of an item takes so many when it is trained on."""
TOLD_SECONDS = 1.0
"""A data set that is fetched in less need not be told of."""
COPIES = 2
"""Items lie on the disk as they were fetched, and as the packed table."""
BUFFER_BYTES = 2**20
STREAMED = (
    ", in the order in which the iterable data set yields them; trainings shuffle all of them, where a loop that streams it shuffles what "
    "its buffer holds"
)


@dataclass(frozen=True)
class Items:
    """What a data set holds: inputs `[rows, …]`, a map of a file in `folder`, which goes when this does; targets `[rows]`; and what people
    should know of how they were fetched. Where items differ each time, trainings see `versions` `[versions, rows, …]` of them in turn, and
    losses are told by `inputs`."""

    inputs: NDArray[Any]
    target: NDArray[Any]
    folder: "TemporaryDirectory[str]"
    notes: tuple[str, ...] = ()
    versions: NDArray[Any] | None = None


@dataclass(frozen=True)
class GivenItems:
    """A data set whose items have numbers, or the name `package.module:function` of what makes one; `target` is the key of a dict's target.
    `versions` are those that were fetched of items which differ each time."""

    data: Any
    target: str | None = None
    versions: NDArray[Any] | None = None


def fetched(
    data: Any, target: str | None = None, plain: Any = None, fetches: int = FETCHES, seed: int = 0, scratch: Path | None = None
) -> Items:
    """Fetch all items of a data set, which are pairs of inputs and target, or dicts of two (`target` is the target's key, else the second),
    into a file under `scratch` (left out: where the system keeps such files): they need not fit into memory.

    Where items differ each time (an augmentation), trainings see `fetches` versions of each; losses are told by those of `plain`, the same
    items without it, or else by the first fetch. Python's, numpy's and torch's generators begin at `seed`, and are left as they were.
    An iterable data set is read once, to its end. Raises BadInput that names the first item which cannot be fetched or has another shape,
    for more than the disk holds, and for more versions than memory does.
    """
    if not isinstance(fetches, int) or fetches < 1:
        raise BadInput(f"fetches is {fetches!r}; it must be a whole number, 1 or more.")
    if iterates(data) and plain is not None:
        raise BadInput("plain goes with items that are fetched by their numbers, and an iterable data set has none.")
    with _chance(seed):
        began = time.perf_counter()
        held = _held(data if plain is None else plain, target, scratch)
        took = time.perf_counter() - began
        if iterates(data):
            return replace(held, notes=(f"{_what_it_took(held, took, 1)}{STREAMED}",))
        if plain is not None:
            _check_same_items(data, target, held)
        what = _changing(data, target)
        if plain is None and (not what or fetches == 1):
            notes = [_what_it_took(held, took, 1), *([f"{what}: trainings see every item as it was fetched first"] if what else [])]
            return replace(held, notes=tuple(notes))
        versions, took, fewer = _versions(data, target, held, fetches if what else 1, "in plain" if plain is not None else FIRST)
    notes = [_what_it_took(held, took, len(versions))]
    if plain is not None and np.array_equal(versions[0], held.inputs):
        return replace(held, notes=(*notes, "the items are those of plain"))
    many = "1 further fetch" if len(versions) == 1 else f"{len(versions)} further fetches"
    seen = f"trainings take {many} of every item in turn, one an epoch{fewer}" if what else "trainings see these"
    by = "the items as they were fetched first; without the augmentation give them as plain" if plain is None else "those of plain"
    notes.append(f"{what or 'the items differ from those of plain'}: {seen}; losses are told by {by}")
    if plain is not None and (own := _changing(plain, target)):
        notes.append(f"of plain, too, {own}: losses are told by its first fetch")
    return replace(held, notes=tuple(notes), versions=versions)


def _changing(data: Any, target: str | None) -> str:
    """Say which item is another one each time it is fetched; empty where none of a few is."""
    found = next((number for number in _spread(len(data)) if _differs(data, number, target)), None)
    return "" if found is None else f"item {found:,} is another one each time it is fetched (an augmentation?)"


def _spread(count: int) -> list[int]:
    """Return a few numbers of items, evenly spread."""
    found: list[int] = np.unique(np.linspace(0, count - 1, TWICE).astype(int)).tolist()
    return found


def _what_it_took(held: Items, seconds: float, times: int) -> str:
    """Say what fetching all items so many times took, where that is long."""
    count = len(held.target)
    found = f"the data set's {count:,} items were fetched once and written down"
    if seconds <= TOLD_SECONDS:
        return found
    each, once = 1e3 * seconds / count / times, f", {seconds / times:.3g} s for all" if times > 1 else ""
    return f"{found}: {seconds:.3g} s, {each:.3g} ms an item{once}, so a loop that fetches them anew spends as much every epoch"


def _held(data: Any, target: str | None, scratch: Path | None) -> Items:
    """Return all items, each fetched once."""
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    folder = TemporaryDirectory(prefix="items-", dir=scratch)
    path, room = Path(folder.name) / "inputs", shutil.disk_usage(folder.name).free // COPIES
    first, targets = None, []
    with path.open("wb", buffering=BUFFER_BYTES) as file:
        for number, (row, value) in enumerate(_pairs(data, target)):
            if first is None:
                first = row
                check_width("an item", row.shape)
            _check_alike(number, row, first)
            _check_disk(first, number + 1 if number or iterates(data) else len(data), room)
            file.write(row.tobytes())
            targets.append(value.item())
    if first is None:
        raise BadInput(f"the data set ({type(data).__name__}) has no items.")
    return Items(np.memmap(path, first.dtype, "r", shape=(len(targets), *first.shape)), np.array(targets), folder)


def _pairs(data: Any, target: str | None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the inputs and the target of every item: by number, or as they come."""
    if not iterates(data):
        yield from (_pair(data, number, target) for number in range(len(data)))
        return
    items = iter(data)
    for number in count():
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:
            raise _not_fetched(number, error) from error
        yield _parts(number, item, target)


def _versions(data: Any, target: str | None, held: Items, most: int, others: str) -> tuple[NDArray[Any], float, str]:
    """Return up to `most` further fetches of all items `[versions, rows, …]`, the seconds that they took, and why they are fewer."""
    room = Allowance.of(None).rows_bytes // (max(held.inputs.itemsize, TRAINED_BYTES) * held.inputs.size) - 1
    if room < 1:
        raise BadInput(
            f"another fetch of {len(held.inputs):,} items of shape {held.inputs.shape[1:]} does not fit beside the first into the "
            f"{Allowance.of(None).rows_bytes / 2**30:.2f} GiB that may be used; make them smaller or fewer, or use fetches=1 without plain."
        )
    found: list[NDArray[Any]] = []
    began, why = time.perf_counter(), f" ({most} were asked for, memory holds no more)" if room < most else ""
    for _ in range(min(room, most)):
        if found and time.perf_counter() - began > VERSIONS_SECONDS:
            why = f" ({most} were asked for, these took {time.perf_counter() - began:.0f} s)"
            break
        inputs = np.empty(held.inputs.shape, held.inputs.dtype)
        for number in range(len(inputs)):
            row, value = _pair(data, number, target)
            _check_alike(number, row, held.inputs[0], others)
            _check_target(number, value, held.target, others)
            inputs[number] = row
        _check_whole(inputs)
        found.append(inputs)
    return np.stack(found), time.perf_counter() - began, why


def _check_same_items(data: Any, target: str | None, held: Items) -> None:
    """Raise BadInput where the items of `plain`, which are held, are not those of the data set, as far as number, shape and target tell."""
    if len(data) != len(held.target):
        raise BadInput(f"the data set has {len(data):,} items and plain {len(held.target):,}; plain must hold the same ones.")
    for number in {0, len(data) - 1}:
        row, value = _pair(data, number, target)
        _check_alike(number, row, held.inputs[0], "in plain")
        _check_target(number, value, held.target, "in plain")


def _check_whole(inputs: NDArray[Any]) -> None:
    """Raise BadInput where an item of several versions holds a number that is none."""
    if inputs.dtype.kind == "f" and not (whole := np.isfinite(inputs.reshape(len(inputs), -1)).all(1)).all():
        raise BadInput(f"item {int(np.argmin(whole)):,} holds a missing or infinite number; items that change must have none.")


def _check_target(number: int, value: NDArray[Any], targets: NDArray[Any], others: str) -> None:
    if value != targets[number]:
        raise BadInput(f"item {number:,} has the target {value}, and {targets[number]} {others}; it must be the same in every fetch.")


@contextmanager
def _chance(seed: int) -> Iterator[None]:
    """Let Python's, numpy's and torch's generators begin at the seed inside the block, and leave them as they were."""
    import torch

    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def inputs_of(data: Any, number: int, target: str | None = None) -> NDArray[Any]:
    """Fetch an item and return its inputs."""
    item = data[number]
    return np.asarray((_of_dict(item, target) if isinstance(item, dict) else item)[0])


def _pair(data: Any, number: int, target: str | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fetch an item and return its inputs and its one target."""
    try:
        item = data[number]
    except Exception as error:
        raise _not_fetched(number, error) from error
    return _parts(number, item, target)


def _not_fetched(number: int, error: Exception) -> BadInput:
    return BadInput(f"item {number:,} of the data set cannot be fetched: {type(error).__name__}: {error}")


def _parts(number: int, item: Any, target: str | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return an item's inputs and its one target."""
    if isinstance(item, dict):
        item = _of_dict(item, target)
    if not isinstance(item, tuple | list) or len(item) != 2:
        what = f"{len(item)} parts" if isinstance(item, tuple | list) else f"a {type(item).__name__}"
        raise BadInput(f"item {number:,} of the data set is {what}; it must be a pair of inputs and target, or a dict of two.")
    _check_one_input(number, item[0])
    inputs, value = (np.asarray(part) for part in item)
    if inputs.dtype.kind not in "biuf":
        raise BadInput(f"item {number:,} has inputs of {inputs.dtype}; they must be numbers: a tensor, an array or a picture.")
    if value.size != 1 or value.dtype.kind not in "biufU":
        raise BadInput(f"item {number:,} has a target of shape {value.shape} and {value.dtype}; it must be one number or word.")
    return inputs, value.reshape(())


def _check_one_input(number: int, inputs: Any) -> None:
    """Raise BadInput for inputs in several parts, which numpy would stack where they happen to be of one shape."""
    parts = list(inputs.values()) if isinstance(inputs, dict) else inputs
    if isinstance(parts, tuple | list) and any(np.ndim(part) for part in parts):
        shapes = " and ".join(str(tuple(np.shape(part))) for part in parts)
        raise BadInput(
            f"item {number:,} has {len(parts)} inputs, of {shapes}, and a module gets one: join them in the data set, "
            "torch.cat([a.flatten(), b.flatten()]), and take them apart where the module begins."
        )


def _of_dict(item: dict[str, Any], target: str | None) -> tuple[Any, ...]:
    keys = list(item)
    if target is not None and target not in keys:
        raise UnknownName("target", target, keys)
    others = [key for key in keys if key != (target or keys[-1])]
    if len(others) != 1:
        raise BadInput(f"items have the parts {', '.join(keys)}; keep the inputs and the target, and name the target.")
    return item[others[0]], item[target or keys[-1]]


def _check_disk(first: NDArray[Any], count: int, room: int) -> None:
    """Raise BadInput where so many items like the first take more than `room` bytes."""
    if (needed := first.nbytes * count) > room:
        raise BadInput(
            f"{count:,} items of shape {first.shape} ({first.dtype}) take {needed / 2**30:.2f} GiB on disk, and as much again as a table; "
            f"{COPIES * room / 2**30:.2f} GiB are free. Make them smaller (bytes instead of floats), or fewer; an iterable data set "
            "must end."
        )


def _check_alike(number: int, row: NDArray[Any], first: NDArray[Any], others: str = "") -> None:
    if row.shape != first.shape or row.dtype != first.dtype:
        rest = f"items {others} have" if others else "item 0 has"
        raise BadInput(
            f"item {number:,} has inputs of shape {row.shape} ({row.dtype}), {rest} {first.shape} ({first.dtype}); all must be alike: "
            "resize or pad them."
        )


def _differs(data: Any, number: int, target: str | None) -> bool:
    once, again = (_pair(data, number, target)[0] for _ in range(2))
    return once.shape != again.shape or not np.array_equal(once, again, equal_nan=again.dtype.kind == "f")
