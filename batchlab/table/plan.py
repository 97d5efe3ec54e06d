"""How each column of a source is packed: told by its type, or found out in a first pass."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchlab.errors import BadInput
from batchlab.serving.batchlab_serving import PackedColumn
from batchlab.sources.base import Reading
from batchlab.table.columns import Columns, is_number, value_type
from batchlab.table.survey import Found, Tally, interpreted, needs_survey, surveyed, typed
from batchlab.table.target import MOST_CLASSES

if TYPE_CHECKING:
    import pyarrow as pa

OnShare = Callable[[str, float], None]


@dataclass(frozen=True)
class Plan:
    """How the features, the target and the named columns are packed, and what people should know of it."""

    features: tuple[PackedColumn, ...]
    target: PackedColumn
    time: PackedColumn | None
    weight: PackedColumn | None
    notes: tuple[str, ...] = ()


def planned(reading: Reading, columns: Columns, on_share: OnShare) -> Plan:
    """Return the plan, after a pass over the source where its types do not tell.

    Raises BadInput that names the columns that hold text, and for a target or named column that cannot play its part.
    """
    tallies = _tallies(reading, columns, on_share)
    signs = {tally.decimal for tally in tallies.values()} - {None}
    decimal = signs.pop() if len(signs) == 1 else None
    given = columns.missing
    found = {name: interpreted(name, tally, tally.categorical and name != columns.target, decimal) for name, tally in tallies.items()}
    features = _features(columns, reading.schema, found)
    refused = [item.refusal for name, item in found.items() if item.refusal and name in features and name != columns.target]
    if refused:
        shown = ", ".join(refused[:10]) + (f" and {len(refused) - 10} more" if len(refused) > 10 else "")
        raise BadInput(
            f"these columns hold text that no model here can use: {shown}; leave them out with --drop, take them as categories with "
            "--categorical, or encode them as numbers first."
        )

    target = _target(columns.target, tallies.get(columns.target), found.get(columns.target), reading.schema)
    target = replace(target, missing=given)

    def packed(name: str) -> PackedColumn | None:
        if name == columns.target:  # its own past is a feature
            return target
        known = found[name].column if name in found else typed(name, reading.schema.field(name).type)
        return replace(known, missing=given) if known is not None and name not in (columns.time, columns.weight) else known

    kept = tuple(column for name in features if (column := packed(name)) is not None)
    if not kept:
        raise BadInput("no feature column is left: all others are empty.")
    notes = tuple(item.note for name, item in found.items() if item.note and name in {**features, columns.target: None})
    time, weight = (packed(name) if name else None for name in (columns.time, columns.weight))
    _check_named(columns, time, weight)
    return Plan(kept, target, time, weight, notes)


def _features(columns: Columns, schema: "pa.Schema", found: dict[str, Found]) -> dict[str, None]:
    """Return the names of the features in their order; a time column of numbers is one, also where they are written as text."""
    names = {*columns.features(schema)}
    if columns.time in found and (time := found[str(columns.time)].column) is not None and time.kind == "number":
        names.add(str(columns.time))
    return dict.fromkeys(name for name in schema.names if name in names)


def _check_named(columns: Columns, time: PackedColumn | None, weight: PackedColumn | None) -> None:
    if columns.time and (time is None or time.kind not in ("number", "datetime")):
        raise BadInput(f"time column '{columns.time}' holds text that is neither numbers nor dates in a known format.")
    if columns.weight and (weight is None or weight.kind != "number"):
        raise BadInput(f"weight column '{columns.weight}' holds no numbers; weights must be numbers.")


def _tallies(reading: Reading, columns: Columns, on_share: OnShare) -> dict[str, Tally]:
    """Return what the first pass counted; nothing, and no pass, where all types tell."""
    wanted = {*columns.features(reading.schema), columns.target, *filter(None, (columns.time, columns.weight))}
    unclear = [field.name for field in reading.schema if field.name in wanted and needs_survey(field.type, field.name, columns.categorical)]
    if not unclear:
        return {}

    def batches() -> "Iterator[pa.RecordBatch]":
        for batch in reading.batches(lambda line: None):
            on_share("looking at the columns", reading.share_read)
            yield batch

    missing = {name: columns.missing for name in unclear if name not in (columns.time, columns.weight)}
    return surveyed(batches(), unclear, columns.categorical, missing)


def _target(name: str, tally: Tally | None, found: Found | None, schema: "pa.Schema") -> PackedColumn:
    """Return how the target is packed: as numbers, or as words in sorted order."""
    import pyarrow as pa

    kind = value_type(schema.field(name).type)
    if tally is None or found is None:
        if pa.types.is_null(kind):
            raise BadInput(f"target '{name}' is missing in all rows; name another column with --target.")
        if not (is_number(kind) or pa.types.is_boolean(kind)):
            raise BadInput(f"target '{name}' holds {kind}, which cannot be learnt; use numbers, text or booleans.")
        return typed(name, kind)
    if tally.known == 0:
        if tally.missing == 0:
            raise BadInput(f"there are no rows, so target '{name}' has no values.")
        raise BadInput(f"target '{name}' is missing in all {tally.missing:,} rows; name another column with --target.")
    if found.column is not None and found.column.kind == "number":
        return found.column
    if found.mixed:
        raise BadInput(f"target {found.refusal} cannot be learnt; give its values one unit.")
    if found.column is not None and found.column.kind == "datetime":
        raise BadInput(f"target '{name}' holds dates, which cannot be learnt; make a number of them, such as the days until then.")
    if tally.beyond or tally.different > MOST_CLASSES:
        raise BadInput(
            f"target '{name}' holds text with {'more than ' if tally.beyond else ''}{tally.different:,} different values, more than "
            f"{MOST_CLASSES} classes; name another column with --target."
        )
    return PackedColumn(name, "category", text=True, vocabulary=tuple(sorted(tally.words)))
