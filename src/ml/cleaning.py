"""Bronze rows into silver rows, refusals with their reasons, and duplicates: `include/sql/clean.sql` at work."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml.bronze import COLUMNS
from ml.engine import open_engine

if TYPE_CHECKING:
    from ml.config import Model
    from ml.copylog import Skipped

UNPARSED = "Data Factory could not parse the row"
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


@dataclass(frozen=True)
class Cleaned:
    """What became of every row; tables in order of day, file and row. `duplicates` counts dropped rows by day."""

    silver: pa.Table
    quarantine: pa.Table
    duplicates: Counter[date]


def clean(model: Model, rows: pa.Table, skipped: Sequence[Skipped]) -> Cleaned:
    """Judge bronze rows (`_day`, `_file`, `_row` and COLUMNS as text, in that order) by `clean.sql`.

    `skipped` rows, which the Copy could not parse, are refusals too.
    """

    texts = pa.table({name: trimmed(rows[name]) for name in COLUMNS})
    for key in ("_day", "_file", "_row"):
        texts = texts.append_column(key, rows[key])
    texts = texts.append_column("_id", pa.array(np.arange(rows.num_rows, dtype=np.int64)))
    judged = open_engine().run(
        "clean",
        {"bronze": texts},
        {
            "timezone": model.timezone,
            "max_abs_quantity": model.clean.max_abs_quantity,
            "max_abs_amount": model.clean.max_abs_amount,
        },
    )
    refused = judged.filter(pc.equal(judged["outcome"], "quarantined"))
    return Cleaned(
        silver=judged.filter(pc.equal(judged["outcome"], "silver")).select(SILVER),
        quarantine=_quarantine(refused, rows.take(refused["_id"]), skipped),
        duplicates=per_day(judged.filter(pc.equal(judged["outcome"], "duplicate"))),
    )


def per_day(rows: pa.Table) -> Counter[date]:
    """Rows by their `day`."""

    return Counter({pair["values"]: pair["counts"] for pair in pc.value_counts(rows["day"]).to_pylist()})


def reasons(quarantine: pa.Table) -> dict[str, int]:
    """How many rows were refused for what, most frequent first; a row with two reasons counts for both."""

    judged = quarantine.filter(pc.is_valid(quarantine["column"]))
    each = pc.value_counts(pc.list_flatten(pc.split_pattern(judged["reason"], "; "))).to_pylist()
    counts = Counter({pair["values"]: pair["counts"] for pair in each})
    counts[UNPARSED] = quarantine.num_rows - judged.num_rows
    return {reason: count for reason, count in counts.most_common() if count}


def trimmed(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without white space around; NULL where nothing is left."""

    trimmed = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed)


def _quarantine(refused: pa.Table, received: pa.Table, skipped: Sequence[Skipped]) -> pa.Table:
    """`quarantine.transactions`: one row per refused row, with the row as it was received."""

    values = [received[name].to_pylist() for name in COLUMNS]
    records = [
        json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) for row in zip(*values, strict=True)
    ]
    schema = pa.schema(
        {
            "day": pa.date32(),
            "_file": pa.string(),
            "_row": pa.int64(),
            "column": pa.string(),
            "reason": pa.string(),
            "remedy": pa.string(),
            "record": pa.string(),
        }
    )
    judged = pa.table(
        {
            "day": refused["day"],
            "_file": refused["_file"],
            "_row": refused["_row"],
            "column": refused["refused_column"],
            "reason": refused["reason"],
            "remedy": refused["remedy"],
            "record": pa.array(records, pa.string()),
        },
        schema=schema,
    )
    unparsed = pa.Table.from_pylist(
        [
            {
                "day": row.day,
                "_file": row.file,
                "reason": f"{UNPARSED}: {row.message}",
                "remedy": "ask upstream to write the row in the form of the others, and to land the file again",
                "record": json.dumps({"line": row.item}, ensure_ascii=False),
            }
            for row in skipped
        ],
        schema=schema,
    )
    return pa.concat_tables([judged, unparsed])
