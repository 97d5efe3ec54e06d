"""Which column plays which part, and whether it can."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from batchlab.errors import BadInput, UnknownName
from batchlab.records import Record
from batchlab.table.target import TaskChoice

if TYPE_CHECKING:
    import pyarrow as pa


def _words(given: Any) -> Any:
    """Return what stands for missing values as text; one value is a list of one, and 9999.0 is 9999."""
    several = given if isinstance(given, list | tuple) else [given]
    return [f"{one:.15g}" if isinstance(one, int | float) and not isinstance(one, bool) else one for one in several]


class WindowRule(Record):
    """What a model sees at once: a row and those before it, `rows` in all, of the same group (`columns.group`) in the order of time
    (`columns.time`, else that of the rows). It predicts the target `horizon` rows later; from 1 on the target's own past is a feature.

    No window reaches over a `gap`: a step in time longer than that, a number in the time column's unit or a duration like "5 days" for
    dates; without one given, ten times the median step.
    """

    rows: int = Field(ge=2, le=100_000)
    horizon: int = Field(1, ge=0, le=100_000)
    gap: float | str | None = None


class ColumnRule(Record):
    """What the user says of columns: `drop` these, take those as `categorical`; which orders rows by time, groups them, or is their key.

    A date column of time, the group and the key are no features. What is written like one of `missing` in a feature or the target, or is
    the same number, is missing. With a `window` a model sees several rows of a group at once.
    """

    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    time: str | None = None
    group: str | None = None
    key: str | None = None
    missing: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    window: WindowRule | None = None


class EncodingRule(Record):
    """How categories become inputs: `one_hot`, or `embedding` (mlp only); at most `most_categories` of the training rows' values each,
    the most frequent ones; the others share one input."""

    categories: str = Field("one_hot", pattern="^(one_hot|embedding)$")
    most_categories: int = Field(64, ge=1, le=100_000)


class CheckRule(Record):
    """What may be wrong with a table: at most this share of its rows may be put into quarantine."""

    largest_quarantined: float = Field(0.05, ge=0, le=1)


class Columns(ColumnRule):
    """Which column plays which part."""

    target: str
    task: TaskChoice = "auto"
    weight: str | None = None

    @property
    def parts(self) -> dict[str, str]:
        """The named columns that are no ordinary features, by the part they play."""
        parts = {"target": self.target, "weight": self.weight, "time": self.time, "group": self.group, "key": self.key}
        return {part: name for part, name in parts.items() if name is not None}

    def features(self, schema: "pa.Schema") -> tuple[str, ...]:
        """All columns but those dropped, the target (unless what is predicted is a later one), the weights, the group, the key, and a date
        that orders the rows."""
        others = {name for part, name in self.parts.items() if part != "time"} | set(self.drop)
        if self.window is not None and self.window.horizon:
            others -= {self.target}
        if self.time and not is_number(schema.field(self.time).type):
            others |= {self.time}
        return tuple(name for name in schema.names if name not in others)


def check_columns(schema: "pa.Schema", columns: Columns) -> None:
    """Raise BadInput unless the named columns exist and their parts can be played together; needs no rows."""
    present = schema.names  # made anew at every call, which 10,000 columns feel
    if "" in present:
        number = present.index("") + 1
        raise BadInput(f"column {number} has no name (an index that pandas wrote?); name it, or write the file with index=False.")
    duplicates = sorted(name for name, count in Counter(present).items() if count > 1)
    if duplicates:
        raise BadInput(f"column names must be unique, but these occur twice or more: {', '.join(duplicates)}.")
    _check_header(schema, columns.target)
    named = {f"{part} column": [name] for part, name in columns.parts.items()}
    for what, names in {**named, "dropped column": columns.drop, "categorical column": columns.categorical}.items():
        for name in names:
            if name not in present:
                raise UnknownName(what, name, present)
    _check_parts(columns)
    if not columns.features(schema):
        raise BadInput(f"no feature column is left beside target '{columns.target}'; the columns are {', '.join(schema.names)}.")
    _check_types(schema, columns)


def _check_header(schema: "pa.Schema", target: str) -> None:
    """Raise BadInput where the first line seems to be no header, or not to have been cut."""
    if target in schema.names:
        return
    numbers = sum(name.lstrip("+-").replace(".", "", 1).isdigit() for name in schema.names)
    if 2 * numbers > len(schema.names):
        first = ", ".join(schema.names[:3])
        raise BadInput(
            f"target column '{target}' does not exist, and the columns are named {first} …: the first line must hold their names."
        )
    if len(schema.names) == 1 and (sign := next((sign for sign in ",;\t|" if sign in schema.names[0]), None)):
        raise BadInput(
            f"there is one column, '{schema.names[0]}': its values seem to be separated by {sign!r}; set source.delimiter to that."
        )


def _check_parts(columns: Columns) -> None:
    """Raise BadInput where one column is to play two parts that exclude each other."""
    for part, name in columns.parts.items():
        if part != "target" and name == columns.target:
            raise BadInput(f"'{name}' is both the target and the {part} column; name two columns.")
        if name in columns.drop:
            raise BadInput(f"'{name}' is the {part} column and cannot be dropped.")
    both = sorted(set(columns.drop) & set(columns.categorical))
    if both:
        raise BadInput(f"'{both[0]}' is both dropped and categorical; choose one.")


def _check_types(schema: "pa.Schema", columns: Columns) -> None:
    """Raise BadInput for types that cannot play their part; text may still turn out to hold numbers or dates."""
    if columns.time and not (orders_rows(kind := schema.field(columns.time).type) or is_text(kind)):
        raise BadInput(f"time column '{columns.time}' holds {kind}, which has no order in time; use numbers, dates or timestamps.")
    if columns.weight and not (is_number(kind := schema.field(columns.weight).type) or is_text(kind)):
        raise BadInput(f"weight column '{columns.weight}' holds {kind}; weights must be numbers.")
    for part, name in (("group", columns.group), ("key", columns.key)):
        if name and not is_plain(kind := schema.field(name).type):
            raise BadInput(f"{part} column '{name}' holds {kind}, whose values cannot be told apart here; use numbers, text or dates.")
    other = [f"'{name}' ({kind})" for name in columns.features(schema) if not is_plain(kind := schema.field(name).type)]
    if other:
        shown = ", ".join(other[:10]) + (f" and {len(other) - 10} more" if len(other) > 10 else "")
        raise BadInput(f"these columns hold what no model can use: {shown}; drop them (--drop), or encode them as numbers first.")


def is_plain(kind: "pa.DataType") -> bool:
    """Whether values of the type can be packed, or told apart."""
    import pyarrow as pa

    kind = value_type(kind)
    others = (pa.types.is_boolean, pa.types.is_time, pa.types.is_null)
    return is_number(kind) or is_text(kind) or orders_rows(kind) or any(fits(kind) for fits in others)


def is_number(kind: "pa.DataType") -> bool:
    """Whether the type is one of numbers; durations are, of seconds."""
    import pyarrow as pa

    kind = value_type(kind)
    return any(fits(kind) for fits in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_duration))


def is_text(kind: "pa.DataType") -> bool:
    """Whether the type is text, be it as a dictionary (a pandas Categorical)."""
    import pyarrow as pa

    kind = value_type(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def orders_rows(kind: "pa.DataType") -> bool:
    """Whether values of the type have an order in time."""
    import pyarrow as pa

    return bool(is_number(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def value_type(kind: "pa.DataType") -> "pa.DataType":
    """Return the type of the values: that of a dictionary's entries (a pandas Categorical), else the type itself."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind
