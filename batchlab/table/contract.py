"""The data contract: what a table's columns were like when it was first packed, kept to be edited, and enforced from then on."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from batchlab.errors import BadInput
from batchlab.files.naming import file_name
from batchlab.files.received import text_of
from batchlab.records import Record
from batchlab.serving.batchlab_serving import Kind, PackedColumn
from batchlab.sources.base import Source
from batchlab.table.schema import ColumnFacts

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SURELY = 4.0
"""So many standard errors beyond what is allowed are no chance."""
MORE_MISSING = 0.05
"""So much larger a share of missing values than at first is still within an inferred contract."""


class ColumnTerms(Record):
    """What one column must be like: its range (of dates, as dates), and all `values` that are allowed, where they are given."""

    kind: Kind
    minimum: float | datetime | None = None
    maximum: float | datetime | None = None
    largest_missing: float = 1.0
    values: tuple[str, ...] | None = None


class Contract(Record):
    """What a source's columns must be like. `inferred_from` is the digest of the table that it was inferred from.

    A value out of range, or not among `values`, sends its row to quarantine; a column that is missing, of another kind or missing more
    values than allowed, or a key that occurs twice where `unique_key` is true, fails the run. Columns it does not name are free.
    """

    inferred_from: str
    target: str
    columns: dict[str, ColumnTerms]
    unique_key: bool = False

    @property
    def digest(self) -> str:
        """A digest of the terms."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def inferred(facts: Sequence[ColumnFacts], target: str, digest: str, unique_key: bool, time: str | None = None) -> Contract:
    """Return a contract that this table keeps with room to grow: ranges widened by their span, dates and times free to go on."""
    columns = {item.name: _terms(item, item.ascending or item.name == time) for item in facts}
    return Contract(inferred_from=digest, target=target, columns=columns, unique_key=unique_key)


def _terms(facts: ColumnFacts, goes_on: bool) -> ColumnTerms:
    largest = round(min(1.0, facts.missing_share + MORE_MISSING), 4)
    if facts.minimum is None or facts.maximum is None or facts.minimum == facts.maximum:
        return ColumnTerms(kind=facts.kind, largest_missing=largest)
    span = facts.maximum - facts.minimum
    if facts.kind == "datetime":
        return ColumnTerms(kind=facts.kind, minimum=_date(facts.minimum - span), largest_missing=largest)
    if goes_on:
        return ColumnTerms(kind=facts.kind, minimum=facts.minimum, largest_missing=largest)
    lowest = facts.minimum - span if facts.minimum < 0 else max(0.0, facts.minimum - span)
    return ColumnTerms(kind=facts.kind, minimum=lowest, maximum=facts.maximum + span, largest_missing=largest)


def _date(micros: float) -> datetime | None:
    """Return the date so many microseconds after 1970; None for one before the year 1 or after 9999, which cannot be written as one."""
    try:
        return EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return None


def path_of(source: Source, target: str, tables: Path, missing: Sequence[str] = ()) -> Path | None:
    """Return where the contract of the source and target is kept, another one where other values are `missing`: shares of missing values
    are part of it. None for sources that cannot change."""
    if source.identity is None:
        return None
    name, identity = file_name(f"{source.name}.{target}"), "\n".join([source.identity, *missing])
    return tables / "contracts" / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}.json"


def opened(path: Path) -> Contract | None:
    """Return the contract in the file `path`; None when there is none. Raises BadInput for one that an edit has broken."""
    if not path.exists() and not path.is_symlink():
        return None
    try:
        return Contract.model_validate_json(text_of(path))
    except ValidationError as error:
        first = error.errors()[0]
        said = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    except BadInput as error:
        said = str(error).rstrip(".")
    raise BadInput(f"contract '{path}' cannot be read: {said}; mend it, or delete it to infer it anew.")


def check_kinds(contract: Contract, columns: Sequence[PackedColumn], present: Sequence[str], forced: Sequence[str], path: Path) -> None:
    """Raise BadInput for columns that are missing or of another kind than the contract says, unless the user has `forced` theirs."""
    kinds = {column.name: column.kind for column in columns if column.name not in forced}
    wrong = [f"column '{name}' is missing" for name in contract.columns if name not in present]
    wrong += [
        f"column '{name}' holds {_several(kinds[name])} instead of {_several(terms.kind)}"
        for name, terms in contract.columns.items()
        if name in kinds and terms.kind != kinds[name] and {terms.kind, kinds[name]} != {"boolean", "number"}
    ]
    _raise(wrong, path)


def _several(kind: str) -> str:
    return {"category": "categories", "datetime": "dates"}.get(kind, f"{kind}s")


def check_missing(contract: Contract, facts: Sequence[ColumnFacts], path: Path) -> None:
    """Raise BadInput for columns that miss more values than the contract allows."""
    _raise(
        [
            f"column '{item.name}' misses {100 * item.missing_share:.1f}% of its values, more than {100 * terms.largest_missing:.1f}%"
            for item in facts
            if (terms := contract.columns.get(item.name)) is not None and item.missing_share > terms.largest_missing
        ],
        path,
    )


def check_fresh(contract: Contract, missing: Mapping[str, float], rows: int, path: Path) -> None:
    """Raise BadInput for columns that surely miss more values in the fresh rows alone (shares by column, of so many rows) than the contract
    allows: in a large table a file that lacks a column would go unnoticed."""
    wrong = []
    for name, share in missing.items():
        allowed = 1.0 if (terms := contract.columns.get(name)) is None else terms.largest_missing
        if share > allowed + SURELY * math.sqrt(allowed * (1 - allowed) / max(rows, 1)):
            wrong.append(f"column '{name}' misses {100 * share:.1f}% of its values in the fresh rows, more than {100 * allowed:.1f}%")
    _raise(wrong, path)


def check_key(contract: Contract, unique: bool, key: str, path: Path) -> None:
    """Raise BadInput for a key that occurs more than once though the contract says that it does not."""
    _raise([f"key column '{key}' holds values that occur more than once"] if contract.unique_key and not unique else [], path)


def _raise(wrong: Sequence[str], path: Path) -> None:
    if wrong:
        raise BadInput(f"the table breaks its contract: {'; '.join(wrong)}. Mend the data, or edit '{path}' (delete it to infer it anew).")


def demanded(counts: Mapping[str, int], contract: Contract | None, path: Path | None) -> str:
    """Say what the contract allows in the columns that broke it, and how to change that; nothing where none did."""
    terms = {} if contract is None else contract.columns
    broken = [f"'{name}' {described(its)}" for name, its in terms.items() if outside_reason(name) in counts]
    if not broken:
        return ""
    return f" The contract '{path}' allows {'; '.join(broken)}: where the new values are right, edit it (or delete it to infer it anew)."


def outside_reason(column: str) -> str:
    """Return the reason of rows whose value in the column the contract does not allow."""
    return f"column '{column}' is outside its contract"


def described(terms: ColumnTerms) -> str:
    """Say what the contract allows: a range, or the values."""
    if terms.values is not None:
        return ", ".join(terms.values[:10]) + (" …" if len(terms.values) > 10 else "")
    low, high = (bound if isinstance(bound, datetime | None) else f"{bound:,g}" for bound in (terms.minimum, terms.maximum))
    return f"{low} to {high}" if None not in (low, high) else (f"at most {high}" if low is None else f"at least {low}")


def _number(bound: float | datetime) -> float:
    """Return a bound as the number that packing compares: of a date its microseconds since 1970."""
    if not isinstance(bound, datetime):
        return bound
    return (bound if bound.tzinfo else bound.replace(tzinfo=UTC)).timestamp() * 1e6


def outside(terms: ColumnTerms, exact: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which numbers `[rows]` are outside the column's range; missing and infinite ones are not."""
    low = -np.inf if terms.minimum is None else _number(terms.minimum)
    high = np.inf if terms.maximum is None else _number(terms.maximum)
    with np.errstate(invalid="ignore"):
        flags: NDArray[np.bool_] = np.isfinite(exact) & ((exact < low) | (exact > high))
    return flags


def bounds(contract: Contract | None, name: str) -> ColumnTerms | None:
    """Return the terms that rows of the column can break; None without any."""
    terms = None if contract is None else contract.columns.get(name)
    limited = terms is not None and (terms.minimum is not None or terms.maximum is not None or terms.values is not None)
    return terms if limited else None
