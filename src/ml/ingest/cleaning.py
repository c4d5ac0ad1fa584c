"""Cleans a source's bronze rows with its query: each becomes a silver row, a refusal with its reasons, or a duplicate."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ml.ingest import bronze
from ml.ingest.clean_query import CleanQuery, load_clean_query
from ml.ingest.corrections import LINE
from ml.storage import tables

if TYPE_CHECKING:
    from ml.config import SourceConfig
    from ml.ingest.copy_log import Skipped

UNPARSED = "the row could not be parsed"
BATCH_ROWS = 50_000  # in memory at once
QUARANTINE_SCHEMA = pa.schema(
    {"day": pa.date32(), "_file": pa.string(), "_row": pa.int64()}
    | dict.fromkeys(("column", "reason", "remedy", "record"), pa.string())
)


@dataclass
class Outcomes:
    """Row counts by day and outcome. `reasons` counts refused rows; a row with two reasons counts for both."""

    silver: Counter[date] = field(default_factory=Counter)
    quarantined: Counter[date] = field(default_factory=Counter)
    duplicates: Counter[date] = field(default_factory=Counter)
    reasons: defaultdict[date, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


@dataclass(frozen=True)
class Cleaned:
    """Small tables ordered by day, file and row. `duplicates` counts dropped rows by day."""

    silver: pa.Table
    quarantine: pa.Table
    duplicates: Counter[date]


def clean(source: SourceConfig, rows: pa.Table, skipped: Sequence[Skipped]) -> Cleaned:
    """Clean bronze rows (`_day`, `_file`, `_row` and the source's columns as text, in that order) in memory.

    `skipped` rows, which could not be parsed, are refusals too. Raises ConfigError for a query that loses or invents rows.
    """
    query = load_clean_query(source)
    numbered = rows.append_column("_id", pa.array(np.arange(rows.num_rows, dtype=np.int64)))
    outcomes = Outcomes()
    silver, quarantine = [query.silver.empty_table()], []
    for accepted, refused in _clean_pieces(
        source, query, ds.dataset(numbered), iter(numbered.to_batches()), skipped, outcomes
    ):
        silver.append(accepted)
        quarantine.append(refused)
    return Cleaned(pa.concat_tables(silver), pa.concat_tables(quarantine), outcomes.duplicates)


def clean_file(
    source: SourceConfig, rows: Path, skipped: Sequence[Skipped], silver: Path, quarantine: Path
) -> Outcomes:
    """Clean a parquet file of bronze rows with their `_id` (0, 1, 2, …), of any size.

    Writes two parquet files, both ordered by `_id`, and returns the counts. Raises ConfigError for a query that loses or
    invents rows.
    """
    query = load_clean_query(source)
    outcomes = Outcomes()
    received = pq.ParquetFile(rows).iter_batches(BATCH_ROWS)
    with (
        pq.ParquetWriter(silver, query.silver) as silver_file,
        pq.ParquetWriter(quarantine, QUARANTINE_SCHEMA) as quarantine_file,
    ):
        for accepted, refused in _clean_pieces(source, query, ds.dataset(rows), received, skipped, outcomes):
            silver_file.write_table(accepted)
            quarantine_file.write_table(refused)
    return outcomes


def _clean_pieces(
    source: SourceConfig,
    query: CleanQuery,
    rows: ds.Dataset,
    batches: Iterator[pa.RecordBatch],
    skipped: Sequence[Skipped],
    outcomes: Outcomes,
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Silver and quarantine rows, piece by piece; adds them to the counts in `outcomes`."""
    row_columns = ("_id", *bronze.ROW_FIELDS)
    columns = {name: pc.field(name) for name in row_columns}
    columns |= {name: _trimmed_field(name) for name in source.columns}
    received_rows = _ReceivedRows(source, batches)
    for piece in query.stream(rows.scanner(columns, **tables.STREAMING)):
        received = received_rows.take(piece.num_rows)
        query.check(piece, received)
        outcome = piece["outcome"]
        accepted = piece.filter(pc.equal(outcome, "silver")).select(query.silver.names)
        refused = piece.filter(pc.equal(outcome, "quarantined"))
        quarantine = _quarantine_rows(source, refused, received.filter(pc.equal(outcome, "quarantined")))
        outcomes.silver.update(count_per_day(accepted))
        outcomes.quarantined.update(count_per_day(quarantine))
        outcomes.duplicates.update(count_per_day(piece.filter(pc.equal(outcome, "duplicate"))))
        for day, reason in zip(refused["day"].to_pylist(), refused["reason"].to_pylist(), strict=True):
            outcomes.reasons[day].update(reason.split("; "))
        yield accepted, quarantine
    if left := received_rows.count_left():
        raise query.lost(left)
    for row in skipped:
        outcomes.quarantined[row.day] += 1
        outcomes.reasons[row.day][UNPARSED] += 1
    yield query.silver.empty_table(), _unparsed_rows(skipped)


class _ReceivedRows:
    """Rows as received, which come in batches and are taken in pieces of any size, in order."""

    def __init__(self, source: SourceConfig, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._remaining = bronze.schema(source).append(pa.field("_id", pa.int64())).empty_table()

    def take(self, count: int) -> pa.Table:
        """The next `count` rows; fewer when there are no more."""
        parts, present = [self._remaining], self._remaining.num_rows
        while present < count and (batch := next(self._batches, None)) is not None:
            parts.append(pa.Table.from_batches([batch]).select(self._remaining.column_names))
            present += batch.num_rows
        rows = pa.concat_tables(parts)
        self._remaining = rows.slice(count)
        return rows.slice(0, count)

    def count_left(self) -> int:
        return self._remaining.num_rows + sum(batch.num_rows for batch in self._batches)


def count_per_day(rows: pa.Table) -> Counter[date]:
    """Number of rows by `day`."""
    return Counter({pair["values"]: pair["counts"] for pair in pc.value_counts(rows["day"]).to_pylist()})


def trim(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without white space around; NULL where nothing remains."""
    trimmed = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed)


def _trimmed_field(name: str) -> ds.Expression:
    """The same for a column, computed while a file is read."""
    text = pc.utf8_trim_whitespace(pc.field(name))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _quarantine_rows(source: SourceConfig, refused: pa.Table, received: pa.Table) -> pa.Table:
    """One row of the source's quarantine per refused row, with the row as it was received."""
    names = source.column_names
    values = [received[name].to_pylist() for name in names]
    records = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in zip(*values, strict=True)]
    columns = {
        "day": refused["day"],
        "_file": refused["_file"],
        "_row": refused["_row"],
        "column": refused["refused_column"],
        "reason": refused["reason"],
        "remedy": refused["remedy"],
        "record": pa.array(records, pa.string()),
    }
    return pa.table(columns, schema=QUARANTINE_SCHEMA)


def _unparsed_rows(skipped: Sequence[Skipped]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "day": row.day,
                "_file": row.file,
                "_row": row.row,
                "reason": f"{UNPARSED}: {row.message}",
                "remedy": "ask upstream to write the row in the form of the others, and to land the file again",
                "record": json.dumps({LINE: row.item}, ensure_ascii=False),
            }
            for row in skipped
        ],
        schema=QUARANTINE_SCHEMA,
    )
