"""The columns of several files as those of one table."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from batchlab.errors import BadInput
from batchlab.serving.batchlab_serving import frequency_of, period_starts, starts_type

if TYPE_CHECKING:
    import pyarrow as pa

HIVE_MISSING = "__HIVE_DEFAULT_PARTITION__"


def unified(schemas: "list[tuple[str, pa.Schema]]") -> "pa.Schema":
    """Return the columns of all files, by name: int and float make float, and what a file lacks is missing there.

    The schemas are `decoded`. Raises BadInput naming the file and the column whose types go together in no way.
    """
    import pyarrow as pa

    together = schemas[0][1]
    for shown, here in schemas[1:]:
        if here == together:
            continue
        try:
            together = pa.unify_schemas([together, here], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise BadInput(_misfit(together, here, shown) or f"'{shown}' does not fit the other files: {error}") from error
    return together


def decoded(schema: "pa.Schema") -> "pa.Schema":
    """Return the schema with dictionary-encoded columns (pandas Categoricals) as their values, periods as the dates on which they begin,
    and without notes to other readers."""
    import pyarrow as pa

    return pa.schema([pa.field(field.name, _plain(field)) for field in schema])


def aligned(batch: "pa.RecordBatch", schema: "pa.Schema", constants: dict[str, Any]) -> "pa.RecordBatch":
    """Return the batch with the columns and types of the table, what its file lacks missing, and text held to be text."""
    import pyarrow as pa

    same_names = batch.schema.names == schema.names
    columns = []
    for place, field in enumerate(schema):
        if field.name in constants:
            column = pa.repeat(pa.scalar(constants[field.name], field.type), batch.num_rows)
        else:
            position = place if same_names else batch.schema.get_field_index(field.name)
            column = batch.column(position) if position >= 0 else pa.nulls(batch.num_rows, field.type)
            if column.type != field.type:
                column = _cast(column, batch.schema.field(position), field.type)
        columns.append(column)
    for column in columns:
        if not pa.types.is_primitive(column.type):
            column.validate(full=True)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@dataclass(frozen=True)
class Partitions:
    """Columns that are kept in the names of folders, as Hive does: `year=2024/part.parquet`."""

    names: tuple[str, ...]
    are_integer: tuple[bool, ...]

    @classmethod
    def of(cls, files: list[str]) -> "Partitions":
        """Find the columns in the names of files; a column is of integers when all its values are."""
        found = [_pairs(name) for name in files]
        names = tuple(dict.fromkeys(key for pairs in found for key in pairs))
        held = [[pairs[key] for pairs in found if pairs.get(key) is not None] for key in names]
        integer = tuple(bool(values) and all(re.fullmatch(r"-?\d{1,18}", value or "") for value in values) for values in held)
        return cls(names, integer)

    def added_to(self, schema: "pa.Schema") -> "pa.Schema":
        """Return the schema with the columns at its end; those that the files hold too are taken from the folders' names."""
        import pyarrow as pa

        for name, integer in zip(self.names, self.are_integer, strict=True):
            if name in schema.names:
                schema = schema.remove(schema.get_field_index(name))
            schema = schema.append(pa.field(name, pa.int64() if integer else pa.string()))
        return schema

    def values_of(self, file: str) -> dict[str, int | str | None]:
        """Return the values of the columns for the rows of a file."""
        pairs = _pairs(file)
        kinds = zip(self.names, self.are_integer, strict=True)
        return {name: int(value) if integer and (value := pairs.get(name)) is not None else pairs.get(name) for name, integer in kinds}


def _pairs(name: str) -> dict[str, str | None]:
    parts = [part.partition("=") for part in name.split("/")[:-1] if "=" in part]
    return {key: None if value == HIVE_MISSING else unquote(value) for key, _, value in parts}


def _cast(column: "pa.Array", held: "pa.Field", kind: "pa.DataType") -> "pa.Array":
    """Return a column, that the file holds as `held`, as values of the type."""
    import pyarrow as pa

    frequency = frequency_of(column.type, held.metadata)
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if frequency is not None:
        column = period_starts(column, frequency)
    return column.cast(kind, safe=False)


def _plain(field: "pa.Field") -> "pa.DataType":
    """Return the type that a column is read as."""
    import pyarrow as pa

    kind = field.type
    if (frequency := frequency_of(kind, field.metadata)) is not None:
        return starts_type(frequency)
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_string_view(kind) else kind  # few of pyarrow's functions take views


def _misfit(together: "pa.Schema", here: "pa.Schema", shown: str) -> str | None:
    """Say which column of the file does not fit, and how."""
    import pyarrow as pa

    for field in here:
        twice = next((names for names in (together.names, here.names) if names.count(field.name) > 1), None)
        if twice:
            return f"'{shown}': column '{field.name}' occurs twice, so that the files' columns cannot be matched by name; rename one."
        if field.name not in together.names:
            continue
        before = together.field(field.name)
        try:
            pa.unify_schemas([pa.schema([before]), pa.schema([field])], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            return f"'{shown}': column '{field.name}' holds {field.type}, but {before.type} in the files before; give it one type in all."
    return None
