"""The first pass over a source that holds text: what kind of values each column has, and the vocabulary of its categories."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from batchlab.serving.batchlab_serving import (
    COMMA_NUMBER,
    DATE_PARTS,
    GROUPED_NUMBER,
    NUMBER,
    TIME_PARTS,
    DecimalSign,
    PackedColumn,
    as_words,
    matching,
    plain_numbers,
    without_given,
    without_missing,
)
from batchlab.table.columns import is_number, is_text, value_type
from batchlab.table.dates import DateTally
from batchlab.table.dress import Dress

if TYPE_CHECKING:
    import pyarrow as pa

SHARE_OF_KIND = 0.95
"""A column of text holds numbers, or dates, when at least this share of its values does; the others go to quarantine."""
LARGEST_VOCABULARY, MOST_WORDS, MOST_NUMBERS = 500_000, 2_000_000, 1_000
"""Memory stays bounded: a column keeps at most so many different values, all columns together so many, one that holds numbers or dates so
many. Of a column beyond that whose user takes it as categorical the more frequent half is kept on; of others only that it went beyond."""
SHARE_OF_TEXT, FEWEST_TEXTS = 0.6, 20
"""A column is text, not categories, when more than this share of its values, and more than so many, are different."""
TWO_WAYS = r"^[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}$"
"""A number that is another one where the other sign is the decimal point."""


@dataclass
class Tally:
    """What the survey has counted in one column of text, or one taken as `categorical`: values, words, numbers and dates among them.

    `beyond` is how many different values there were when they became too many to keep, else 0; `codes` counts whole numbers that
    begin with 0; `two_ways` is a number that could be another, as long as no value has told which decimal sign is used.
    """

    categorical: bool = False
    known: int = 0
    missing: int = 0
    words: "Counter[str]" = field(default_factory=Counter)
    beyond: int = 0
    points: int = 0
    commas: int = 0
    whole: int = 0
    codes: int = 0
    booleans: int = 0
    two_ways: str | None = None
    dress: Dress = field(default_factory=Dress)
    dates: DateTally = field(default_factory=DateTally)

    @property
    def different(self) -> int:
        """How many different values there are, or were when they became too many."""
        return max(len(self.words), self.beyond)

    @property
    def decimal(self) -> DecimalSign | None:
        """The decimal sign of a column of numbers; None for one that does not tell."""
        if self.points == self.commas or max(self.points, self.commas) < SHARE_OF_KIND * self.known:
            return None
        return "." if self.points > self.commas else ","

    @property
    def holds_kind(self) -> bool:
        """Whether enough values are numbers, or dates, for the others to be errors."""
        return max(self.points, self.commas, self.dates.total) >= SHARE_OF_KIND * self.known

    def add(self, values: "pa.Array") -> None:
        """Take in one batch's values."""
        import pyarrow.compute as pc

        words = as_words(values)
        if self.beyond and not self.categorical:  # what is not kept need not be told apart
            plain = words if plain_numbers(words) is not None else without_missing(words)
            if plain is words or plain_numbers(plain) is not None:
                known = plain.drop_null()
                self._add_numbers(known, np.ones(len(known), np.int64), plain.null_count)
                return
        words = without_missing(words)
        counts = pc.value_counts(words.drop_null())
        found, times = counts.field("values"), np.asarray(counts.field("counts").to_numpy(zero_copy_only=False))
        self._add_numbers(found, times, words.null_count)
        if not self.categorical and max(self.points, self.commas) < SHARE_OF_KIND * self.known:
            self.dates.add(found, times)
        if self.categorical or not self.beyond:
            self.words.update(dict(zip(found.to_pylist(), times.tolist(), strict=True)))
            if len(self.words) > (MOST_NUMBERS if self.holds_kind and not self.categorical else LARGEST_VOCABULARY):
                self.prune()

    def _add_numbers(self, found: "pa.Array", times: Any, missing: int) -> None:
        """Count known values, and the numbers and booleans among them where that can still matter."""
        before, total = self.known, int(times.sum())
        self.known, self.missing = before + total, self.missing + missing
        if self.categorical or not total:
            return
        plain = plain_numbers(found) is not None
        found = found if plain else self.dress.taken_off(found, times)
        self.points += total if plain else _count(found, times, f"{NUMBER}|{GROUPED_NUMBER}")
        self.whole += _count(found, times, "^[+-]?[0-9]+$") if self.whole == before else 0
        self.booleans += _count(found, times, "^(?i:true|false)$") if self.booleans == before and not plain else 0
        if self.whole == self.known:
            self.commas += total
            self.codes += _count(found, times, "^0[0-9]+$")
        elif not plain or 2 * self.commas >= before:
            self.commas += _count(found, times, COMMA_NUMBER)
        if self.two_ways is None and self.points == self.commas > self.whole:
            self.two_ways = next((found[int(place)].as_py() for place in np.flatnonzero(matching(found, TWO_WAYS))[:1]), None)

    def prune(self) -> None:
        """Keep the more frequent half of the words of a categorical column, and none of another."""
        self.beyond = max(self.beyond, len(self.words))
        self.words = Counter(dict(self.words.most_common(len(self.words) // 2))) if self.categorical else Counter()


def _count(found: "pa.Array", times: Any, pattern: str) -> int:
    return int(times[matching(found, pattern)].sum())


def surveyed(
    batches: Iterable["pa.RecordBatch"], names: Iterable[str], categorical: Iterable[str], missing: Mapping[str, Sequence[str]]
) -> dict[str, Tally]:
    """Return what the named columns hold, in one pass; by column, what stands for `missing` values."""
    forced = set(categorical)
    tallies = {name: Tally(name in forced) for name in names}
    for batch in batches:
        for name, tally in tallies.items():
            values, given = decoded(batch.column(name)), missing.get(name)
            tally.add(without_given(values, given) if given else values)
        if sum(len(tally.words) for tally in tallies.values()) > MOST_WORDS:
            for tally in tallies.values():
                if len(tally.words) > MOST_WORDS // 2 // len(tallies):
                    tally.prune()
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
    """How a surveyed column is packed, or (None) why it is not: `refusal` for one that must be dropped by name, `mixed` where its numbers
    have several units; and a `note`."""

    column: PackedColumn | None
    refusal: str | None = None
    note: str | None = None
    mixed: bool = False


def interpreted(name: str, tally: Tally, categorical: bool, decimal: DecimalSign | None = None) -> Found:
    """Return how a surveyed column is packed; `decimal` is the decimal sign of the table's other columns, where they agree on one."""
    if tally.known == 0:
        return Found(None, note=f"column '{name}' is empty: all {tally.missing:,} values are missing; it is left out")
    if categorical:
        return _category(name, tally)
    if tally.codes and tally.whole == tally.known:
        note = f"column '{name}' holds whole numbers of which some begin with 0: codes, not quantities; they are taken as categories"
        return replace(_words(name, tally), note=note)
    if max(tally.points, tally.commas) >= SHARE_OF_KIND * tally.known:
        odd = tally.dress.odd(tally.known)
        if odd > (1 - SHARE_OF_KIND) * tally.known:
            return Found(None, refusal=f"'{name}' (numbers in several units: {tally.dress.counted(tally.known)})", mixed=True)
        return _number(name, tally, decimal)
    if tally.booleans == tally.known:
        return Found(PackedColumn(name, "boolean", text=True))
    if tally.holds_kind:
        column, said = tally.dates.column(name)
        return Found(column, note=said)
    return _words(name, tally)


def _words(name: str, tally: Tally) -> Found:
    """Return a column of words as categories; refused where nearly all are different."""
    if tally.beyond or (tally.different > SHARE_OF_TEXT * tally.known and tally.different > FEWEST_TEXTS):
        shares = ", ".join(
            f"{100 * count / tally.known:.0f}% are {what}"
            for what, count in (("numbers", max(tally.points, tally.commas)), ("dates", tally.dates.total))
            if count
        )
        different = f"{'more than ' if tally.beyond else ''}{tally.different:,} different values in {tally.known:,} rows"
        return Found(None, refusal=f"'{name}' ({different}{'; ' + shares if shares else ''})")
    return _category(name, tally)


def _number(name: str, tally: Tally, elsewhere: DecimalSign | None) -> Found:
    """Return a column of numbers, and a note where neither it nor the others tell what its decimal sign is."""
    chosen, word, note = tally.decimal or elsewhere or ".", tally.two_ways, None
    if word and tally.decimal is None and elsewhere is None:
        ways = word.replace(",", "."), word.replace(",", "").replace(".", "")
        read = ways[0] if chosen in word else ways[1]
        note = f"column '{name}' holds numbers like '{word}', which could be {ways[0]} or {ways[1]}; it was read as {read}"
    column = PackedColumn(name, "number", text=True, decimal=chosen, integer=tally.whole == tally.known)
    column = replace(column, unit=tally.dress.unit(tally.known), grouping=tally.dress.grouping)
    return Found(column, note="; ".join(filter(None, (tally.dress.note(column), note))) or None)


def _category(name: str, tally: Tally) -> Found:
    ordered = sorted(tally.words, key=lambda word: (-tally.words[word], word))
    note = None
    if tally.beyond:
        note = f"column '{name}' has more than {tally.beyond:,} different values; only the most frequent are told apart"
    return Found(PackedColumn(name, "category", text=True, vocabulary=tuple(ordered)), note=note)
