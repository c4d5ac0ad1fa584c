"""A Power BI dataset of the stand-ins, and scores that it can import."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

AUDIENCE = "https://analysis.windows.net/powerbi/api"
GROUP, DATASET = "f089354e-8366-4e18-aea3-4cb4a3a50b48", "cfafbeb1-8037-4d0c-896e-a46fb27ff229"
PATH = f"/v1.0/myorg/groups/{GROUP}/datasets/{DATASET}"


def write_scores(account: Any, rows: int = 3) -> None:
    account.container("lake")
    days = pa.array([date(1998, 6, 28)] * (rows - 1) + [date(1998, 6, 29)])
    table = pa.table({"customer_id": [str(n) for n in range(rows)], "score": [0.5] * rows, "score_date": days})
    options = account.delta_options()
    write_deltalake("az://lake/gold/customer_churn_scores", table, mode="overwrite", storage_options=options)
