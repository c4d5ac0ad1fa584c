"""The Power BI dataset of the stand-ins, and a scores table that it can import."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from tests.support.cloud.standins import POWER_BI_DATASET as DATASET
from tests.support.cloud.standins import POWER_BI_GROUP as GROUP

AUDIENCE = "https://analysis.windows.net/powerbi/api"
PATH = f"/v1.0/myorg/groups/{GROUP}/datasets/{DATASET}"


def write_scores(account: Any, rows: int = 3) -> None:
    account.container("lake")
    days = pa.array([date(1998, 6, 28)] * (rows - 1) + [date(1998, 6, 29)])
    table = pa.table({"customer_id": [str(n) for n in range(rows)], "score": [0.5] * rows, "score_date": days})
    options = account.delta_options()
    write_deltalake("az://lake/gold/customer_churn_scores", table, mode="overwrite", storage_options=options)
