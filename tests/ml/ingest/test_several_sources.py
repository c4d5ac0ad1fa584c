"""Several sources side by side: facts that land on one day, and snapshots of a reference table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ml.config import load_source
from ml.errors import StageError
from ml.ops import held_days, ingested_days
from ml.storage import leases, stores, tables
from tests.support.data.bronze_days import DAY, Days, mark, row, rows_of
from tests.support.data.deliveries import parcel, put_deliveries
from tests.support.resources import Resources

NEXT = DAY + timedelta(days=1)
OWN_TABLES = ("quarantine.deliveries", "silver.deliveries", "silver.hub_days")


@pytest.fixture
def days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Days:
    return Days(tmp_path, monkeypatch)


def everything(source: str, *names: str) -> dict[str, Any]:
    """All that ingestion keeps of a source."""
    kept = {name: rows_of(name) for name in names if tables.exists(name)}
    return kept | {"marks": ingested_days.read_rows(source), "held": held_days.read(source)}


def test_two_sources_that_land_on_one_day_do_not_touch_each_other(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    couriers = days.of("deliveries")
    shop_tables = ("quarantine.transactions", "silver.transactions", "silver.customer_days")
    days.arrive("x.csv", [row(1), row(2, quantity="0")])
    days.land("empty.csv", b"", NEXT)
    with pytest.raises(StageError):
        days.ingest(DAY, NEXT)
    before = everything("transactions", *shop_tables)
    couriers.arrive("x.csv", [parcel(1), parcel(2, weight="x")])
    couriers.arrive("x.csv", [parcel(3)], NEXT)
    couriers.ingest(DAY, NEXT)
    assert everything("transactions", *shop_tables) == before
    assert list(held_days.read("transactions")) == [NEXT]
    assert held_days.read("deliveries") == {}
    own = everything("deliveries", *OWN_TABLES)
    couriers.land("late.csv", b"")
    with pytest.raises(StageError):
        couriers.ingest(run_key="again")
    assert list(held_days.read("deliveries")) == [DAY]
    days.arrive("empty.csv", [row(5, occurred_at=str(NEXT))], NEXT)
    days.ingest(DAY, NEXT, run_key="again")
    assert everything("deliveries", *OWN_TABLES) == own | {"held": held_days.read("deliveries")}
    assert held_days.read("transactions") == {}
    assert sorted(ingested_days.read_all_ingested_days()) == ["deliveries", "transactions"]


def test_an_ingestion_does_not_wait_for_one_of_another_source(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [parcel(1)])
    with leases.hold(stores.lake(), f"{leases.FOLDER}/transactions", "another ingestion", 0):
        assert couriers.ingest()["silver"] == 1


def test_two_sources_that_are_ingested_at_once_are_both_marked(days: Days, resources: Resources) -> None:
    """Their marks are rows of one table: the commit that comes second is made again."""
    put_deliveries(resources)
    couriers = days.of("deliveries")
    several = [DAY + timedelta(days=n) for n in range(4)]
    for day in several:
        days.arrive("x.csv", [row(1, occurred_at=str(day))], day)
        couriers.arrive("x.csv", [parcel(1)], day)
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(arrivals.ingest, day) for day in several for arrivals in (days, couriers)]
        assert [run.result()["silver"] for run in runs] == [1] * 8
    marked = ingested_days.read_all_ingested_days()
    assert sorted(marked["transactions"]) == sorted(marked["deliveries"]) == several


def test_each_snapshot_of_a_source_is_the_partition_of_its_day(days: Days) -> None:
    prices = days.of("products")
    source = load_source("products")
    for day, price in ((DAY, "1.5"), (NEXT, "2.5")):
        prices.arrive("x.csv", [{"product_id": "a", "list_price": price}, {"product_id": "b", "list_price": "3"}], day)
    assert prices.ingest(DAY, NEXT)["silver"] == 4
    assert tables.table(source.table).metadata().partition_columns == ["day"]
    assert [(r["day"], r["list_price"]) for r in rows_of(source.table) if r["product_id"] == "a"] == [
        (DAY, 1.5),
        (NEXT, 2.5),
    ]
    first, second = ((mark(day, "products") or {})["contents"] for day in (DAY, NEXT))
    assert first.keys() == second.keys() == {"silver.products"}
    assert first != second


def test_a_snapshot_that_is_sent_again_replaces_its_day_only(days: Days) -> None:
    prices = days.of("products")
    for day in (DAY, NEXT):
        prices.arrive("x.csv", [{"product_id": "a", "list_price": "1"}, {"product_id": "b", "list_price": "1"}], day)
    prices.ingest(DAY, NEXT)
    before = (rows_of("silver.products", NEXT), mark(NEXT, "products"))
    prices.arrive("x.csv", pa.table({"product_id": ["a"], "list_price": [2.0]}))
    prices.ingest(DAY)
    assert [r["list_price"] for r in rows_of("silver.products", DAY)] == [2.0]
    assert (rows_of("silver.products", NEXT), mark(NEXT, "products")) == before
