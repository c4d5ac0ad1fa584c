"""A small table with a learnable label, as an MLTable folder."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MLTABLE = "type: mltable\npaths:\n  - file: ./train.parquet\ntransformations:\n  - read_parquet:\n      include_path_column: false\n"


def customers(count: int = 400, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    recency, orders = rng.integers(0, 90, count).astype(float), rng.poisson(3, count) + 1
    churned = rng.random(count) < 1 / (1 + np.exp(-((recency - 45) / 15 - (orders - 4) / 2)))
    ratio = np.where(rng.random(count) < 0.3, np.nan, rng.random(count))
    country = rng.choice(["DE", "FR", ""], count).astype(object)
    country[rng.random(count) < 0.1] = None
    return pa.table(
        {
            "recency": pa.array(recency, pa.float32()),
            "orders": orders,
            "ratio": pa.array(ratio, from_pandas=True),
            "country": pa.array(country, pa.string()),
            "churned": churned.astype(np.int64),
        }
    )


def upload_table(container: Any, path: str, table: pa.Table, mltable: str = MLTABLE) -> str:
    """Upload as a folder; returns its URI in the default datastore."""
    content = io.BytesIO()
    pq.write_table(table, content)
    container.upload_blob(f"{path}/train.parquet", content.getvalue(), overwrite=True)
    container.upload_blob(f"{path}/MLTable", mltable, overwrite=True)
    return f"azureml://datastores/workspaceblobstore/paths/{path}/"
