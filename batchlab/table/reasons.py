"""Why rows of a portion cannot be used."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchlab.serving.batchlab_serving import DAY, PackedColumn, as_words
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

    def unreadable(self, column: PackedColumn, flags: NDArray[np.bool_], values: "pa.Array") -> None:
        """Put rows into quarantine whose value cannot be read as the column's kind."""
        what = {"number": "a number", "boolean": "true or false", "datetime": "a date in a known format", "category": "a category"}[
            column.kind
        ]
        rows = np.flatnonzero(flags & self.usable).tolist()
        details = {row: f"column '{column.name}': {values[row].as_py()!r} is not {what}" for row in rows}
        self.put(flags, f"column '{column.name}' holds what is not {what}", column.name, details)

    def outside(self, column: PackedColumn, terms: contracts.ColumnTerms, found: NDArray[np.float64], values: "pa.Array") -> None:
        """Put rows into quarantine whose value the contract does not allow."""
        if column.kind == "category":
            allowed = terms.values or ()
            flags = (
                np.array([word is not None and str(word) not in allowed for word in as_words(values).to_pylist()]) if terms.values else None
            )
        elif column.kind == "datetime":
            flags = contracts.outside(terms, found[:, 0] * DAY) if column.parts[0] == "days" else None
        else:
            flags = contracts.outside(terms, found[:, 0])
        if flags is not None and flags.any():
            details = {
                row: f"column '{column.name}': {values[row].as_py()!r} is outside its contract" for row in np.flatnonzero(flags).tolist()
            }
            self.put(flags, f"column '{column.name}' is outside its contract", column.name, details)
