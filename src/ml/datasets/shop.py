"""A simulated shop: customers who join, buy at individual rates, and leave without notice.

The hidden process is Pareto/NBD (Schmittlein, Morrison and Colombo 1987): while a customer stays, orders
come at a gamma-distributed rate; how long a customer stays is exponential with a gamma-distributed rate.
Added to it: seasons of the year and the week, countries, channels, categories, returns, and a few dirty rows; and
price lists, which change a few times a year.

Each day has its own random streams, so any day can be computed alone, a million customers need little more memory
than their rates, and the same (size, drift, seed) always gives the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml.datasets.contract import COLUMNS, PRODUCTS, TRANSACTIONS, DataSetError, require_source
from ml.datasets.shop_customers import COUNTRIES, Customers, simulate_customers
from ml.datasets.shop_dirt import add_dirt
from ml.datasets.shop_products import CATEGORIES, PRODUCTS_EACH, Products, simulate_products

FIRST_DAY = date(2024, 1, 1)
DAYS = 546  # 18 months: one whole year of seasons, and half a year for tests
DRIFT_FROM = 364  # drift comes in the last third, after a year that a model can learn from

FAVOURITE_SHARE = 0.5  # share of lines in the customer's favourite category
MONTHS = (0.85, 0.85, 0.92, 0.95, 1.0, 1.0, 0.95, 0.9, 1.0, 1.05, 1.25, 1.4)  # orders relative to a mean month
WEEKDAYS = (0.95, 0.92, 0.95, 1.0, 1.1, 1.18, 0.9)  # Monday first
HOURS = {"online": (19.5, 3.0), "store": (14.0, 2.5)}  # mean and spread of the hour of an order
RETURNED = {"online": 0.06, "store": 0.02}  # share of lines
RETURN_AFTER = (3, 18)  # first and last day after the order

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Lines of orders and returns; every array has one element per line."""

    sold: Ints  # number of the day of the order
    order: Ints  # its number within that day
    customer: Ints
    product: Ints
    online: NDArray[np.bool_]  # else in the store
    mobile: NDArray[np.bool_]  # online, with a phone
    quantity: Ints
    second: Ints  # of the day

    def __getitem__(self, index: NDArray[np.generic]) -> Lines:
        return Lines(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def _concatenate(parts: Sequence[Lines]) -> Lines:
    return Lines(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Lines)}
    )


