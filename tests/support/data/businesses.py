"""Day files of the businesses in `tests/businesses`: deterministic, with late files, a price change and late outcomes.

Each business is a data set as those of `ml.datasets` are: `sources()`, `days(source)`, `rows(source, day)`. Besides, it has
`late_rows(source, day)`: what upstream sends later for a day, in a second file.

- grocery: visits and coupons (facts), groceries and demographics (snapshots), on the same days as the simulated shop.
- credit: applications with their outcome, which is not known yet for the newest.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.datasets.encode import ENCODERS
from ml.ingest import bronze
from ml.storage.stores import Store
from tests.support.resources import Resources

FOLDER = Path(__file__).resolve().parents[2] / "businesses"
Row = dict[str, Any]


class Business(Protocol):
    name: str

    def sources(self) -> tuple[str, ...]: ...

    def days(self, source: str) -> list[date]: ...

    def rows(self, source: str, day: date) -> pa.Table: ...

    def late_rows(self, source: str, day: date) -> pa.Table: ...


class Grocery:
    """Households that join, visit at rates of their own and leave without notice; `size` of them, from 2024-01-01.

    Demographics are asked again on 2024-03-01, prices change on 2024-04-15, and of every tenth day a third of the coupons
    is reported late.
    """

    name = "grocery"
    FIRST_DAY = date(2024, 1, 1)
    DAYS = 150
    PRICE_CHANGE = date(2024, 4, 15)
    ASKED_AGAIN = date(2024, 3, 1)
    DEPARTMENTS = ("fresh", "dry", "household", "frozen")
    COLUMNS: Mapping[str, tuple[str, ...]] = {
        "groceries": ("product_id", "department", "price"),
        "demographics": ("household_id", "age_band", "household_size", "income_band"),
        "visits": ("household_id", "basket_id", "visited_on", "product_id", "quantity", "amount"),
        "coupons": ("household_id", "coupon_id", "redeemed_on", "value"),
    }

    def __init__(self, size: int = 1200, seed: int = 0) -> None:
        self.size, self.seed = size, seed
        random = np.random.default_rng((seed, 0))
        self._rate = random.gamma(1.2, 0.15, size)  # visits per day
        joins = np.where(random.random(size) < 0.5, -1.0, random.uniform(0, self.DAYS, size))
        self._joins, self._leaves = joins, joins + random.exponential(random.gamma(1.5, 90, size), size)
        self._fresh = random.beta(2, 3, size)
        self._price = np.round(random.lognormal(1.2, 0.6, 60), 2)
        self._dearer = random.random(60) < 0.2

    def sources(self) -> tuple[str, ...]:
        return tuple(self.COLUMNS)

    def days(self, source: str) -> list[date]:
        if source == "groceries":
            return [self.FIRST_DAY, self.PRICE_CHANGE]
        if source == "demographics":
            return [self.FIRST_DAY, self.ASKED_AGAIN]
        return [self.FIRST_DAY + timedelta(n) for n in range(self.DAYS)]

    def rows(self, source: str, day: date) -> pa.Table:
        """The rows that are sent on time."""
        rows = list(self._of_day(source, day)) if day in self.days(source) else []
        return self._table(source, [row for row in rows if not self._is_late(source, day, row)])

    def late_rows(self, source: str, day: date) -> pa.Table:
        return self._table(source, [row for row in self._of_day(source, day) if self._is_late(source, day, row)])

    def _table(self, source: str, rows: Sequence[Row]) -> pa.Table:
        return _text_table(self.COLUMNS[source], rows)

    def _is_late(self, source: str, day: date, row: Row) -> bool:
        return source == "coupons" and (day - self.FIRST_DAY).days % 10 == 9 and int(row["coupon_id"][-1]) % 3 == 0

    def _of_day(self, source: str, day: date) -> Iterator[Row]:
        makers: Mapping[str, Callable[[date], Iterator[Row]]] = {
            "groceries": self._groceries,
            "demographics": self._demographics,
            "visits": self._visits,
            "coupons": self._coupons,
        }
        return makers[source](day)

    def _prices(self, day: date) -> np.ndarray[Any, np.dtype[np.float64]]:
        prices = np.where(self._dearer & (day >= self.PRICE_CHANGE), self._price * 1.2, self._price)
        return np.round(prices, 2).astype(np.float64)

    def _groceries(self, day: date) -> Iterator[Row]:
        for n, price in enumerate(self._prices(day)):
            yield {"product_id": f"G{n:02d}", "department": self.DEPARTMENTS[n % 4], "price": float(price)}

    def _demographics(self, day: date) -> Iterator[Row]:
        random = np.random.default_rng((self.seed, 1))
        again = day >= self.ASKED_AGAIN
        for n in range(self.size):
            told, moved = random.random() < 0.8, random.random() < 0.1
            band, size = int(random.integers(0, 4)), int(random.integers(1, 6))
            income = "low" if random.random() < 0.3 + 0.3 * (self._rate[n] < 0.1) else "high"
            if told:
                yield {
                    "household_id": f"H{n:05d}",
                    "age_band": ("18-34", "35-49", "50-64", "65+")[band],
                    "household_size": size + (again and moved),
                    "income_band": income,
                }

    def _buyers(self, day: date) -> tuple[int, np.random.Generator, list[int]]:
        number = (day - self.FIRST_DAY).days
        random = np.random.default_rng((self.seed, 2, number))
        stays = (self._joins < number) & (self._leaves > number)
        comes = stays & (random.random(self.size) < -np.expm1(-self._rate))
        return number, random, np.flatnonzero(comes).tolist()

    def _visits(self, day: date) -> Iterator[Row]:
        number, random, buyers = self._buyers(day)
        prices = self._prices(day)
        for household in buyers:
            products = set()
            for _ in range(1 + random.poisson(1.0)):
                is_fresh = random.random() < self._fresh[household]
                products.add(int(random.integers(0, 15)) * 4 + (0 if is_fresh else int(random.integers(1, 4))))
            for product in sorted(products):
                quantity = 1 + int(random.poisson(0.3))
                discount = 0.8 if random.random() < 0.2 else 1.0
                row = {
                    "household_id": f"H{household:05d}",
                    "basket_id": f"B{number:03d}{household:05d}",
                    "visited_on": day.isoformat(),
                    "product_id": f"G{product:02d}",
                    "quantity": quantity,
                    "amount": round(quantity * float(prices[product]) * discount, 2),
                }
                yield row | ({"household_id": None} if random.random() < 0.01 else {})
                if random.random() < 0.005:
                    yield row | {"amount": "1,99"}

    def _coupons(self, day: date) -> Iterator[Row]:
        number, _, buyers = self._buyers(day)
        random = np.random.default_rng((self.seed, 3, number))
        for household in buyers:
            if random.random() < 0.25:
                yield {
                    "household_id": f"H{household:05d}",
                    "coupon_id": f"K{number:03d}{household:05d}",
                    "redeemed_on": day.isoformat(),
                    "value": float(random.choice([0.5, 1.0, 2.5])),
                }


class Credit:
    """Applications, `per_day` of them on each of 120 days. The outcome of the newest 20 days is not known yet.

    `known` is True for what upstream sends again once all outcomes are known.
    """

    name = "credit"
    FIRST_DAY = date(2024, 1, 1)
    DAYS = 120
    UNKNOWN_DAYS = 20
    COLUMNS = (
        "application_id", "applied_on", "amount", "months", "income", "age", "employed_years", "open_loans",
        "late_payments", "purpose", "housing", "defaulted",
    )  # fmt: skip

    def __init__(self, per_day: int = 40, seed: int = 0, known: bool = False) -> None:
        self.per_day, self.seed, self.known = per_day, seed, known

    def sources(self) -> tuple[str, ...]:
        return ("applications",)

    def days(self, source: str) -> list[date]:
        return list(self._days)

    @cached_property
    def _days(self) -> tuple[date, ...]:
        return tuple(self.FIRST_DAY + timedelta(n) for n in range(self.DAYS))

    def rows(self, source: str, day: date) -> pa.Table:
        return _text_table(self.COLUMNS, list(self._applications(day)) if day in self._days else [])

    def late_rows(self, source: str, day: date) -> pa.Table:
        """None: the whole day is sent again, under the same name."""
        return _text_table(self.COLUMNS, [])

    def _applications(self, day: date) -> Iterator[Row]:
        number, size = (day - self.FIRST_DAY).days, self.per_day
        random = np.random.default_rng((self.seed, number))
        income = np.round(random.lognormal(10.3, 0.4, size), 2)
        amount = np.minimum(np.round(random.lognormal(8.6, 0.7, size), 2), 90_000.0)
        months = random.choice([12, 24, 36, 48, 60], size)
        late, loans = random.poisson(0.6, size), random.poisson(1.0, size)
        employed = np.round(random.exponential(6, size), 1)
        age = random.integers(20, 75, size)
        housing = random.choice(["rent", "own", "free"], size, p=[0.5, 0.4, 0.1])
        purpose = random.choice(["car", "furniture", "education", "business"], size, p=[0.4, 0.3, 0.15, 0.15])
        risk = (
            -0.3
            + 0.8 * late
            + 1.2 * np.log(amount / income * 12 / months + 0.05)
            - 0.09 * np.minimum(employed, 15)
            + 0.25 * loans
            + 0.6 * (housing == "rent")
            + 0.8 * (purpose == "business")
        )
        defaulted = random.random(size) < 1 / (1 + np.exp(-risk))
        told = random.random(size) > 0.05
        is_known = self.known or number < self.DAYS - self.UNKNOWN_DAYS
        for n in range(size):
            yield {
                "application_id": f"A{number:03d}{n:04d}",
                "applied_on": day.isoformat(),
                "amount": amount[n],
                "months": months[n],
                "income": income[n] if told[n] else None,
                "age": age[n],
                "employed_years": employed[n],
                "open_loans": loans[n],
                "late_payments": late[n],
                "purpose": purpose[n],
                "housing": housing[n],
                "defaulted": int(defaulted[n]) if is_known else None,
            }


BUSINESSES: Mapping[str, Callable[[], Business]] = {"grocery": Grocery, "credit": Credit}


def install(resources: Resources, *names: str) -> None:
    """Add the files of these businesses to the project's own, as a person would who adds a source or a model."""
    import shutil

    resources.copy_all()
    for name in names:
        for kind in ("config", "sql", "expectations"):
            shutil.copytree(FOLDER / name / kind, resources.folder / kind, dirs_exist_ok=True)


