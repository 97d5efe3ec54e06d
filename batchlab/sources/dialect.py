"""How a CSV file is written: what separates its values and what quotes them, found out from its beginning."""

import csv
import re
from dataclasses import dataclass
from typing import Literal

DELIMITERS = ",;\t|"
SAMPLE_ROWS = 200
NAMES = {"\t": "tab", " ": "space"}


@dataclass(frozen=True)
class Dialect:
    """The sign between values and the sign around them (empty: none)."""

    delimiter: str
    quote: str

    @property
    def description(self) -> str:
        """The dialect in words: `delimiter ';'`."""
        named = NAMES.get(self.delimiter, f"'{self.delimiter}'")
        return f"delimiter {named}" + ("" if self.quote == '"' else f", quote {self.quote or 'none'}")


def detected(sample: str, delimiter: str | None, quote: str | None) -> Dialect:
    """Return the dialect that cuts most of the sample's lines into as many values as its first, and what is given as given.

    The standard library's Sniffer is not used: it takes a decimal comma or a letter for a delimiter, and fails on one column.
    """
    mark = quote if quote is not None else _quote(sample)
    if delimiter is not None:
        return Dialect(delimiter, mark)
    scores = {sign: _score(sample, sign, mark) for sign in DELIMITERS}
    best = max(DELIMITERS, key=lambda sign: scores[sign])
    return Dialect(best, mark)


def _score(sample: str, delimiter: str, quote: str) -> tuple[float, int]:
    """Return the share of lines that have the header's number of columns, and that number; nothing for one column."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    rows = csv.reader(sample.splitlines(keepends=True), delimiter=delimiter, quotechar=quote or None, quoting=quoting)
    widths: list[int] = []
    try:
        for row in rows:
            if row:
                widths.append(len(row))
            if len(widths) > SAMPLE_ROWS:
                break
    except csv.Error:  # a value beyond its limit: judge by what came before
        pass
    if not widths or widths[0] == 1:
        return 0.0, 1
    return round(widths.count(widths[0]) / len(widths), 2), widths[0]


def _quote(sample: str) -> str:
    """Return the single quote where values stand between two of them and none between double quotes, else the double quote."""
    between = rf"(?:^|[{re.escape(DELIMITERS)}])%s[^'\"\n]*%s(?=[{re.escape(DELIMITERS)}\r\n]|\Z)"
    single = len(re.findall(between % ("'", "'"), sample, re.MULTILINE))
    double = len(re.findall(between % ('"', '"'), sample, re.MULTILINE))
    return "'" if single and not double else '"'
