"""Dirty rows as exports have them: missing customers, broken times, shifted decimals, lines sent twice."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DUPLICATED = 0.004  # share of rows
DIRT = {  # column: (share of rows, value that replaces the right one)
    "customer_id": (0.005, None),
    "occurred_at": (0.001, "31/02/2024 25:61"),
    "quantity": (0.001, 9_999_999.0),
    "amount": (0.001, None),
}


def add_dirt(rows: pa.Table, random: np.random.Generator) -> pa.Table:
    """The rows with a few wrong cells, and with exact copies of a few rows appended."""
    for column, (share, wrong) in DIRT.items():
        is_wrong = random.random(rows.num_rows) < share
        if is_wrong.any():
            index, kind = rows.schema.get_field_index(column), rows.schema.field(column).type
            cells = pc.if_else(pa.array(is_wrong), pa.scalar(wrong, kind), rows[column])
            rows = rows.set_column(index, column, cells)
    repeated = np.flatnonzero(random.random(rows.num_rows) < DUPLICATED)
    return pa.concat_tables([rows, rows.take(repeated)]) if len(repeated) else rows