def land(
    landing: Store,
    business: Business,
    *,
    source: str | None = None,
    first: date = date.min,
    last: date = date.max,
    late: bool = False,
) -> list[str]:
    """Write the day files (or the late ones) as csv. Returns their names; a day without rows has no file."""
    names = []
    for each in [source] if source else business.sources():
        for day in business.days(each):
            if not first <= day <= last:
                continue
            rows = business.late_rows(each, day) if late else business.rows(each, day)
            if rows.num_rows:
                name = f"{each}/{day}/{business.name}{'-late' if late else ''}.csv"
                landing.write(name, ENCODERS["csv"](rows))
                names.append(name)
    return names


def copy(landing: Store, lake: Store, names: Sequence[str]) -> None:
    """Write the bronze file of each landed csv file, as Data Factory's Copy does."""
    for name in names:
        lines = list(csv.reader(io.StringIO(landing.read(name).decode())))
        header, rows = lines[0], lines[1:]
        columns = {column: pa.array([row[n] or None for row in rows], pa.string()) for n, column in enumerate(header)}
        columns["_file"] = pa.array([f"landing/{name}"] * len(rows), pa.string())
        content = io.BytesIO()
        pq.write_table(pa.table(columns), content)
        lake.write(bronze.path(name), content.getvalue())


def _text_table(columns: Sequence[str], rows: Sequence[Row]) -> pa.Table:
    """All values as text, as upstream writes them: a file has no types."""
    texts = {
        column: pa.array([None if row.get(column) is None else str(row[column]) for row in rows], pa.string())
        for column in columns
    }
    return pa.table(texts)
