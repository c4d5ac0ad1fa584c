"""Bronze rows into silver rows, refusals with their reasons, and duplicates: `include/sql/clean.sql` at work."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ml.engine import open_engine
from ml.engine.types import TIMESTAMP
from ml.ingest import bronze
from ml.ingest.bronze import COLUMNS
from ml.ingest.digest import Contents
from ml.storage import tables

if TYPE_CHECKING:
    from ml.config import ModelConfig
    from ml.ingest.copy_log import Skipped

UNPARSED = "the row could not be parsed"
PIECE = 50_000  # rows in memory at once
SILVER = (
    "day",
    "transaction_id",
    "customer_id",
    "occurred_at",
    "product_id",
    "category",
    "channel",
    "country",
    "quantity",
    "unit_price",
    "amount",
    "kind",
    "_file",
    "_row",
)


_TYPES = {
    "day": pa.date32(),
    "occurred_at": TIMESTAMP,
    "quantity": pa.float64(),
    "unit_price": pa.float64(),
    "amount": pa.float64(),
    "_row": pa.int64(),
}
_EMPTY_SILVER = pa.schema({name: _TYPES.get(name, pa.string()) for name in SILVER}).empty_table()
QUARANTINE = pa.schema(
    {"day": pa.date32(), "_file": pa.string(), "_row": pa.int64()}
    | dict.fromkeys(("column", "reason", "remedy", "record"), pa.string())
)


@dataclass
class Judged:
    """What became of every row, by day. `reasons` counts refused rows; one with two reasons counts for both."""

    silver: Counter[date] = field(default_factory=Counter)
    quarantined: Counter[date] = field(default_factory=Counter)
    duplicates: Counter[date] = field(default_factory=Counter)
    reasons: defaultdict[date, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    contents: Contents = field(default_factory=Contents)


@dataclass(frozen=True)
class Cleaned:
    """Small tables in order of day, file and row. `duplicates` counts dropped rows by day."""

    silver: pa.Table
    quarantine: pa.Table
    duplicates: Counter[date]


def clean(model: ModelConfig, rows: pa.Table, skipped: Sequence[Skipped]) -> Cleaned:
    """Judge bronze rows (`_day`, `_file`, `_row` and COLUMNS as text, in that order) by `clean.sql`, in memory.

    `skipped` rows, which could not be parsed, are refusals too.
    """
    numbered = rows.append_column("_id", pa.array(np.arange(rows.num_rows, dtype=np.int64)))
    judged = Judged()
    silver, quarantine = [_EMPTY_SILVER], []
    for kept, refused in _pieces(model, ds.dataset(numbered), iter(numbered.to_batches()), skipped, judged):
        silver.append(kept)
        quarantine.append(refused)
    return Cleaned(pa.concat_tables(silver), pa.concat_tables(quarantine), judged.duplicates)


def clean_file(model: ModelConfig, rows: Path, skipped: Sequence[Skipped], silver: Path, quarantine: Path) -> Judged:
    """The same for a parquet file of bronze rows with their `_id` (0, 1, 2, …), of any size.

    Writes two parquet files, both in order of `_id`; tells what became of the rows.
    """
    judged = Judged()
    received = pq.ParquetFile(rows).iter_batches(PIECE)
    with pq.ParquetWriter(silver, _EMPTY_SILVER.schema) as good, pq.ParquetWriter(quarantine, QUARANTINE) as bad:
        for kept, refused in _pieces(model, ds.dataset(rows), received, skipped, judged):
            good.write_table(kept)
            bad.write_table(refused)
    return judged


def _pieces(
    model: ModelConfig,
    rows: ds.Dataset,
    received: Iterator[pa.RecordBatch],
    skipped: Sequence[Skipped],
    judged: Judged,
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Silver and quarantine rows, piece by piece; counts them in `judged`."""
    names = ("_id", "_day", "_file", "_row")
    columns = {name: pc.field(name) for name in names} | {n: _trimmed(n) for n in COLUMNS}
    texts = rows.scanner(columns, **tables.PIECEWISE)
    values: dict[str, Any] = {
        "timezone": model.timezone,
        "max_abs_quantity": model.clean.max_abs_quantity,
        "max_abs_amount": model.clean.max_abs_amount,
    }
    source = _InOrder(received)
    for piece in open_engine().stream("clean", {"bronze": texts}, values):
        outcome = piece["outcome"]
        kept = piece.filter(pc.equal(outcome, "silver")).select(SILVER)
        refused = piece.filter(pc.equal(outcome, "quarantined"))
        quarantine = _refusals(refused, source.take(piece["_id"]).filter(pc.equal(outcome, "quarantined")))
        judged.silver.update(per_day(kept))
        judged.quarantined.update(per_day(quarantine))
        judged.duplicates.update(per_day(piece.filter(pc.equal(outcome, "duplicate"))))
        for day, reason in zip(refused["day"].to_pylist(), refused["reason"].to_pylist(), strict=True):
            judged.reasons[day].update(reason.split("; "))
        judged.contents.add(kept)
        yield kept, quarantine
    for row in skipped:
        judged.quarantined[row.day] += 1
        judged.reasons[row.day][UNPARSED] += 1
    yield _EMPTY_SILVER, _unparsed(skipped)


class _InOrder:
    """Rows that come in batches, given out in the pieces in which they are asked for; they are as they came."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._left = bronze.SCHEMA.append(pa.field("_id", pa.int64())).empty_table()

    def take(self, ids: pa.ChunkedArray) -> pa.Table:
        """The next rows, which must be those of `ids`."""
        parts, count = [self._left], self._left.num_rows
        while count < len(ids) and (batch := next(self._batches, None)) is not None:
            parts.append(pa.Table.from_batches([batch]).select(self._left.column_names))
            count += batch.num_rows
        rows = pa.concat_tables(parts)
        self._left = rows.slice(len(ids))
        taken = rows.slice(0, len(ids))
        if not taken["_id"].equals(ids):
            raise AssertionError("clean.sql must give every bronze row once, in order of _id")
        return taken


def per_day(rows: pa.Table) -> Counter[date]:
    """Rows by their `day`."""

    return Counter({pair["values"]: pair["counts"] for pair in pc.value_counts(rows["day"]).to_pylist()})


def trimmed(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without white space around; NULL where nothing is left."""

    trimmed = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed)


def _trimmed(name: str) -> ds.Expression:
    """The same, computed while a file is read."""
    text = pc.utf8_trim_whitespace(pc.field(name))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _refusals(refused: pa.Table, received: pa.Table) -> pa.Table:
    """`quarantine.transactions`: one row per refused row, with the row as it was received."""
    values = [received[name].to_pylist() for name in COLUMNS]
    records = [
        json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) for row in zip(*values, strict=True)
    ]
    columns = {
        "day": refused["day"],
        "_file": refused["_file"],
        "_row": refused["_row"],
        "column": refused["refused_column"],
        "reason": refused["reason"],
        "remedy": refused["remedy"],
        "record": pa.array(records, pa.string()),
    }
    return pa.table(columns, schema=QUARANTINE)


def _unparsed(skipped: Sequence[Skipped]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "day": row.day,
                "_file": row.file,
                "_row": row.row,
                "reason": f"{UNPARSED}: {row.message}",
                "remedy": "ask upstream to write the row in the form of the others, and to land the file again",
                "record": json.dumps({"line": row.item}, ensure_ascii=False),
            }
            for row in skipped
        ],
        schema=QUARANTINE,
    )
