"""150 days of simulated purchases, and a config of a small model on them."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache

import numpy as np
import pyarrow as pa

from ml.config import load_model

FIRST = date(2024, 1, 1)
DAYS = 150
CHURN = load_model("churn")
MODEL = CHURN.model_copy(
    update={
        "population": CHURN.population.model_copy(update={"settings": {"active_days": 30}}),
        "label": CHURN.label.model_copy(update={"horizon_days": 20}),
        "train": CHURN.train.model_copy(
            update={"min_train_rows": 1, "train_cutoffs": 3, "step_days": 10, "min_history_days": 30}
        ),
    }
)


@cache
def purchases() -> pa.Table:
    """`silver.customer_days` of 300 customers, each with another purchase rate."""
    rng = np.random.default_rng(5)
    rows = []
    for customer in range(300):
        for number in np.flatnonzero(rng.random(DAYS) < rng.uniform(0.01, 0.12)):
            day = FIRST + timedelta(int(number))
            amount = float(np.round(rng.gamma(2, 20), 2))
            rows.append(
                {
                    "customer_id": f"c{customer:03}", "day": day, "month": day.replace(day=1), "orders": 1, "lines": 1,
                    "quantity": 1.0, "amount": amount, "purchase_amount": amount, "returns": 0, "returned_amount": 0.0,
                    "max_order_amount": amount, "online_orders": int(rng.random() < 0.5), "mobile_orders": 0,
                    "store_orders": 0,
                    "categories": ["x"], "country": "GB",
                }
            )  # fmt: skip
    return pa.Table.from_pylist(rows)
