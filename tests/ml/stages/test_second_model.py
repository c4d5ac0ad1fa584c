"""A second model over another source is three more files in `config/`, and the queries that they name.

Subscriptions that are cancelled, of a shop that sells none: another source, another entity, other features and another
label, from training set to champion, scores and drift, beside a churn model that is not affected.
"""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from ml import cli
from ml.config import Edge, load_feature_table, load_model, load_source
from ml.config.features import Window
from ml.config.source import SourceColumn
from ml.ops import built_days, ingested_days
from ml.registry import model_versions, production
from ml.storage import tables
from tests.support.models.small_world import DAY, World, customers
from tests.support.resources import Resources

SOURCE = "subscription_days"
FIRST, DAYS = date(2025, 1, 1), 150
LAST = FIRST + timedelta(DAYS - 1)

FEATURES = """
SELECT
  subscription_id,
  CAST(:as_of AS DATE) AS as_of,
  CAST(sum(CASE WHEN datediff(:as_of, day) < :active_days THEN logins ELSE 0 END) AS BIGINT) AS logins,
  CAST(sum(complaints) AS BIGINT) AS complaints,
  max_by(plan, day) AS plan,
  min(datediff(:as_of, day)) AS unused_days
FROM subscription_days
WHERE day <= :as_of
GROUP BY subscription_id
ORDER BY subscription_id
"""
POPULATION = """
SELECT subscription_id, as_of FROM subscriptions WHERE unused_days < :active_days ORDER BY subscription_id
"""
LABEL = """
WITH seen AS (
  SELECT DISTINCT population.subscription_id, population.as_of
  FROM population
  INNER JOIN subscription_days
    ON subscription_days.subscription_id = population.subscription_id
    AND subscription_days.day > population.as_of
    AND datediff(subscription_days.day, population.as_of) <= :horizon_days
)

SELECT
  population.subscription_id,
  population.as_of,
  CASE WHEN seen.subscription_id IS NULL THEN 1 ELSE 0 END AS cancelled
FROM population
LEFT JOIN seen ON seen.subscription_id = population.subscription_id AND seen.as_of = population.as_of
ORDER BY population.as_of, population.subscription_id
"""


