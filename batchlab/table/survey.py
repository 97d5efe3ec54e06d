"""The first pass over a source that holds text: what kind of values each column has, and the vocabulary of its categories."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from batchlab.serving.batchlab_serving import (
    COMMA_NUMBER,
    DATE_PARTS,
    NUMBER,
    TIME_PARTS,
    PackedColumn,
    as_words,
    without_missing,
)
from batchlab.table.columns import is_number, is_text, value_type
from batchlab.table.dates import DateTally

if TYPE_CHECKING:
    import pyarrow as pa

SHARE_OF_KIND = 0.95
"""A column of text holds numbers, or dates, when at least this share of its values does; the others go to quarantine."""
LARGEST_VOCABULARY = 500_000
"""Of more different values only the more frequent half is kept on, whenever there are so many: memory stays bounded."""
SHARE_OF_TEXT, FEWEST_TEXTS = 0.6, 20
"""A column is text, not categories, when more than this share of its values, and more than so many, are different."""


@dataclass
class Tally:
    """What the survey has counted in one column of text, or one taken as categorical: values, words, numbers and dates among them."""

    known: int = 0
    missing: int = 0
    words: "Counter[str]" = field(default_factory=Counter)
    pruned: bool = False
    points: int = 0
    commas: int = 0
    whole: int = 0
    booleans: int = 0
    dates: DateTally = field(default_factory=DateTally)

    def add(self, values: "pa.Array", categorical: bool) -> None:
        """Take in one batch's values."""
        import pyarrow.compute as pc

        words = without_missing(as_words(values))
        counts = pc.value_counts(words.drop_null())
        found, times = counts.field("values"), np.asarray(counts.field("counts").to_numpy(zero_copy_only=False))
        self.known += int(times.sum())
        self.missing += words.null_count
        if not categorical and len(found):
            self.points += _matching(found, times, NUMBER)
            self.whole += _matching(found, times, "^[+-]?[0-9]+$")
            self.commas += _matching(found, times, COMMA_NUMBER)
            self.booleans += _matching(found, times, "^(?i:true|false)$")
            if max(self.points, self.commas) < SHARE_OF_KIND * self.known:
                self.dates.add(found, times)
        if categorical or not self._is_surely_no_category():
            self.words.update(dict(zip(found.to_pylist(), times.tolist(), strict=True)))
            self._prune()

    def _is_surely_no_category(self) -> bool:
        """Whether so many values are numbers or dates that their vocabulary will not be asked for."""
        return len(self.words) > 10_000 and max(self.points, self.commas, self.dates.total) >= SHARE_OF_KIND * self.known

    def _prune(self) -> None:
        if len(self.words) > LARGEST_VOCABULARY:
            self.words = Counter(dict(self.words.most_common(LARGEST_VOCABULARY // 2)))
            self.pruned = True


def _matching(found: "pa.Array", times: Any, pattern: str) -> int:
    import pyarrow.compute as pc

    fits = np.asarray(pc.match_substring_regex(found, pattern).to_numpy(zero_copy_only=False), bool)
    return int(times[fits].sum())


def surveyed(batches: Iterable["pa.RecordBatch"], names: Iterable[str], categorical: Iterable[str]) -> dict[str, Tally]:
    """Return what the named columns hold, in one pass."""
    tallies = {name: Tally() for name in names}
    forced = set(categorical)
    for batch in batches:
        for name, tally in tallies.items():
            tally.add(decoded(batch.column(name)), name in forced)
    return tallies


def decoded(values: "pa.Array") -> "pa.Array":
    """Return a dictionary's values (a pandas Categorical) as plain ones."""
    import pyarrow as pa

    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def needs_survey(kind: "pa.DataType", name: str, categorical: Iterable[str]) -> bool:
    """Whether the column's type does not say how to pack it."""
    return is_text(kind) or name in categorical


def typed(name: str, kind: "pa.DataType") -> PackedColumn:
    """Return how a column is packed whose type says it."""
    import pyarrow as pa

    kind = value_type(kind)
    if pa.types.is_boolean(kind):
        return PackedColumn(name, "boolean")
    if is_number(kind) or pa.types.is_null(kind):
        return PackedColumn(name, "number", integer=bool(pa.types.is_integer(kind)))
    if pa.types.is_time(kind):
        return PackedColumn(name, "datetime", parts=TIME_PARTS)
    return PackedColumn(name, "datetime", parts=DATE_PARTS if pa.types.is_date(kind) else (*DATE_PARTS, *TIME_PARTS))


@dataclass(frozen=True)
class Found:
    """How a surveyed column is packed, or (None) why it is not: `refusal` for one that must be dropped by name; and a `note`."""

    column: PackedColumn | None
    refusal: str | None = None
    note: str | None = None


def interpreted(name: str, tally: Tally, categorical: bool) -> Found:
    """Return how a surveyed column is packed."""
    if tally.known == 0:
        return Found(None, note=f"column '{name}' is empty: all {tally.missing:,} values are missing; it is left out")
    if categorical:
        return _category(name, tally)
    enough = SHARE_OF_KIND * tally.known
    if max(tally.points, tally.commas) >= enough:
        decimal: Literal[".", ","] = "." if tally.points >= tally.commas else ","
        return Found(PackedColumn(name, "number", text=True, decimal=decimal, integer=tally.whole == tally.known))
    if tally.booleans == tally.known:
        return Found(PackedColumn(name, "boolean", text=True))
    if tally.dates.total >= enough:
        column, note = tally.dates.column(name)
        return Found(column, note=note)
    if tally.pruned or (len(tally.words) > SHARE_OF_TEXT * tally.known and len(tally.words) > FEWEST_TEXTS):
        shares = ", ".join(
            f"{100 * count / tally.known:.0f}% are {what}"
            for what, count in (("numbers", max(tally.points, tally.commas)), ("dates", tally.dates.total))
            if count
        )
        different = f"{'more than ' if tally.pruned else ''}{len(tally.words):,} different values in {tally.known:,} rows"
        return Found(None, refusal=f"'{name}' ({different}{'; ' + shares if shares else ''})")
    return _category(name, tally)


def _category(name: str, tally: Tally) -> Found:
    ordered = sorted(tally.words, key=lambda word: (-tally.words[word], word))
    note = None
    if tally.pruned:
        note = f"column '{name}' has more than {LARGEST_VOCABULARY:,} different values; only the most frequent are told apart"
    return Found(PackedColumn(name, "category", text=True, vocabulary=tuple(ordered)), note=note)
