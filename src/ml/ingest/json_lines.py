"""Parses JSON lines that the Copy brought as text: each object becomes a row, each other line an unparsed row.

Data Factory's own JSON source fails a whole file for one bad line. So the Copy takes the lines unchanged, as one text
column, and they are parsed here: numbers keep the digits they were written with, objects and lists inside a row
become JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ml.ingest.copy_log import Skipped

BATCH_ROWS = 20_000
MAX_UNPARSED = 10_000  # with more unparsed lines, and more than half of all, the file is not JSON lines


class NotJsonError(ValueError):
    """Most lines of a file are not JSON objects."""


def convert(
    file: pq.ParquetFile, to: Path, *, day: date, name: str, source: str, columns: Sequence[str]
) -> tuple[list[str], list[Skipped]]:
    """Write the lines of `file` as rows (`_row`, the known `columns`) to `to`.

    Returns the keys of all objects, and the lines that are no objects. Raises NotJsonError when most of very many
    lines are none.
    """
    schema = pa.schema({"_row": pa.int64()} | dict.fromkeys(columns, pa.string()))
    keys: dict[str, None] = {}
    unparsed: list[Skipped] = []
    number = 0
    with pq.ParquetWriter(to, schema) as writer:
        for batch in file.iter_batches(BATCH_ROWS, columns=[file.schema_arrow.names[0]]):
            records = []
            for line in batch.column(0).to_pylist():
                number += 1
                try:
                    record = _parse_object(line)
                except ValueError as error:
                    unparsed.append(
                        Skipped(day=day, name=name, file=source, item=line or "", message=str(error), row=number)
                    )
                    continue
                keys.update(dict.fromkeys(record))
                records.append({"_row": number, **record})
            if len(unparsed) > MAX_UNPARSED and 2 * len(unparsed) > number:
                first = unparsed[0]
                raise NotJsonError(
                    f"{len(unparsed)} of its first {number} lines are not JSON objects, such as row {first.row} "
                    f"({first.message}); ask upstream for one JSON object per line"
                )
            # pyarrow keeps the columns of the schema, and writes NULL for those that a record lacks
            writer.write_table(pa.Table.from_pylist(records, schema))
    return list(keys), unparsed


def _parse_object(line: str | None) -> dict[str, str | None]:
    """A line as a row of texts. Raises ValueError with what is wrong with it."""
    record = json.loads(line or "", parse_int=str, parse_float=str, parse_constant=_refuse_constant)
    if not isinstance(record, dict):
        raise ValueError(f"found {_kind(record)}, not an object")
    if any(map(_is_nested, record.values())):
        plain = json.loads(line or "")  # nested numbers stay numbers
        record |= {name: json.dumps(plain[name], ensure_ascii=False) for name in record if _is_nested(plain[name])}
    return {
        name: ("true" if value else "false") if isinstance(value, bool) else value for name, value in record.items()
    }


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text or number", bool: "true or false"}.get(type(value), "null")
