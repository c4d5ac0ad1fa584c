"""JSON lines that the Copy brought as lines: each object a row, and what is no object told line by line.

Data Factory's own JSON source fails a whole file for one bad line. So the Copy takes the lines as they are, one
text column, and they are read here: numbers keep the digits they were written with, objects and lists inside a
row are JSON text.
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
MAX_BAD = 10_000  # lines that are no JSON; with more, and more than half, the file is of another kind


class NotJsonError(ValueError):
    """Most lines are no JSON objects."""


def convert(
    file: pq.ParquetFile,
    to: Path,
    day: date,
    name: str,
    source: str,
    columns: Sequence[str],
    unparsed: list[Skipped],
) -> list[str]:
    """Write the lines of `file` as rows (`_row`, the known `columns`) to `to`; the names that the objects have.

    Lines that are no objects go to `unparsed`. Raises NotJsonError when most of very many are none.
    """
    schema = pa.schema({"_row": pa.int64()} | dict.fromkeys(columns, pa.string()))
    found: dict[str, None] = {}
    number = 0
    with pq.ParquetWriter(to, schema) as writer:
        for batch in file.iter_batches(BATCH_ROWS, columns=[file.schema_arrow.names[0]]):
            records = []
            for line in batch.column(0).to_pylist():
                number += 1
                try:
                    record = _object(line)
                except ValueError as error:
                    unparsed.append(Skipped(day, name, source, line or "", str(error), number))
                    continue
                found.update(dict.fromkeys(record))
                records.append({"_row": number, **record})
            if len(unparsed) > MAX_BAD and 2 * len(unparsed) > number:
                first = unparsed[0]
                raise NotJsonError(
                    f"{len(unparsed)} of its first {number} lines are no JSON objects, such as row {first.row} "
                    f"({first.message}); ask upstream for one JSON object a line"
                )
            # pyarrow takes the columns that the schema names, and NULL for those a record lacks
            writer.write_table(pa.Table.from_pylist(records, schema))
    return list(found)


def _object(line: str | None) -> dict[str, str | None]:
    """A line as a row of texts. Raises ValueError saying what is wrong with it."""
    record = json.loads(line or "", parse_int=str, parse_float=str, parse_constant=_no_constant)
    if not isinstance(record, dict):
        raise ValueError(f"found {_kind(record)}, not an object")
    if any(map(_nested, record.values())):
        plain = json.loads(line or "")  # numbers inside stay numbers
        record |= {name: json.dumps(plain[name], ensure_ascii=False) for name in record if _nested(plain[name])}
    return {
        name: ("true" if value else "false") if isinstance(value, bool) else value for name, value in record.items()
    }


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text or number", bool: "true or false"}.get(type(value), "null")
