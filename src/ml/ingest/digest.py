"""A digest of a day's rows that tells whether what they say has changed: equal rows, equal digest.

Neither the order of rows nor the files they came from count, so a day that was sent again under other
names, or in other pieces, has the same digest as before.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_

FROM = ("_file", "_row")  # where a row came from is not what it says
_BITS = 128


class Contents:
    """Digests by day, of rows that come in batches."""

    def __init__(self) -> None:
        # a sum of the rows' hashes: independent of their order, and rows that are there twice count twice
        self._sums: Counter[date] = Counter()

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take in rows with a column `day`; their other columns, by name, are what is digested."""
        names = sorted(name for name in rows.schema.names if name not in FROM)
        texts = [pc.binary_join_element_wise(pa.scalar(name), _text(rows[name]), "=") for name in names]
        lines = pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace", null_replacement="\x00")
        for day, line in zip(rows["day"].to_pylist(), lines.to_pylist(), strict=True):
            self._sums[day] += int.from_bytes(hashlib.blake2b(line.encode(), digest_size=_BITS // 8).digest())

    def of(self, day: date) -> str:
        """32 hex digits; zeros for a day without rows."""
        return f"{self._sums[day] % 2**_BITS:032x}"


def _text(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    if is_.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return column.cast(pa.string())
