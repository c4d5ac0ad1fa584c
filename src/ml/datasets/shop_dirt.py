"""What goes wrong in an export: tills without customers, broken times, shifted decimals, lines sent twice."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TWICE = 0.004  # share of rows
DIRT = {  # column: (share of rows, what stands there instead)
    "customer_id": (0.005, None),
    "occurred_at": (0.001, "31/02/2024 25:61"),
    "quantity": (0.001, 9_999_999.0),
    "amount": (0.001, None),
}


def soiled(rows: pa.Table, random: np.random.Generator) -> pa.Table:
    """The rows with a few cells spoilt, and a few rows appended that are exact copies of others."""
    for column, (share, instead) in DIRT.items():
        spoilt = random.random(rows.num_rows) < share
        if spoilt.any():
            index, kind = rows.schema.get_field_index(column), rows.schema.field(column).type
            cells = pc.if_else(pa.array(spoilt), pa.scalar(instead, kind), rows[column])
            rows = rows.set_column(index, column, cells)
    again = np.flatnonzero(random.random(rows.num_rows) < TWICE)
    return pa.concat_tables([rows, rows.take(again)]) if len(again) else rows
