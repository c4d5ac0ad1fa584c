"""Generated rows of a table of which only the types are known, for queries whose upstream accepts no generated row."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from ml.check.arrivals import IDS

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 700
_NUMBERS = (0.0, 1.0, -1.0, 0.1, 0.2, 0.3, 1 / 3, 0.0001, 0.00005, 9.99, -2.5, 100.0, 999999.9999)
_WORDS = ("a", "Z", "z", "é", "日本", "it's", "")


def typed_rows(
    schema: pa.Schema, days: Sequence[date], literals: Iterable[str], ids: Collection[str], timezone: str,
    required: Collection[str],
) -> pa.Table:  # fmt: skip
    """Rows with NULL in each column that is not required, on these days."""
    import pyarrow as pa

    chance = random.Random(7)
    words = list(dict.fromkeys((*_WORDS, *literals)))
    rows = []
    for number in range(ROWS):
        day = chance.choice(days)
        row: dict[str, Any] = {"day": day, "_file": chance.choice(("a.csv", "b.csv")), "_row": number}
        for field in schema:
            if field.name in row:
                continue
            value = _value(chance, field, day, IDS if field.name in ids else words, timezone)
            row[field.name] = None if field.name not in required and chance.random() < 0.1 else value
        rows.append(row)
    return pa.Table.from_pylist(rows, schema)


def _value(chance: random.Random, field: pa.Field, day: date, words: Sequence[str], timezone: str) -> Any:
    import pyarrow.types as is_

    if is_.is_boolean(field.type):
        return chance.random() < 0.5
    if is_.is_integer(field.type):
        return chance.randint(-3, 9)
    if is_.is_floating(field.type):
        return chance.choice(_NUMBERS)
    if is_.is_date(field.type):
        return day - timedelta(chance.choice((0, 1, 30, 365)))
    if is_.is_timestamp(field.type):
        start = datetime.combine(day, time(), ZoneInfo(timezone)).astimezone(UTC)
        return start + chance.choice(
            (timedelta(0), timedelta(hours=12), timedelta(hours=23) - timedelta(microseconds=1))
        )
    if is_.is_list(field.type):
        return chance.sample(list(words), chance.randint(0, 2))
    return chance.choice(words)
