"""Content digests of a day's rows: equal rows have an equal digest.

The order of rows and the files they came from do not count, so a day that is sent again under other file names, or in
other pieces, has the same digest as before.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_

PLACE_COLUMNS = ("_file", "_row")  # where a row came from is not part of its content
_BITS = 128


class Contents:
    """Digests by day, of rows that come in batches."""

    def __init__(self) -> None:
        # a sum of the rows' hashes does not depend on their order, and repeated rows count as often as they occur
        self._sums: Counter[date] = Counter()

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Add rows with a column `day`. All columns except PLACE_COLUMNS are digested, ordered by name."""
        names = sorted(name for name in rows.schema.names if name not in PLACE_COLUMNS)
        texts = [pc.binary_join_element_wise(pa.scalar(name), _as_text(rows[name]), "=") for name in names]
        lines = pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace", null_replacement="\x00")
        for day, line in zip(rows["day"].to_pylist(), lines.to_pylist(), strict=True):
            self._sums[day] += int.from_bytes(hashlib.blake2b(line.encode(), digest_size=_BITS // 8).digest())

    def of(self, day: date) -> str:
        """32 hex digits; zeros for a day without rows."""
        return f"{self._sums[day] % 2**_BITS:032x}"


def _as_text(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    if is_.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return column.cast(pa.string())
