"""Encodes rows as the bytes of a day file, in each format that may land. The same rows give the same bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv


def _delimited(rows: pa.Table, delimiter: str) -> bytes:
    written = io.BytesIO()
    csv.write_csv(rows, written, csv.WriteOptions(delimiter=delimiter, quoting_style="needed"))
    return written.getvalue()


def _jsonl(rows: pa.Table) -> bytes:
    lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows.to_pylist())
    return "".join(lines).encode()


def _parquet(rows: pa.Table) -> bytes:
    written = io.BytesIO()
    pq.write_table(rows, written, compression="snappy")
    return written.getvalue()


# by format, which is also the file extension
ENCODERS: Mapping[str, Callable[[pa.Table], bytes]] = {
    "csv": lambda rows: _delimited(rows, ","),
    "tsv": lambda rows: _delimited(rows, "\t"),
    "jsonl": _jsonl,
    "parquet": _parquet,
}
