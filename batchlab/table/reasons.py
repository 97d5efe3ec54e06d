"""Why rows of a portion cannot be used."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchlab.serving.batchlab_serving import DAY, PackedColumn, as_words, number_words, shown, without_missing
from batchlab.table import contract as contracts
from batchlab.table.writing import Quarantine, text_of

if TYPE_CHECKING:
    import pyarrow as pa


class Reasons:
    """Which rows of a portion cannot be used; the first reason found counts."""

    def __init__(self, batch: "pa.RecordBatch", quarantine: Quarantine, rows_before: int) -> None:
        self.batch, self.quarantine, self.rows_before = batch, quarantine, rows_before
        self.usable = np.ones(batch.num_rows, bool)

    def put(self, flags: NDArray[np.bool_], reason: str, column: str, details: "dict[int, str] | None" = None) -> None:
        """Put the flagged rows into quarantine, unless they are there."""
        if not flags.any():
            return
        for row in np.flatnonzero(flags & self.usable).tolist():
            detail = reason if details is None else details[row]
            self.quarantine.add(reason, detail, text_of(self.batch, row), row=self.rows_before + row, column=column)
        self.usable &= ~flags

    def leave_out(self, flags: NDArray[np.bool_]) -> None:
        """Leave rows out that are not bad, but nothing to learn from: they are counted, not kept."""
        self.usable &= ~flags

    def unreadable(self, column: PackedColumn, flags: NDArray[np.bool_], values: "pa.Array") -> None:
        """Put rows into quarantine whose value cannot be read as the column's kind."""
        date = "a date in a known format" if column.text else "a date within 280,000 years of 1970"
        what = {"number": number_words(column), "boolean": "true or false", "datetime": date, "category": "a category"}[column.kind]
        rows = np.flatnonzero(flags & self.usable).tolist()
        details = {row: f"column '{column.name}': {shown(values[row])} is not {what}" for row in rows}
        self.put(flags, f"column '{column.name}' holds what is not {what}", column.name, details)

    def outside(self, column: PackedColumn, terms: contracts.ColumnTerms, found: NDArray[np.float64], values: "pa.Array") -> None:
        """Put rows into quarantine whose value the contract does not allow."""
        flags = np.zeros(len(values), bool) if terms.values is None else _not_among(values, terms.values)
        if column.kind == "datetime" and column.parts[0] == "days":
            flags |= contracts.outside(terms, found[:, 0] * DAY)
        elif column.kind in ("number", "boolean"):
            flags |= contracts.outside(terms, found[:, 0])
        if flags.any():
            rows = np.flatnonzero(flags).tolist()
            allowed = contracts.described(terms)
            details = {row: f"column '{column.name}': {shown(values[row])} is outside its contract ({allowed})" for row in rows}
            self.put(flags, contracts.outside_reason(column.name), column.name, details)


def _not_among(values: "pa.Array", allowed: "tuple[str, ...]") -> NDArray[np.bool_]:
    """Return which values `[rows]`, as text, are none of those allowed; missing ones are not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = without_missing(as_words(values))
    known = pc.or_(pc.is_null(words), pc.is_in(words, value_set=pa.array(allowed, words.type)))
    return np.asarray(pc.invert(known).to_numpy(zero_copy_only=False), bool)
