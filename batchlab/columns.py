"""Which column plays which part, and whether it can."""

from typing import TYPE_CHECKING

from batchlab.errors import BadInput, UnknownName
from batchlab.records import Record
from batchlab.target import TaskChoice

if TYPE_CHECKING:
    import pyarrow as pa


class Columns(Record):
    """Which column plays which part."""

    target: str
    task: TaskChoice = "auto"
    time: str | None = None
    weight: str | None = None


def check_columns(schema: "pa.Schema", columns: Columns) -> None:
    """Raise BadInput unless the named columns exist and every feature is numeric; needs no rows."""
    if "" in schema.names:
        number = schema.names.index("") + 1
        raise BadInput(f"column {number} has no name (an index that pandas wrote?); name it, or write the file with index=False.")
    duplicates = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if duplicates:
        raise BadInput(f"column names must be unique, but these occur twice or more: {', '.join(duplicates)}.")
    for what, name in (("target column", columns.target), ("split column", columns.time), ("weight column", columns.weight)):
        if name is not None and name not in schema.names:
            raise UnknownName(what, name, schema.names)
    if columns.weight == columns.target:
        raise BadInput(f"'{columns.weight}' is both the target and the weight column; name two columns.")
    if columns.time == columns.target:
        raise BadInput(f"'{columns.time}' is both the target and the column to split by; rows would be split by what is to be predicted.")
    if columns.time and not _orders_rows(schema.field(columns.time)):
        held = schema.field(columns.time).type
        raise BadInput(f"split column '{columns.time}' holds {held}, which has no order in time; use numbers, dates or timestamps.")
    features = feature_names(schema, columns)
    other = [f"'{name}' ({schema.field(name).type})" for name in features if not is_numeric(schema.field(name))]
    if other:
        shown = ", ".join(other[:10]) + (f" and {len(other) - 10} more" if len(other) > 10 else "")
        raise BadInput(f"these columns are not numeric: {shown}; drop them, or encode them as numbers first.")
    if not features:
        raise BadInput(f"no feature column is left beside target '{columns.target}'; the columns are {', '.join(schema.names)}.")
    if columns.weight and not is_numeric(schema.field(columns.weight)):
        raise BadInput(f"weight column '{columns.weight}' holds {schema.field(columns.weight).type}; weights must be numbers.")


def feature_names(schema: "pa.Schema", columns: Columns) -> tuple[str, ...]:
    """All columns but the target, the weights, and a time column that is no number (it only orders the rows)."""
    ordering = {columns.time} if columns.time and not is_numeric(schema.field(columns.time)) else set()
    return tuple(name for name in schema.names if name not in {columns.target, columns.weight} | ordering)


def is_numeric(field: "pa.Field") -> bool:
    """Whether the column holds integers, floats or decimals, or nothing at all."""
    import pyarrow as pa

    kind = value_type(field.type)
    empty = pa.types.is_null(kind)  # a column without a single value has no type; its values are refused with their count
    return bool(empty or is_integer(field) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _orders_rows(field: "pa.Field") -> bool:
    import pyarrow as pa

    return bool(is_numeric(field) or pa.types.is_timestamp(field.type) or pa.types.is_date(field.type))


def is_integer(field: "pa.Field") -> bool:
    """Whether the column holds integers."""
    import pyarrow as pa

    return bool(pa.types.is_integer(value_type(field.type)))


def value_type(kind: "pa.DataType") -> "pa.DataType":
    """Return the type of the values: that of a dictionary's entries (a pandas Categorical), else the type itself."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind
