"""The products of the simulated shop: names, prices and costs, and the days on which they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml.datasets.contract import COLUMNS, PRODUCTS

CATEGORIES = {  # median price of a product
    "kitchen": 14.0,
    "garden": 19.0,
    "toys": 12.0,
    "stationery": 5.0,
    "lighting": 29.0,
    "textiles": 22.0,
    "candles": 7.0,
    "gifts": 9.0,
}
PRODUCTS_EACH = 40
PRICE_CHANGES = (date(2024, 4, 1), date(2024, 7, 1), date(2024, 10, 1), date(2025, 1, 1), date(2025, 4, 1))
CHANGED_SHARE = 0.1  # of products, at each change
COST_SHARE = (0.4, 0.75)  # of the price
COST_UNKNOWN_SHARE = 0.03  # of products, as in every table that people keep

Prices = NDArray[np.float64]


@dataclass(frozen=True)
class Products:
    """Price lists: one row per list, one column per product. `since` are the first days of the lists."""

    since: tuple[date, ...]
    prices: Prices
    costs: Prices  # NaN: not known

    @property
    def ids(self) -> list[str]:
        return [f"P{n:04d}" for n in range(self.prices.shape[1])]

    def prices_on(self, starts: Sequence[int], days: NDArray[np.int64], products: NDArray[np.int64]) -> Prices:
        """The price of each product on a day. `starts` and `days` count days from the same first one."""
        lists = np.searchsorted(np.asarray(starts), days, side="right") - 1
        return self.prices[lists, products]

    def snapshot(self, day: date) -> pa.Table:
        """The table of products that is published on a day; no rows on a day without a change."""
        schema = COLUMNS[PRODUCTS]
        if day not in self.since:
            return schema.empty_table()
        number = self.since.index(day)
        categories = np.repeat(list(CATEGORIES), PRODUCTS_EACH)
        names = [f"{category} {n % PRODUCTS_EACH + 1:02d}" for n, category in enumerate(categories)]
        costs = self.costs[number]
        columns = {
            "product_id": self.ids,
            "name": names,
            "category": categories,
            "list_price": self.prices[number],
            "unit_cost": pa.array(costs, mask=np.isnan(costs)),
        }
        return pa.table(columns, schema=schema)


def simulate_products(first_day: date, first: np.random.Generator, later: np.random.Generator) -> Products:
    """Draw the first price list from one stream, and costs and changes from another. Prices are in steps of five pence."""
    medians = np.repeat(list(CATEGORIES.values()), PRODUCTS_EACH)
    price = np.maximum(np.rint(medians * first.lognormal(0, 0.5, len(medians)) * 20), 1) / 20
    cost = np.rint(price * later.uniform(*COST_SHARE, len(price)) * 100) / 100
    cost[later.random(len(price)) < COST_UNKNOWN_SHARE] = np.nan
    prices, costs = [price], [cost]
    for _ in PRICE_CHANGES:
        changed = later.random(len(price)) < CHANGED_SHARE
        dearer = later.uniform(1.02, 1.15, len(price))
        price = np.where(changed, np.maximum(np.rint(price * dearer * 20), 1) / 20, price)
        cost = np.where(changed, np.rint(cost * later.uniform(1.0, 1.2, len(price)) * 100) / 100, cost)
        prices.append(price)
        costs.append(cost)
    return Products((first_day, *PRICE_CHANGES), np.stack(prices), np.stack(costs))