class Shop:
    """`size` customers, from 2024-01-01 to the end of June 2025.

    With `drift` 0 nothing changes over time; with 1, in the last third, baskets grow by half, most orders move online
    and customers leave at twice the rate.
    """

    name = "shop"

    def __init__(self, size: int = 4000, drift: float = 0.0, seed: int = 0) -> None:
        if size < 1 or drift < 0 or seed < 0:
            raise DataSetError(f"shop: found size {size}, drift {drift}, seed {seed}; at least 1, 0 and 0 are allowed")
        self.size, self.drift, self.seed = size, drift, seed
        # days are mostly computed in order: the days before are then cached
        self._bought = lru_cache(maxsize=RETURN_AFTER[0] + 1)(self._buy)
        self._sent_back = lru_cache(maxsize=RETURN_AFTER[1] + 1)(self._send_back)

    def sources(self) -> tuple[str, ...]:
        return (PRODUCTS, TRANSACTIONS)

    def days(self, source: str) -> list[date]:
        require_source(self, source)
        return list(self._days) if source == TRANSACTIONS else list(self._products.since)

    def rows(self, source: str, day: date) -> pa.Table:
        require_source(self, source)
        number = (day - FIRST_DAY).days
        if not 0 <= number < DAYS:
            return COLUMNS[source].empty_table()
        if source == PRODUCTS:
            return self._products.snapshot(day)
        parts = [self._bought(number)]
        for before in range(max(0, number - RETURN_AFTER[1]), number - RETURN_AFTER[0] + 1):
            lines, due = self._sent_back(before)
            parts.append(lines[due == number])
        return add_dirt(self._table(day, _concatenate(parts)), self._random(number, 2))

    @cached_property
    def _customers(self) -> Customers:
        random = np.random.default_rng((self.seed, DAYS))
        return simulate_customers(self.size, DAYS, len(CATEGORIES), self.drift, DRIFT_FROM, random)

    @cached_property
    def _days(self) -> tuple[date, ...]:
        return tuple(FIRST_DAY + timedelta(days=n) for n in range(DAYS))

    @cached_property
    def _products(self) -> Products:
        first, later = (np.random.default_rng((self.seed, DAYS + n)) for n in (1, 2))
        return simulate_products(FIRST_DAY, first, later)

    @cached_property
    def _price_starts(self) -> list[int]:
        """The number of the first day of each price list."""
        return [(day - FIRST_DAY).days for day in self._products.since]

    @cached_property
    def _names(self) -> dict[str, pa.Array]:
        """Names of days, customers and products by index, computed once for all days."""
        return {
            "day": pa.array([f"{day:%Y%m%d}" for day in self._days]),
            "customer_id": pa.array([f"C{n:07d}" for n in range(self.size)]),
            "product_id": pa.array(self._products.ids),
            "category": pa.array(np.repeat(list(CATEGORIES), PRODUCTS_EACH)),
            "country": pa.array(list(COUNTRIES)),
        }

    def _random(self, day: int, use: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, day, use))

    def _buy(self, day: int) -> Lines:
        """The lines bought on a day."""
        random, customers = self._random(day, 0), self._customers
        drift = self.drift if day >= DRIFT_FROM else 0.0
        today = FIRST_DAY + timedelta(days=day)
        buyers = customers.buying(day, MONTHS[today.month - 1] * WEEKDAYS[today.weekday()], random)
        online = random.random(len(buyers)) < customers.online[buyers] ** (1 / (1 + 2 * drift))
        mean, spread = (np.where(online, *pair) for pair in zip(HOURS["online"], HOURS["store"], strict=True))
        mobile = online & (self._random(day, 3).random(len(buyers)) < customers.mobile[buyers])
        second = (np.clip(random.normal(mean, spread), 0.0, 23.99) * 3600).astype(np.int64)

        order = np.repeat(np.arange(len(buyers)), 1 + random.poisson(customers.basket[buyers] * (1 + drift / 2)))
        customer, lines = buyers[order], len(order)
        is_favourite = random.random(lines) < FAVOURITE_SHARE
        category = np.where(is_favourite, customers.favourite[customer], random.integers(0, len(CATEGORIES), lines))
        product = category * PRODUCTS_EACH + random.integers(0, PRODUCTS_EACH, lines)
        quantity = 1 + random.poisson(0.6 * (1 + drift / 2), lines)
        return Lines(
            sold=np.full(lines, day),
            order=order,
            customer=customer,
            product=product,
            online=online[order],
            mobile=mobile[order],
            quantity=quantity,
            second=second[order],
        )

    def _send_back(self, day: int) -> tuple[Lines, Ints]:
        """The lines bought on a day that are returned, and the day of each return."""
        random, lines = self._random(day, 1), self._bought(day)
        probability = np.where(lines.online, RETURNED["online"], RETURNED["store"])
        returned = lines[np.flatnonzero(random.random(len(probability)) < probability)]
        due = day + random.integers(RETURN_AFTER[0], RETURN_AFTER[1] + 1, len(returned.order))
        return replace(returned, quantity=-returned.quantity), due

    def _table(self, day: date, lines: Lines) -> pa.Table:
        """Lines in the columns of the contract, ordered by time of day."""
        lines = lines[np.argsort(lines.second, kind="stable")]
        names, returned = self._names, pa.array(lines.quantity < 0)
        # of the day of the order: a return pays back what was paid
        unit_price = self._products.prices_on(self._price_starts, lines.sold, lines.product)
        channel = np.select([lines.mobile, lines.online], ["mobile", "online"], "store")
        number = pc.utf8_lpad(pc.cast(pa.array(lines.order), pa.string()), 6, "0")
        moment = np.datetime64(day, "s") + lines.second
        return pa.table(
            {
                "transaction_id": pc.binary_join_element_wise(
                    pc.if_else(returned, "R", "S"), names["day"].take(pa.array(lines.sold)), number, "-"
                ),
                "customer_id": names["customer_id"].take(pa.array(lines.customer)),
                "occurred_at": pc.strftime(pa.array(moment), "%Y-%m-%dT%H:%M:%S"),
                "product_id": names["product_id"].take(pa.array(lines.product)),
                "category": names["category"].take(pa.array(lines.product)),
                "channel": pa.array(channel),
                "country": names["country"].take(pa.array(self._customers.country[lines.customer])),
                "quantity": lines.quantity.astype(np.float64),
                "unit_price": unit_price,
                "amount": np.rint(lines.quantity * unit_price * 100) / 100,
            },
            schema=COLUMNS[TRANSACTIONS],
        )
