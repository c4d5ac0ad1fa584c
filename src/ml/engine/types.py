"""One set of column types for the results of every engine."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as is_

from ml.engine.interface import QueryError

TIMESTAMP = pa.timestamp("us", tz="UTC")
STRINGS = pa.list_(pa.string())


def to_plain(table: pa.Table, query: str) -> pa.Table:
    """The same rows with columns of bool, int64, float64, date32, timestamp[us, UTC], string and list<string> only.

    Raises QueryError for a column that is none of these, such as a struct or an untyped NULL.
    """
    fields = [pa.field(field.name, _plain_type(field, query)) for field in table.schema]
    return table.replace_schema_metadata(None).cast(pa.schema(fields))


def _plain_type(field: pa.Field, query: str) -> pa.DataType:
    kind = field.type
    if is_.is_boolean(kind):
        return pa.bool_()
    if is_.is_integer(kind):
        return pa.int64()
    if is_.is_floating(kind) or is_.is_decimal(kind):
        return pa.float64()
    if is_.is_date(kind):
        return pa.date32()
    if is_.is_timestamp(kind):
        return TIMESTAMP
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return pa.string()
    if (is_.is_list(kind) or is_.is_large_list(kind)) and _plain_type(kind.value_field, query) == pa.string():
        return STRINGS
    raise QueryError(f"{query}: column {field.name} is {kind}; cast it to a plain type, or to array<string>")
