"""A second model over other tables and columns is a second file in `config/`, and the queries it names.

Subscriptions that are cancelled, of a shop that sells none: another source, another key, other features and another label,
from training set to champion and scores, beside a churn model that is not affected.
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
from ml.ops import built_days
from ml.storage import tables
from tests.support.models.small_world import World

ROOT = Path(__file__).resolve().parents[3]
FIRST, DAYS = date(2025, 1, 1), 150
LAST = FIRST + timedelta(DAYS - 1)

FEATURES = """
SELECT
  subscription_id,
  CAST(:as_of AS DATE) AS as_of,
  CAST(sum(CASE WHEN datediff(:as_of, day) < :active_days THEN logins ELSE 0 END) AS BIGINT) AS logins,
  CAST(sum(complaints) AS BIGINT) AS complaints,
  max_by(plan, day) AS plan,
  coalesce(min(datediff(:as_of, day)) < :active_days, FALSE) AS active
FROM subscription_days
WHERE day <= :as_of
GROUP BY subscription_id
ORDER BY subscription_id
"""
LABEL = """
WITH seen AS (
  SELECT DISTINCT subscriptions.subscription_id, subscriptions.as_of
  FROM subscriptions
  INNER JOIN subscription_days
    ON subscription_days.subscription_id = subscriptions.subscription_id
    AND subscription_days.day > subscriptions.as_of
    AND datediff(subscription_days.day, subscriptions.as_of) <= :horizon_days
)

SELECT
  subscriptions.subscription_id,
  subscriptions.as_of,
  CASE WHEN seen.subscription_id IS NULL THEN 1 ELSE 0 END AS cancelled
FROM subscriptions
LEFT JOIN seen ON seen.subscription_id = subscriptions.subscription_id AND seen.as_of = subscriptions.as_of
WHERE subscriptions.active
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


def write_second_model(folder: Path) -> None:
    """`config/subscriptions.yaml`, and the two queries it names."""
    made = yaml.safe_load((folder / "config/churn.yaml").read_text())
    made |= {"model": "subscriptions", "experiment": "/Shared/subscriptions", "description": "Who cancels?"}
    made["features"] |= {"table": "features.subscriptions", "key": "subscription_id", "active_days": 15}
    made["features"] |= {"source": "silver.subscription_days", "query": "subscriptions"}
    made["label"] |= {"name": "cancelled", "query": "cancellations", "horizon_days": 20}
    made["train"] |= {"table": "features.subscription_training_set", "min_train_rows": 100, "step_days": 15}
    complains = {"name": "complains", "add": {"complaints": 1}, "expect": "not_lower", "tolerance": 0.02}
    made["evaluate"] |= {"bootstrap": 100, "groups": {"columns": ["plan"], "min_rows": 30}, "behaviour": [complains]}
    plans = {"column": "plan", "metric": "accuracy", "max_difference": 0.3, "when_one_group": "fail"}
    made["gate"] |= {"min_rows": 100, "min_per_class": 20, "fairness": [plans], "max_violations": {"complains": 0.1}}
    made["score"] |= {"table": "gold.subscription_scores"}
    made["monitor"] |= {"table": "gold.subscription_drift"}
    (folder / "config/subscriptions.yaml").write_text(yaml.safe_dump(made))
    (folder / "sql/subscriptions.sql").write_text(FEATURES)
    (folder / "sql/cancellations.sql").write_text(LABEL)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    made.resources.copy_all()
    write_second_model(made.resources.folder)
    tables.replace("silver.subscription_days", subscription_days(), "day IS NOT NULL")
    return made


def ml(capsys: pytest.CaptureFixture[str], stage: str, *arguments: str) -> dict[str, Any]:
    cli.main([stage, "--model", "subscriptions", *arguments])
    facts: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return facts


def test_from_its_training_set_to_its_champion_s_scores(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    key = ("--run-key", "subscriptions-1")
    made = ml(capsys, "training_set", "--through", LAST.isoformat(), *key)
    assert made["sources"].keys() == {"silver.subscription_days", "features.subscriptions"}
    version = str(made["version"])
    assert ml(capsys, "validate", "--suite", "training", "--version", version, *key)["failed"] == []
    trained = ml(capsys, "train", "--training-set-version", version, *key)
    assert trained["roc_auc"]["value"] > 0.7
    assert ml(capsys, "gate", "--version", "1")["approved"]
    assert ml(capsys, "promote", "--version", "1", *key)["after"] == "1"
    ml(capsys, "features", "--as-of", LAST.isoformat(), *key)
    scored = ml(capsys, "score", "--day", LAST.isoformat(), *key)
    rows = tables.read("gold.subscription_scores")
    assert scored["rows"] == rows.num_rows > 0
    assert "subscription_id" in rows.column_names

    from ml.registry import model_versions

    assert model_versions.version_of_alias("churn") is None, "the churn model is not affected"
    assert built_days.read_entries("churn") == []
    assert {entry.stage for entry in built_days.read_entries("subscriptions")} == {"features", "score"}


def test_a_leak_of_the_second_model_is_found_by_its_own_query(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    version = ml(capsys, "training_set", "--through", LAST.isoformat(), "--run-key", "k")["version"]
    table = "features.subscription_training_set"
    rows = tables.read(table, version=version)
    planted = rows.append_column("sorrow", pa.array(range(rows.num_rows)))
    version = tables.replace(table, planted, "as_of IS NOT NULL", partition_by=["as_of"])
    with pytest.raises(SystemExit):
        ml(capsys, "validate", "--suite", "training", "--version", str(version), "--run-key", "k")
    assert "include/sql/subscriptions.sql gives no such feature" in capsys.readouterr().out
