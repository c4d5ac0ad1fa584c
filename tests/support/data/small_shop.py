"""A small project beside the shipped one: two sources of facts, a price list, two feature tables, and models on them.

Facts: `silver.sales` (customer_id, product_id, pieces) and `silver.calls` (customer_id, minutes). Snapshots: `silver.prices`
(product_id, price). Feature tables: `buyers` (from sales and prices) and `callers` (from calls, carried when missing).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import yaml

from ml.config import FeatureTableConfig, ModelConfig, load_model
from ml.config.sections import Population
from ml.storage import tables
from tests.support.data.built_days import mark_ingested
from tests.support.resources import Resources

FIRST = date(2024, 1, 1)
COLUMNS: Mapping[str, Mapping[str, pa.DataType]] = {
    "sales": {"customer_id": pa.string(), "product_id": pa.string(), "pieces": pa.int64()},
    "calls": {"customer_id": pa.string(), "minutes": pa.int64()},
    "prices": {"product_id": pa.string(), "price": pa.float64()},
}
CLEAN = """
SELECT _id, 'silver' AS outcome, CAST(NULL AS STRING) AS refused_column, CAST(NULL AS STRING) AS reason,
  CAST(NULL AS STRING) AS remedy, _day AS day, {columns}, _file, _row
FROM bronze
ORDER BY _id
"""
BUYERS = """
SELECT
  sales.customer_id,
  CAST(:as_of AS DATE) AS as_of,
  CAST(count(*) AS BIGINT) AS lines,
  min(datediff(:as_of, sales.day)) AS recency_days,
  CAST(sum(sales.pieces * prices.price) AS DOUBLE) AS worth -- at the prices known on the day
FROM sales
LEFT JOIN prices ON prices.product_id = sales.product_id
WHERE sales.day <= :as_of
GROUP BY sales.customer_id
ORDER BY sales.customer_id
"""
CALLERS = """
SELECT customer_id, CAST(:as_of AS DATE) AS as_of, CAST(sum(minutes) AS BIGINT) AS minutes
FROM calls
WHERE day <= :as_of
GROUP BY customer_id
ORDER BY customer_id
"""
RECENT = "SELECT customer_id, as_of FROM buyers WHERE recency_days < :days ORDER BY customer_id"
LABEL = """
SELECT
  population.customer_id,
  population.as_of,
  max(CASE WHEN {facts}.customer_id IS NULL THEN 0 ELSE 1 END) AS {name}
FROM population
LEFT JOIN {facts}
  ON {facts}.customer_id = population.customer_id
  AND {facts}.day > population.as_of
  AND datediff({facts}.day, population.as_of) <= :horizon_days
GROUP BY population.customer_id, population.as_of
ORDER BY population.customer_id
"""


def day(number: int) -> date:
    """The `number`th day, from 1."""
    return FIRST + timedelta(number - 1)


def write_project(resources: Resources) -> None:
    """The config files and queries of the sources and feature tables."""
    for name, columns in COLUMNS.items():
        kind = "snapshot" if name == "prices" else "facts"
        write_yaml(resources, f"sources/{name}.yaml", _source(name, kind, columns))
        casts = {pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.string(): "STRING"}
        cleaned = ", ".join(f"CAST({column} AS {casts[type_]}) AS {column}" for column, type_ in columns.items())
        resources.write("sql", f"sources/{name}.sql", CLEAN.format(columns=cleaned))
    put_table(resources, "buyers", BUYERS, {"silver.sales": facts(), "silver.prices": {"missing": "carry"}})
    put_table(resources, "callers", CALLERS, {"silver.calls": facts("30d", missing="carry")})
    resources.write("sql", "populations/recent.sql", RECENT)
    for name, source in (("bought", "sales"), ("called", "calls")):
        resources.write("sql", f"labels/{name}.sql", LABEL.format(facts=source, name=name))


def facts(back: str = "all", missing: str = "wait") -> dict[str, Any]:
    """The edge of a table of facts."""
    return {"window": {"back": back}, "missing": missing}


def _source(name: str, kind: str, columns: Iterable[str]) -> dict[str, Any]:
    return {
        "source": name, "owner": "shop", "description": f"The {name} of the shop.", "from": {"kind": "blob"},
        "kind": kind, "timezone": "UTC", "due": "0 6 * * *",
        "landing": {"bulk_days": 31, "empty_file": "fail", "max_file_rows": 1000, "max_file_mb": 1},
        "columns": {column: {"required": True} for column in columns},
        "clean": {"query": f"sources/{name}", "settings": {}, "max_quarantined_share": 0.5},
    }  # fmt: skip


def put_table(
    resources: Resources, name: str, sql: str, inputs: Mapping[str, Any], revision: int = 1, **settings: Any
) -> FeatureTableConfig:
    """Write a feature table's config and query."""
    resources.write("sql", f"features/{name}.sql", sql)
    rebuild = {"data": "auto", "code": "plan", "restate_days": 31, "revision": revision}
    written = {
        "table": name, "owner": "shop", "description": f"Table {name}.", "entity": "customer_id",
        "query": f"features/{name}", "settings": settings, "inputs": dict(inputs), "rebuild": rebuild,
    }  # fmt: skip
    write_yaml(resources, f"features/{name}.yaml", written)
    from ml.config import load_feature_table

    return load_feature_table(name)


