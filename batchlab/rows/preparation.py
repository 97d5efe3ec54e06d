"""Packed columns → the network's inputs: scaled, filled and encoded with statistics of the training rows only."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from batchlab.errors import BadInput
from batchlab.rows.split import Split
from batchlab.table import PackedTable
from batchlab.table.columns import EncodingRule
from batchlab.table.measuring import Figures
from batchlab.table.target import TargetScale

Numbers = NDArray[np.float64]
Scaling = bool | Literal["channels"]
"""Whether numbers are scaled: each column by itself, or all those of a channel alike, the first dimension of a row's shape."""
ROWS_AT_ONCE, VALUES_AT_ONCE = 2**16, 2**22


@dataclass(frozen=True)
class Category:
    """One category column: its place among the packed ones, and the slot of every code `[vocabulary + 2]`.

    The last two codes are those of a value outside the vocabulary and of a missing one. Slot 0 is shared by all values that the training
    rows do not have, or too seldom; `kept` says how many have one of their own.
    """

    name: str
    place: int
    slots: NDArray[np.int64]
    width: int
    kept: int


@dataclass(frozen=True)
class Preparation:
    """How packed columns become inputs: first numbers, less `mean` over `scale` with `fill` for missing ones; then a flag for each number
    that misses values in the training rows; then the categories, one input a slot, or (`embedded`) their slot as a number.

    Of the target, or its logarithm where `log_target` says so, training sees what it is less `target_mean` over `target_scale`.

    `places` `[numbers]` are the packed columns of the numbers, `flagged` those among the numbers that have a flag.
    """

    places: NDArray[np.int64]
    mean: Numbers
    scale: Numbers
    fill: Numbers
    flagged: NDArray[np.int64]
    categories: tuple[Category, ...] = ()
    embedded: bool = False
    target_mean: float = 0.0
    target_scale: float = 1.0
    log_target: bool = False
    names: tuple[str, ...] = field(default=(), compare=False)

    @property
    def width(self) -> int:
        """How many inputs there are."""
        slots = len(self.categories) if self.embedded else sum(category.width for category in self.categories)
        return len(self.places) + len(self.flagged) + slots

    @property
    def embedded_sizes(self) -> tuple[int, ...]:
        """How many slots each embedded category has; the last inputs are theirs."""
        return tuple(category.width for category in self.categories) if self.embedded else ()

    @property
    def digest(self) -> str:
        """A digest of all of it."""
        facts = (self.embedded, self.target_mean, self.target_scale, *(["log"] if self.log_target else []))
        digest = hashlib.sha256(repr(facts).encode())
        for part in (self.places, self.mean, self.scale, self.fill, self.flagged, *(category.slots for category in self.categories)):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:16]

    def unscaled(self, target: NDArray[Any]) -> NDArray[Any]:
        """Return targets or predictions in the target's unit as losses compare them: as they are, or their logarithms."""
        if not self.log_target:
            return target
        with np.errstate(divide="ignore"):  # a prediction that underflows to 0 is infinitely far off
            return np.asarray(np.log(target))


def identity(mean: Numbers, scale: Numbers, target_mean: float = 0.0, target_scale: float = 1.0) -> Preparation:
    """Return a preparation of numbers alone that misses none."""
    none = np.zeros(0, np.int64)
    return Preparation(np.arange(len(mean)), mean, scale, np.zeros(len(mean)), none, target_mean=target_mean, target_scale=target_scale)


def measured_preparation(
    table: PackedTable,
    split: Split,
    scale: Scaling,
    encoding: EncodingRule,
    target_scale: TargetScale = "linear",
    features_as_they_are: bool = False,
    row_shape: tuple[int, ...] | None = None,
) -> Preparation:
    """Return mean and standard deviation of the training rows (population form; a constant column scales by 1), and their categories.

    The target is scaled only in regression; with `scale` false nothing is, with `features_as_they_are` the target alone. With "channels"
    the columns of a channel, the first dimension of the `row_shape`, share mean and deviation. One pass over the table, in bounded memory.
    Raises BadInput for a target that has no logarithm where one is asked for, and for columns that are no channels.
    """
    log_target = target_scale == "log"
    if log_target:
        check_logarithm(table)
    figures, counts, target = _measured(table, split, log_target)
    numbers: list[int] = []
    names: list[str] = []
    flagged, categories, place, seen = [], [], 0, 0
    for column in table.schema.columns:
        if column.kind == "category":
            categories.append(_category(column.name, place, counts[place], encoding.most_categories))
        else:
            if figures.missing[place]:
                flagged.append(seen)
            numbers += range(place, place + len(column.packed_names))
            names += column.packed_names
            seen += len(column.packed_names)
        place += len(column.packed_names)
    places, embedded = np.array(numbers, np.int64), encoding.categories == "embedding" and bool(categories)
    mean, spread = _centre(figures)
    mean, spread = mean[places], spread[places]
    if scale == "channels":
        offsets = np.array([column.offset for column in table.schema.columns if column.kind != "category" for _ in column.packed_names])
        mean, spread = _by_channel(mean + offsets, figures.spread[places], row_shape, len(flagged) + len(categories))
        mean = mean - offsets  # what is packed is less these
    zeros, ones = np.zeros(len(places)), np.ones(len(places))
    target_mean, target_spread = _centre(target)
    scaled, scaled_target = bool(scale) and not features_as_they_are, bool(scale) and table.schema.target.task == "regression"
    names += [f"{names[number]} is missing" for number in flagged]
    names += (
        [category.name for category in categories]
        if embedded
        else [name for category in categories for name in _slot_names(category, table)]
    )
    return Preparation(
        places=places,
        mean=mean if scaled else zeros,
        scale=spread if scaled else ones,
        fill=zeros if scaled else mean,
        flagged=np.array(flagged, np.int64),
        categories=tuple(categories),
        embedded=embedded,
        target_mean=float(target_mean[0]) if scaled_target else 0.0,
        target_scale=float(target_spread[0]) if scaled_target else 1.0,
        log_target=log_target,
        names=tuple(names),
    )