def subscription_days() -> pa.Table:
    """Days on which subscriptions were used; a customer who complains leaves soon. The table has no column `month`."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(700):
        unhappy = rng.random() < 0.5
        ends = int(rng.integers(40, DAYS)) if unhappy else DAYS
        for at in range(int(rng.integers(0, 5)), ends, 5):
            rows.append(
                {
                    "subscription_id": f"s{number:04}",
                    "day": FIRST + timedelta(at),
                    "logins": int(rng.poisson(2 if unhappy else 5)),
                    "complaints": int(unhappy and rng.random() < 0.3),
                    "plan": "pro" if number % 3 else "basic",
                }
            )
    return pa.Table.from_pylist(rows)


def write_second_model(resources: Resources) -> None:
    """A source, a feature table and a model, and the queries that they name."""
    columns = dict.fromkeys(("subscription_id", "used_at", "logins", "complaints", "plan"), SourceColumn(required=True))
    resources.put(
        load_source("transactions").model_copy(
            update={"source": SOURCE, "columns": columns, "time": "used_at", "daily": {}}
        )
    )
    resources.put(
        load_feature_table("customers").model_copy(
            update={
                "table": "subscriptions",
                "entity": "subscription_id",
                "query": "features/subscriptions",
                "settings": {"active_days": 15},
                "inputs": {f"silver.{SOURCE}": Edge(window=Window(back="all"), missing="wait")},
            }
        )
    )
    made = load_model("churn").model_dump(mode="json")
    made |= {"model": "cancellations", "experiment": "/Shared/cancellations", "description": "Who cancels?"}
    made |= {
        "entity": "subscription_id",
        "features": {"subscriptions": ["logins", "complaints", "plan"]},
        "report": None,
    }
    made["population"] = {"query": "populations/subscriptions", "settings": {"active_days": 15}}
    made["label"] |= {"name": "cancelled", "query": "labels/cancellations", "horizon_days": 20}
    made["label"] |= {"inputs": [f"silver.{SOURCE}"]}
    made["train"] |= {"table": "features.subscription_training_set", "min_train_rows": 100, "step_days": 15}
    made["train"] |= {"min_history_days": 15}
    complains = {"name": "complains", "add": {"complaints": 1}, "expect": "not_lower", "tolerance": 0.02}
    made["evaluate"] |= {"bootstrap": 100, "groups": {"columns": ["plan"], "min_rows": 30}, "behaviour": [complains]}
    plans = {"column": "plan", "metric": "accuracy", "max_difference": 0.3, "when_one_group": "fail"}
    made["gate"] |= {"min_rows": 100, "min_per_class": 20, "fairness": [plans], "max_violations": {"complains": 0.1}}
    made["score"] |= {"table": "gold.subscription_scores"}
    made["monitor"] |= {"table": "gold.subscription_drift"}
    resources.write("config", "models/cancellations.yaml", yaml.safe_dump(made, sort_keys=False))
    resources.write("sql", "features/subscriptions.sql", FEATURES)
    resources.write("sql", "populations/subscriptions.sql", POPULATION)
    resources.write("sql", "labels/cancellations.sql", LABEL)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    made.resources.copy_all()
    write_second_model(made.resources)
    tables.replace(f"silver.{SOURCE}", subscription_days(), "day IS NOT NULL")
    counts = dict.fromkeys(ingested_days.COUNTS, 1)
    marks = [
        {"day": FIRST + timedelta(n), "fingerprint": "f", "run_key": "k", "follow": True, **counts}
        | {"contents": {f"silver.{SOURCE}": f"content {n}"}}
        for n in range(DAYS)
    ]
    ingested_days.write(SOURCE, marks)
    return made


def ml(capsys: pytest.CaptureFixture[str], stage: str, *arguments: str) -> dict[str, Any]:
    node = ("--table", "subscriptions") if stage == "features" else ("--model", "cancellations")
    cli.main([stage, *node, *arguments])
    facts: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return facts


def test_from_its_training_set_to_its_champion_s_scores(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.champion()
    world.write_features(customers(50))
    world.score()
    world.monitor()
    churn = {name: tables.table(name).version() for name in ("gold.customer_churn_scores", "gold.drift")}
    key = ("--run-key", "subscriptions-1")
    made = ml(capsys, "training_set", "--through", LAST.isoformat(), *key)
    assert made["sources"] == {f"silver.{SOURCE}": 0}
    version = str(made["version"])
    assert ml(capsys, "validate", "--suite", "training", "--version", version, *key)["failed"] == []
    trained = ml(capsys, "train", "--training-set-version", version, *key)
    assert trained["roc_auc"]["value"] > 0.7
    assert ml(capsys, "features", "--as-of", LAST.isoformat(), *key)["rows"] > 0
    ml(capsys, "evaluate", "--version", "1")
    assert ml(capsys, "gate", "--version", "1")["reasons"] == []
    assert ml(capsys, "promote", "--version", "1", *key)["after"] == "1"
    scored = ml(capsys, "score", "--day", LAST.isoformat(), *key)
    rows = tables.read("gold.subscription_scores")
    assert scored["rows"] == rows.num_rows > 0
    assert rows.column_names[0] == "subscription_id"
    assert scored["sources"] == {"features.subscriptions": 0}
    drift = ml(capsys, "monitor", "--day", LAST.isoformat(), *key)
    assert drift["report"] == f"monitor/cancellations/{LAST}.html"

    assert {name: tables.table(name).version() for name in churn} == churn, "the churn model is not affected"
    for model in ("churn", "cancellations"):
        assert [entry.version for entry in production.read_history(model)] == ["1"]
        assert {entry.day for entry in built_days.read_entries(node=f"{model}.score")} == {
            DAY if model == "churn" else LAST
        }
        assert model_versions.version_of_alias(model) is not None
        assert (world.folder / "reports" / "models" / model / "1.html").exists() or model == "churn"
    assert (world.folder / "reports" / "monitor" / "churn" / f"{DAY}.html").exists()


def test_its_page_and_its_drift_speak_of_no_customers(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    key = ("--run-key", "k")
    version = str(ml(capsys, "training_set", "--through", LAST.isoformat(), *key)["version"])
    report = ml(capsys, "train", "--training-set-version", version, *key)["report"]
    page = (world.folder / "reports" / report).read_text()
    assert "customer" not in page.replace(world.config.owner, "")
    assert "purchase" not in page
    assert "include/sql/labels/cancellations.sql, within 20 days after the cut-off" in page


def test_a_leak_of_the_second_model_is_found_by_its_own_query(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    version = ml(capsys, "training_set", "--through", LAST.isoformat(), "--run-key", "k")["version"]
    table = "features.subscription_training_set"
    rows = tables.read(table, version=version)
    planted = rows.set_column(
        rows.schema.get_field_index("logins"), "logins", pa.array(range(rows.num_rows), pa.int64())
    )
    version = tables.replace_all(table, planted, partition_by=["as_of"])
    with pytest.raises(SystemExit):
        ml(capsys, "validate", "--suite", "training", "--version", str(version), "--run-key", "k")
    assert "logins" in capsys.readouterr().out
