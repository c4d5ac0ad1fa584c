"""The customers of the simulated shop with their hidden properties: how often each buys, and when each leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COUNTRIES = {"GB": 0.55, "DE": 0.15, "FR": 0.12, "NL": 0.08, "ES": 0.06, "IE": 0.04}

MEAN_RATE = 1 / 20  # orders per day while a customer stays
RATE_SHAPE = 1.0  # a few buy twice a week, many twice a year
MEAN_LEAVE_RATE = 1 / 220  # most stay for months
LEAVE_SHAPE = 0.8  # some are gone within weeks, some stay for years
OLD_SHARE = 0.4  # of customers who joined before the first day


@dataclass(frozen=True)
class Customers:
    """Properties of customers; every array has one element per customer."""

    joined: NDArray[np.int32]  # day number of the first order; -1: before the first day
    left: NDArray[np.float64]  # day number after which the customer does not order
    rate: NDArray[np.float64]  # orders per day in between
    online: NDArray[np.float64]  # probability that an order is online
    basket: NDArray[np.float64]  # mean number of lines of an order beyond the first
    favourite: NDArray[np.int8]  # category index
    country: NDArray[np.int8]  # index into COUNTRIES
    mobile: NDArray[np.float64]  # probability that an online order is made with a phone

    def buying(self, day: int, season: float, random: np.random.Generator) -> NDArray[np.int64]:
        """Indices of the customers who order on a day: those who join on it, and a random part of the active ones."""
        probability = -np.expm1(-self.rate * season)
        orders = (self.joined < day) & (self.left > day) & (random.random(len(probability)) < probability)
        return np.flatnonzero(orders | (self.joined == day))


def simulate_customers(
    size: int, days: int, categories: int, drift: float, drift_from: int, random: np.random.Generator
) -> Customers:
    """Draw `size` customers for `days` days. From day `drift_from` on, they leave at (1 + drift) times their rate.

    Customers differ independently in how often they buy and how long they stay (Pareto/NBD).
    """
    joined = np.where(random.random(size) < OLD_SHARE, -1, random.integers(0, days, size)).astype(np.int32)
    leave_rate = random.gamma(LEAVE_SHAPE, MEAN_LEAVE_RATE / LEAVE_SHAPE, size)
    left = joined + random.exponential(1 / np.maximum(leave_rate, 1e-9))
    from_day = np.maximum(joined, drift_from)
    left = np.where(left > from_day, from_day + (left - from_day) / (1 + drift), left)
    return Customers(
        joined=joined,
        left=left,
        rate=random.gamma(RATE_SHAPE, MEAN_RATE / RATE_SHAPE, size),
        online=random.beta(1.2, 1.0, size),
        basket=random.gamma(2.0, 0.6, size),
        favourite=random.integers(0, categories, size).astype(np.int8),
        country=random.choice(len(COUNTRIES), size, p=list(COUNTRIES.values())).astype(np.int8),
        mobile=random.beta(0.8, 1.4, size),  # drawn last: the channel came later than everything else
    )