def _by_channel(mean: Numbers, spread: Numbers, shape: tuple[int, ...] | None, others: int) -> tuple[Numbers, Numbers]:
    """Return for each column the mean and deviation of its channel's numbers."""
    if shape is None or len(shape) < 2 or others or prod(shape) != len(mean):
        raise BadInput(
            f"scale 'channels' needs rows of a shape [channels, …] (model.shape), whose numbers are the {len(mean):,} columns without gaps "
            f"and categories; the shape is {list(shape) if shape else 'not given'}. Use scale=true, or false."
        )
    centre, each = mean.reshape(shape[0], -1).mean(1), prod(shape[1:])
    squares = spread**2 + (mean - np.repeat(centre, each)) ** 2
    deviation = np.sqrt(squares.reshape(shape[0], -1).mean(1))
    return np.repeat(centre, each), np.repeat(np.where(deviation > 0, deviation, 1.0), each)


def check_logarithm(table: PackedTable) -> None:
    """Raise BadInput unless the table's target are numbers above 0."""
    target, least = table.schema.target, table.facts[0].minimum
    if target.task != "regression":
        raise BadInput(f"target_scale 'log' is for numbers, but target '{target.name}' has classes ({target.task}); use 'linear'.")
    if least is None or least <= 0:
        raise BadInput(
            f"target_scale 'log' needs a target above 0, but the least of '{target.name}' is {least:g}; use 'linear', or predict "
            "something else, such as log(1 + it)."
        )


def _measured(table: PackedTable, split: Split, log_target: bool) -> tuple[Figures, dict[int, NDArray[np.int64]], Figures]:
    """Return figures of the packed columns and the target over the training rows, and how often each category code occurs in them."""
    from batchlab.table.turning import turned

    vocabularies, place = {}, 0
    for column in table.schema.columns:
        if column.kind == "category":
            vocabularies[place] = len(column.vocabulary)
        place += len(column.packed_names)
    figures, target = Figures(place), Figures(1)
    counts = {place: np.zeros(size + 2, np.int64) for place, size in vocabularies.items()}
    for features, truth in training_rows(table, split):
        figures.add(len(truth), turned(features.T, np.zeros(place))[1])
        target.add(len(truth), turned((np.log(truth) if log_target else truth)[None], np.zeros(1))[1])
        for number, size in vocabularies.items():
            counts[number] += np.bincount(codes(features[:, number], size), minlength=size + 2)
    return figures, counts, target


def rows_at_once(columns: int) -> int:
    """Return how many rows of so many columns are made ready at once: of wide ones fewer, so that memory does not grow with the width."""
    return max(1, min(ROWS_AT_ONCE, VALUES_AT_ONCE // max(columns, 1)))


def training_rows(table: PackedTable, split: Split) -> Any:
    """Yield the training rows' packed features `[rows, columns]` and targets `[rows]`, portion by portion, read from their files."""
    size = rows_at_once(len(table.schema.packed_names))
    for start, flags in split.portions("train"):
        for first in range(0, len(flags), size):
            chosen = flags[first : first + size]
            if chosen.any():
                features, target = table.read("features", start + first, len(chosen)), table.read("target", start + first, len(chosen))
                yield (features, target) if chosen.all() else (features[chosen], target[chosen])


def codes(packed: NDArray[np.float32], size: int) -> NDArray[np.int64]:
    """Return a category's codes: `size` for a value outside the vocabulary, the number after that for a missing one."""
    return np.where(np.isnan(packed), size + 1, np.minimum(packed, size)).astype(np.int64)


def _centre(figures: Figures) -> tuple[Numbers, Numbers]:
    varied = (figures.maximum > figures.minimum) & (figures.spread > 0)
    return figures.mean, np.where(varied, figures.spread, 1.0)


def _category(name: str, place: int, counts: NDArray[np.int64], most: int) -> Category:
    """Return the slots of a category: 0 for all others, one for each of the most frequent values, one for missing where some are."""
    size = len(counts) - 2
    ordered = np.argsort(-counts[:size], kind="stable")[:most]
    kept = ordered[counts[ordered] > 0]
    slots = np.zeros(size + 2, np.int64)
    slots[kept] = 1 + np.arange(len(kept))
    slots[size + 1] = len(kept) + 1 if counts[size + 1] else 0
    return Category(name, place, slots, int(slots.max()) + 1, len(kept))


def _slot_names(category: Category, table: PackedTable) -> Sequence[str]:
    (column,) = (column for column in table.schema.columns if column.name == category.name)
    names = [f"{category.name} = others"] + [""] * (category.width - 1)
    for code, slot in enumerate(category.slots[:-2]):
        if slot:
            names[slot] = f"{category.name} = {column.vocabulary[code]}"
    if category.slots[-1]:
        names[category.slots[-1]] = f"{category.name} is missing"
    return names
