"""The query that digests the rows of a table, per value of one column: equal rows, equal digest, on every engine.

The order of the rows does not count, repeated rows count as often as they occur. Each value is written in one canonical
text that begins with its type, so the integer 1, the text '1' and the number 1.0 differ; a text carries its length, so no
value can pretend to be two. NULL is left out: a column that is added and has no values yet changes no digest. Columns
that begin with `_` say where a row came from and are not part of its content.

A row's MD5 is added up in four parts of 32 bits. That is no protection against an attacker, and needs none: it tells
whether a day is what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
import pyarrow.types as is_

from ml.engine.interface import QueryError

EMPTY_DIGEST = "0" * 32  # of a day without rows
PARTS = ("part_1", "part_2", "part_3", "part_4")
_MANTISSA = 2**52

Dialect = Literal["duckdb", "spark"]
_INTEGER_OF_HEX: Mapping[Dialect, str] = {
    "duckdb": "CAST('0x' || substr(hash, {start}, 8) AS BIGINT)",
    "spark": "CAST(conv(substr(hash, {start}, 8), 16, 10) AS BIGINT)",
}
_DAYS: Mapping[Dialect, str] = {
    "duckdb": "date_diff('day', DATE '1970-01-01', {x})",
    "spark": "datediff({x}, DATE '1970-01-01')",
}
_MICROSECONDS: Mapping[Dialect, str] = {"duckdb": "epoch_us({x})", "spark": "unix_micros({x})"}
_ELEMENTS: Mapping[Dialect, str] = {
    "duckdb": "array_to_string(list_transform({x}, lambda element: {text}), '')",
    "spark": "array_join(transform({x}, element -> {text}), '')",
}
_SIZE: Mapping[Dialect, str] = {"duckdb": "len({x})", "spark": "size({x})"}


def digest_sql(schema: pa.Schema, table: str, by: str, dialect: Dialect) -> str:
    """A query over `table` that gives `by` and the four PARTS of each group's digest.

    Raises QueryError for a column that is not of a plain type, or when there is no column `by`.
    """
    if by not in schema.names:
        raise QueryError(f"{table}: no column {by} to digest by; it has {', '.join(schema.names)}")
    quote = _quote_duckdb if dialect == "duckdb" else _quote_spark
    names = sorted(name for name in schema.names if not name.startswith("_") and name != by)
    fields = [_field(name, schema.field(name).type, quote(name), dialect) for name in names]
    line = f"concat({', '.join([*fields, _text('')])})"
    sums = [
        f"CAST(sum({_INTEGER_OF_HEX[dialect].format(start=1 + 8 * place)}) % 4294967296 AS BIGINT) AS {part}"
        for place, part in enumerate(PARTS)
    ]
    hashed = ["SELECT", quote(by), ",", f"md5({line})", "AS hash", "FROM", quote(table)]
    return " ".join(
        ["SELECT", quote(by), ",", ", ".join(sums), "FROM", "(", *hashed, ") AS hashed", "GROUP BY", quote(by)]
    )


def read_digests(result: pa.Table, by: str) -> dict[object, str]:
    """The digest, 32 hex digits, of each group, from the result of `digest_sql`."""
    parts = [result[part].to_pylist() for part in PARTS]
    return {
        value: "".join(f"{part:08x}" for part in digest)
        for value, digest in zip(result[by].to_pylist(), zip(*parts, strict=True), strict=True)
    }


def _field(name: str, kind: pa.DataType, column: str, dialect: Dialect) -> str:
    return f"coalesce({_text(f'{len(name)}:{name}=')} || {_canonical(name, kind, column, dialect)}, '')"


def _canonical(name: str, kind: pa.DataType, x: str, dialect: Dialect) -> str:
    """SQL that writes one value as text, NULL for NULL."""
    if is_.is_boolean(kind):
        return f"CASE WHEN {x} THEN 'b1' WHEN NOT {x} THEN 'b0' END"
    if is_.is_integer(kind):
        return f"'i' || {_as_text(x)}"
    if is_.is_floating(kind):
        return _canonical_double(f"CAST({x} AS DOUBLE)")
    if is_.is_date(kind):
        return f"'t' || {_as_text(_DAYS[dialect].format(x=x))}"
    if is_.is_timestamp(kind):
        return f"'u' || {_as_text(_MICROSECONDS[dialect].format(x=x))}"
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return _canonical_text(x)
    if is_.is_list(kind) or is_.is_large_list(kind):
        element = f"coalesce({_canonical_text('element')}, 'n')"
        elements = _ELEMENTS[dialect].format(x=x, text=element)
        return f"'l' || {_as_text(_SIZE[dialect].format(x=x))} || ':' || {elements}"
    raise QueryError(f"column {name} is {kind}: it cannot be digested; cast it to a plain type")


def _canonical_text(x: str) -> str:
    return f"('s' || {_as_text(f'length({x})')} || ':' || {x})"


def _canonical_double(x: str) -> str:
    """Sign, exponent and mantissa as integers: engines print a double in different ways, and compute these alike."""
    exponent = f"CAST(floor(log2(abs({x}))) AS BIGINT)"
    mantissa = f"(abs({x}) / power(CAST(2 AS DOUBLE), {exponent}))"

    def written(mantissa: str, exponent: str) -> str:
        return f"{_as_text(f'CAST({mantissa} * {_MANTISSA} AS BIGINT)')} || 'p' || {_as_text(exponent)}"

    # next to a power of two, the logarithm may be rounded to the other side
    return (
        f"CASE WHEN {x} IS NULL THEN NULL WHEN isnan({x}) THEN 'dnan' WHEN {x} = 0 THEN 'd0' "
        f"WHEN {x} = CAST('Infinity' AS DOUBLE) THEN 'dinf' WHEN {x} = CAST('-Infinity' AS DOUBLE) THEN 'd-inf' "
        f"ELSE (CASE WHEN {x} < 0 THEN 'd-' ELSE 'd' END) || (CASE "
        f"WHEN {mantissa} >= 2 THEN {written(f'({mantissa} / 2)', f'({exponent} + 1)')} "
        f"WHEN {mantissa} < 1 THEN {written(f'({mantissa} * 2)', f'({exponent} - 1)')} "
        f"ELSE {written(mantissa, exponent)} END) END"
    )


def _as_text(x: str) -> str:
    return f"CAST({x} AS STRING)"


def _text(value: str) -> str:
    """A SQL text literal of a column's name: letters, digits and punctuation without quotes or backslashes."""
    if "'" in value or "\\" in value:
        raise QueryError(f"{value!r}: a column's name with a quote or a backslash cannot be digested")
    return f"'{value}'"


def _quote_duckdb(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quote_spark(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