def put_model(
    resources: Resources,
    name: str,
    features: Mapping[str, Sequence[str]],
    *,
    label: str = "bought",
    of: str = "silver.sales",
    horizon_days: int = 7,
    days: int | None = 20,
    **train: Any,
) -> ModelConfig:
    """Write a model on these feature tables. Its population bought in the last `days` (None: all rows)."""
    churn = load_model("churn")
    settings = {"min_train_rows": 1, "train_cutoffs": 2, "step_days": 5, "min_history_days": 5} | train
    label_config = churn.label.model_copy(
        update={"name": label, "query": f"labels/{label}", "inputs": (of,), "horizon_days": horizon_days}
    )
    population = None if days is None else Population(query="populations/recent", settings={"days": days})
    return _put(
        resources,
        churn,
        name,
        features={table: tuple(columns) for table, columns in features.items()},
        population=population,
        label=label_config,
        train=churn.train.model_copy(update={**settings, "table": f"features.{name}_training_set"}),
    )


def _put(resources: Resources, churn: ModelConfig, name: str, **changes: Any) -> ModelConfig:
    evaluate = churn.evaluate.model_copy(
        update={"behaviour": (), "groups": churn.evaluate.groups.model_copy(update={"columns": ()}), "bootstrap": 100}
    )
    gate = churn.gate.model_copy(update={"max_violations": {}, "fairness": (), "min_rows": 1, "min_per_class": 1})
    tables_of = {
        "score": churn.score.model_copy(update={"table": f"gold.{name}_scores"}),
        "monitor": churn.monitor.model_copy(update={"table": f"gold.{name}_drift"}),
    }
    return resources.put(
        churn.model_copy(
            update={"model": name, "entity": "customer_id", "evaluate": evaluate, "gate": gate, "report": None}
            | tables_of
            | changes
        )
    )


def put_examples_model(
    resources: Resources, split: Mapping[str, Any], columns: Sequence[str] = ("pieces",), label: str = "returned"
) -> ModelConfig:
    """Write a source `orders` whose rows are examples, and the model `returns` on them. The label is a column."""
    received = ["order_id", *columns, label]
    write_yaml(resources, "sources/orders.yaml", _source("orders", "facts", received))
    resources.write("sql", "sources/orders.sql", CLEAN.format(columns=", ".join(received)))
    churn = load_model("churn")
    train = {"test_cutoffs": None, "train_cutoffs": None, "step_days": None, "min_history_days": None}
    written = _put(resources, churn, "returns").model_dump(mode="json")
    written |= {"entity": "order_id", "features": {}, "population": None, "label": {"name": label}}
    written["examples"] = {
        "table": "silver.orders", "columns": list(columns), "split": dict(split), "restate_days": 7,
    }  # fmt: skip
    written["train"] |= train | {"min_train_rows": 1, "table": "features.returns_training_set"}
    write_yaml(resources, "models/returns.yaml", written)
    return load_model("returns")


def write_yaml(resources: Resources, name: str, written: Mapping[str, Any]) -> None:
    resources.write("config", name, yaml.safe_dump(dict(written), sort_keys=False))


def ingest(source: str, rows: Mapping[int, Sequence[tuple[Any, ...]]], content: str = "a") -> None:
    """Write the rows of these days (by number) to silver, and their marks. Row: the values of the source's columns."""
    columns = COLUMNS[source]
    days = [day(number) for number in rows]
    listed = [
        {"day": day(number), **dict(zip(columns, row, strict=True)), "_file": "f.csv", "_row": place}
        for number, of_day in rows.items()
        for place, row in enumerate(of_day)
    ]
    schema = pa.schema({"day": pa.date32(), **columns, "_file": pa.string(), "_row": pa.int64()})
    name = f"silver.{source}"
    tables.replace(name, pa.Table.from_pylist(listed, schema), tables.day_predicate("day", days), partition_by=["day"])
    mark_ingested(source, days, {name: content})


def write_examples(rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None) -> None:
    """Replace `silver.orders`; a row has its day's number in `day`."""
    listed = [{**row, "day": day(row["day"])} for row in rows]
    tables.replace_all("silver.orders", pa.Table.from_pylist(listed, schema), partition_by=["day"])
    days = sorted({row["day"] for row in listed})
    mark_ingested("orders", days, {"silver.orders": "a"})
