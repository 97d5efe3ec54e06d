"""Dates written as text: in which formats, counted over the values of a column."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchlab.serving.batchlab_serving import DATE_PARTS, TIME_PARTS, PackedColumn, instants

if TYPE_CHECKING:
    import pyarrow as pa

CLOCKS = ("", " %H:%M", " %H:%M:%S")


def _families(separated: str) -> tuple[str, ...]:
    return tuple(separated.replace("/", sign) + clock for sign in "/.-" for clock in CLOCKS)


DAY_FIRST, MONTH_FIRST = _families("%d/%m/%Y"), _families("%m/%d/%Y")
WRITTEN_OUT = ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d%b%Y")
UNAMBIGUOUS = ("ISO8601", *(style + clock for style in ("%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", *WRITTEN_OUT) for clock in CLOCKS))
TWO_WAYS = r"^[0-9]{1,2}[/.-][0-9]{1,2}[/.-][0-9]{4}"
"""What may be day/month or month/day."""
LOOKED_AT = 200
"""So many values that no known format fits decide which other formats are tried on all."""


@dataclass
class Chain:
    """Formats tried one after the other, and how many values each was the first to fit."""

    candidates: tuple[str, ...]
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def add(self, found: "pa.Array", times: NDArray[np.int64]) -> None:
        """Count different values with how often each occurs; those in no format met yet are tried in all others."""
        waiting = self._count(found, times, np.ones(len(found), bool), list(self.counts))
        if waiting.any():
            sample = _picked(found, waiting)[:LOOKED_AT]
            others = {style: int((~instants(sample, (style,))[1]).sum()) for style in self.candidates if style not in self.counts}
            fitting = sorted((style for style, count in others.items() if count), key=lambda style: -others[style])
            self._count(found, times, waiting, fitting)

    def _count(self, found: "pa.Array", times: NDArray[np.int64], waiting: NDArray[np.bool_], styles: list[str]) -> NDArray[np.bool_]:
        for style in styles:
            if not waiting.any():
                break
            fits = ~instants(_picked(found, waiting), (style,))[1]
            if not fits.any():
                continue
            places = np.flatnonzero(waiting)[fits]
            self.counts[style] = self.counts.get(style, 0) + int(times[places].sum())
            waiting[places] = False
        return waiting


def _picked(found: "pa.Array", flags: NDArray[np.bool_]) -> "pa.Array":
    import pyarrow as pa

    return found.filter(pa.array(flags))


class DateTally:
    """How many values of a column are dates, once with day before month and once with month before day where that matters."""

    def __init__(self) -> None:
        self.day_first, self.month_first = Chain((*UNAMBIGUOUS, *DAY_FIRST)), Chain((*UNAMBIGUOUS, *MONTH_FIRST))
        self.batches, self.clocks = 0, False

    def add(self, found: "pa.Array", times: NDArray[np.int64]) -> None:
        """Take in different values and how often each occurs; a column whose first values hold no date is not looked at again."""
        import pyarrow.compute as pc

        if self.batches and not self.total:
            return
        self.batches += 1
        before = dict(self.day_first.counts)
        self.day_first.add(found, times)
        if pc.any(pc.match_substring_regex(found, TWO_WAYS)).as_py():
            self.month_first.add(found, times)
        else:  # both readings are the same
            for style, count in self.day_first.counts.items():
                self.month_first.counts[style] = self.month_first.counts.get(style, 0) + count - before.get(style, 0)
        self.clocks = self.clocks or bool(pc.any(pc.match_substring(found, ":")).as_py())

    @property
    def chosen(self) -> Chain:
        """The reading that makes more values dates."""
        return self.day_first if self.day_first.total >= self.month_first.total else self.month_first

    @property
    def total(self) -> int:
        """How many values are dates."""
        return self.chosen.total

    def column(self, name: str) -> tuple[PackedColumn, str | None]:
        """Return how the column is packed, and what people should know of it."""
        formats = tuple(sorted(self.chosen.counts, key=lambda style: -self.chosen.counts[style]))
        notes = [f"column '{name}' holds dates in {len(formats)} formats: {', '.join(formats)}"] if len(formats) > 1 else []
        if self.day_first.total == self.month_first.total and any(style in DAY_FIRST for style in formats):
            notes.append(f"column '{name}' could be day/month or month/day, and its values do not tell; it was read as day/month")
        parts = (*DATE_PARTS, *TIME_PARTS) if self.clocks else DATE_PARTS
        return PackedColumn(name, "datetime", text=True, formats=formats, parts=parts), "; ".join(notes) or None
