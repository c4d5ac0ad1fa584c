"""The input that completes a day starts it, once, whatever order the inputs come in and however often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest

from ml.config import Edge, load_feature_table, load_model, load_project
from ml.config.features import Window
from ml.days.completeness import ready_models, ready_tables
from ml.ops import built_days, ingested_days
from ml.ops.built_days import BuiltDay
from tests.support.data.built_days import LATER, D, lake_folder
from tests.support.resources import Resources

__all__ = ["lake_folder"]  # an autouse fixture

FACTS = Edge(window=Window(back="all"), missing="wait")


@pytest.fixture(autouse=True)
def project(resources: Resources) -> None:
    """`customers` is built from transactions and visits, `churn` from `customers` and `shoppers`."""
    transactions = resources.change_source()
    resources.put(transactions.model_copy(update={"source": "visits", "daily": {}}))
    customers = load_feature_table("customers")
    resources.put(customers.model_copy(update={"inputs": {**customers.inputs, "silver.visits": FACTS}}))
    resources.put(customers.model_copy(update={"table": "shoppers"}))
    churn = load_model("churn")
    resources.put(churn.model_copy(update={"features": {**churn.features, "shoppers": ("shopping_days",)}}))


def ingest(source: str, day: date, run_key: str = "first") -> None:
    contents = dict.fromkeys(load_project().sources[source].tables, "x")
    mark = {"day": day, "fingerprint": "f", "run_key": run_key, "contents": contents, "follow": True}
    version = ingested_days.write(source, [mark | dict.fromkeys(ingested_days.COUNTS, 1)])
    content = ingested_days.read_ingested_days(source)[day].content
    entry = BuiltDay(node=f"silver.{source}", day=day, run_key=run_key, inputs=content, version=version, rows=1)
    built_days.write([entry])


def build(table: str, day: date, run_key: str = "first") -> None:
    node = f"features.{table}"
    built_days.write([BuiltDay(node=node, day=day, run_key=run_key, inputs="i", content="c", version=0, rows=1)])


def complete(source: str, run_key: str = "run", days: list[date] | None = None) -> dict[str, list[date]]:
    return ready_tables(load_project(), source, days or [D[0]], LATER, run_key)


@pytest.mark.parametrize(("first", "last"), [("transactions", "visits"), ("visits", "transactions")])
def test_the_last_of_two_sources_starts_the_day(first: str, last: str) -> None:
    ingest(first, D[0])
    assert complete(first) == {}
    ingest(last, D[0])
    assert complete(last) == {"customers": [D[0]]}


def test_a_table_with_one_source_is_left_to_the_event_of_that_source() -> None:
    ingest("transactions", D[0])
    ingest("visits", D[0])
    assert "shoppers" not in complete("transactions")


def test_of_two_runs_that_see_a_complete_day_at_once_one_starts_it() -> None:
    ingest("transactions", D[0])
    ingest("visits", D[0])
    with ThreadPoolExecutor(8) as threads:
        sources = ["transactions", "visits"] * 4
        started = list(threads.map(complete, sources, [f"run {n}" for n in range(8)]))
    assert [table for each in started for table in each] == ["customers"]


def test_the_run_that_started_the_day_and_died_before_its_event_starts_it_again() -> None:
    ingest("transactions", D[0])
    ingest("visits", D[0])
    assert complete("visits", "run 1") == {"customers": [D[0]]}
    assert complete("visits", "run 1") == {"customers": [D[0]]}
    assert complete("visits", "run 2") == {}


def test_an_input_that_is_brought_again_starts_the_day_again() -> None:
    ingest("transactions", D[0])
    ingest("visits", D[0])
    complete("visits", "run 1")
    ingest("visits", D[0], run_key="backfill")
    assert complete("visits", "run 2") == {"customers": [D[0]]}


def test_of_many_days_only_the_complete_ones_are_started() -> None:
    for day in D[:3]:
        ingest("transactions", day)
    ingest("visits", D[1])
    assert complete("visits", days=D[:3]) == {"customers": [D[1]]}


def test_a_day_that_is_not_validated_is_not_complete() -> None:
    ingest("transactions", D[0])
    ingest("visits", D[0])
    built_days.write([BuiltDay(node="silver.visits", day=D[0], run_key="2", inputs="other", version=9, rows=1)])
    assert complete("transactions") == {}


def test_a_first_snapshot_starts_all_days_that_waited_for_it(resources: Resources) -> None:
    products = load_project().feature_tables["products"]
    waiting = {"silver.products": products.inputs["silver.products"].model_copy(update={"missing": "wait"})}
    resources.put(products.model_copy(update={"inputs": {**products.inputs, **waiting}}))
    for day in D[:3]:
        ingest("transactions", day)
    assert complete("transactions", "run 1", D[:3]) == {}
    ingest("products", D[4])
    assert complete("products", "run 2", [D[4]]) == {"products": D[:3]}
    ingest("products", D[5])
    assert complete("products", "run 3", [D[5]]) == {}


def test_the_last_of_two_feature_tables_starts_the_model() -> None:
    build("customers", D[0])
    assert ready_models(load_project(), "customers", [D[0]], LATER, "run 1") == {}
    build("shoppers", D[0])
    assert ready_models(load_project(), "shoppers", [D[0]], LATER, "run 2") == {"churn": [D[0]]}
    assert ready_models(load_project(), "customers", [D[0]], LATER, "run 3") == {}
