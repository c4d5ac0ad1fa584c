"""A lake in a folder, an MLflow on SQLite, and customers whose churn can be learnt, for tests of the model's stages."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml.config import ModelConfig, load_model
from ml.storage import stores, tables
from tests.support.models.stages import ml
from tests.support.resources import Resources

TEST_DAY = date(1998, 4, 1)
DAY = date(1998, 6, 30)
BEFORE = date(1997, 1, 1)  # a day of the feature table that no test reads
FEATURES = "features.customers"
COLUMNS = (
    "recency_days", "tenure_days", "orders", "amount", "mean_order_amount", "online_preference_ratio", "country",
)  # fmt: skip
BUYS_AGAIN = {"orders": 1, "amount": "mean_order_amount"}  # what an order adds to these columns
TRAINING_SET = "features.training_set"


@cache
def empty_mlflow() -> Path:
    """A migrated, empty MLflow database. Migrating takes seconds, so it is done once and the file is copied."""
    folder = Path(tempfile.mkdtemp(prefix="mlflow-of-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{folder}/empty.db").search_experiments()
    return folder / "empty.db"


def customers(count: int, as_of: date = DAY, seed: int = 0, **shift: float) -> pa.Table:
    """Rows of `features.customers`; `shift` adds to a numeric column. One customer in ten has not bought for 90 days."""
    numbers, country, active = _drawn(count, seed)
    numbers["recency_days"] += np.where(active, 0, 90)
    for name, by in shift.items():
        numbers[name] = numbers[name] + by
    return _table(as_of, numbers, country).append_column("active", pa.array(active))


def _drawn(count: int, seed: int) -> tuple[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The numbers of customers by column, their countries, and who of them is active."""
    rng = np.random.default_rng(seed)
    orders = 1 + rng.poisson(3, count)
    amount = np.round(orders * rng.gamma(2.0, 15.0, count), 2)
    country = rng.choice(["DE", "FR", "NL"], count).astype(object)
    country[rng.random(count) < 0.1] = None
    numbers: dict[str, np.ndarray[Any, Any]] = {
        "recency_days": rng.integers(0, 90, count),
        "tenure_days": rng.integers(90, 500, count),
        "orders": orders,
        "amount": amount,
        "mean_order_amount": amount / orders,
        "online_preference_ratio": np.where(rng.random(count) < 0.2, np.nan, rng.random(count)),
    }
    return numbers, country, rng.random(count) < 0.9


def _table(as_of: date, numbers: dict[str, np.ndarray[Any, Any]], country: np.ndarray[Any, Any]) -> pa.Table:
    count = len(country)
    columns = {name: pa.array(values, from_pandas=True) for name, values in numbers.items()}
    return pa.table(
        {
            "customer_id": [f"c{n:06}" for n in range(count)],
            "as_of": pa.repeat(pa.scalar(as_of), count),
            **columns,
            "country": pa.array(country, pa.string()),
        }
    )


def training_rows(count: int, as_of: date, split: str, seed: int, signal: float = 1.0) -> pa.Table:
    """Labelled rows; the larger `signal`, the better recency and orders predict churn."""
    numbers, country, _ = _drawn(count, seed)
    rows = _table(as_of, numbers, country)
    recency, orders = rows["recency_days"].to_numpy(), rows["orders"].to_numpy()
    odds = signal * ((recency - 45) / 15 - (orders - 4) / 2)
    churned = np.random.default_rng(seed + 1).random(count) < 1 / (1 + np.exp(-odds))
    rows = rows.append_column("churned", pa.array(churned.astype(np.int64)))
    rows = rows.append_column("split", pa.repeat(pa.scalar(split), count))
    return rows.append_column("_inputs", pa.repeat(pa.scalar(json.dumps({"silver.customer_days": 7})), count))


def training_set(signal: float = 1.0, seed: int = 1, train: int = 1200, test: int = 800) -> pa.Table:
    return pa.concat_tables(
        [
            training_rows(train, TEST_DAY - timedelta(days=90), "train", seed, signal),
            training_rows(test, TEST_DAY, "test", seed + 1000, signal),
        ]
    )


def small_model(churn: ModelConfig) -> ModelConfig:
    """The model with the columns of this world only, and a quick evaluation."""
    behaviour = tuple(
        check.model_copy(update={"add": BUYS_AGAIN}) if check.name == "buys_again" else check
        for check in churn.evaluate.behaviour
    )
    quick = churn.evaluate.model_copy(update={"bootstrap": 100, "behaviour": behaviour})
    return churn.model_copy(update={"features": {"customers": COLUMNS}, "evaluate": quick})


@cache
def _world_with(step: str) -> Path:
    """The folder of a world that was brought to this step with the default training set: built once, then copied.

    Its artifacts are not copied, and all copies read them: a test that changes artifacts trains a model of its own.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{step}-of-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        world = World(folder, patch)
        world.train(world.write_training_set(training_set()))
        if step == "promoted":
            assert world.gate("1")["approved"]
            world.promote("1")
    return folder


NOT_COPIED = shutil.ignore_patterns("resources")  # a test's own config stays


class World:
    """One test's lake, reports and registry, and methods that run the stages as commands."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        shutil.copy(empty_mlflow(), folder / "mlflow.db")
        monkeypatch.chdir(folder)  # MLflow puts the artifacts of a database on disk below the current folder
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        monkeypatch.setenv("LAKE_URI", f"file://{folder}/lake")
        monkeypatch.setenv("REPORTS_URI", f"file://{folder}/reports")
        monkeypatch.setenv("ML_ENVIRONMENT", "local")
        (folder / "lake").mkdir()
        self.resources = Resources(folder / "resources", monkeypatch)
        self.config = self.resources.put(small_model(load_model("churn")))

    def configure(self, **sections: Any) -> None:
        """Change settings for this test: `configure(gate={"min_rows": 1})`."""
        self.config = self.resources.change_model(self.config.model, **sections)

    def write_training_set(self, rows: pa.Table) -> int:
        """Write a training set with its prerequisites: the feature table it was built from, and a passed validation."""
        if not tables.exists(FEATURES):
            self.write_features(customers(1, BEFORE), BEFORE)
        version = tables.replace_all(TRAINING_SET, rows, partition_by=["as_of"])
        self.write_validation(version)
        return version

    def write_validation(self, version: int, **other: Any) -> None:
        """Write the result that the stage 'validate' writes for a training set; `other` replaces some of its keys."""
        table = tables.table(TRAINING_SET, version)
        outcome = {
            "passed": True,
            "rows": {"rows": tables.dataset(TRAINING_SET, version).count_rows()},
            "outcomes": [{"description": "Every label is 0 or 1", "passed": True}],
            "table": {"name": TRAINING_SET, "version": version, "id": table.metadata().id},
        }
        name = f"validation/churn/training/version-{version}.json"
        stores.reports().write(name, json.dumps(outcome | other).encode())

    def write_features(self, rows: pa.Table, day: date = DAY) -> int:
        if tables.exists(FEATURES) and set(tables.dataset(FEATURES).schema.names) != set(rows.schema.names):
            self.forget_features()
        return tables.replace(FEATURES, rows, tables.day_predicate("as_of", [day]), partition_by=["as_of"])

    def forget_features(self) -> None:
        """Delete the feature table, for a test that needs none, or other columns."""
        shutil.rmtree(self.folder / "lake" / "features" / "customers", ignore_errors=True)

    def train(self, version: int, run_key: str = "train-1", **how: str) -> dict[str, Any]:
        """Fit with the config's parameters, or as `how` says: `params`, or `automl_model` and its options.

        `train-2` fits another model on the same rows than `train-1`, with two more trees, because the gate rejects a
        challenger that is identical to the champion. Pass `params="{}"` for an identical one.
        """
        trees = self.config.train.params["n_estimators"]
        attempt = int(run_key.removeprefix("train-")) if run_key.startswith("train-") else 1
        params = None if attempt == 1 or "automl_model" in how else json.dumps({"n_estimators": int(trees) + attempt})
        options = {"params": params, "commit": "abc123", **how}
        return ml("train", model="churn", training_set_version=version, run_key=run_key, **options)

    def gate(self, version: str) -> dict[str, Any]:
        return ml("gate", model="churn", version=version)

    def promote(self, version: str, run_key: str = "promote-1") -> dict[str, Any]:
        return ml("promote", model="churn", version=version, run_key=run_key)

    def roll_back(self, why: str, run_key: str | None = "back-1", version: str | None = None) -> dict[str, Any]:
        return ml("rollback", model="churn", version=version, why=why, run_key=run_key)

    def score(self, day: date = DAY, run_key: str = "score-1") -> dict[str, Any]:
        return ml("score", model="churn", day=day, run_key=run_key)

    def monitor(self, day: date = DAY, run_key: str = "monitor-1") -> dict[str, Any]:
        return ml("monitor", model="churn", day=day, run_key=run_key)

    def trained(self) -> str:
        """In a new world: a version that `train-1` trained on the default training set, not decided on yet."""
        shutil.copytree(_world_with("trained"), self.folder, dirs_exist_ok=True, ignore=NOT_COPIED)
        return "1"

    def champion(self) -> str:
        """In a new world: the same version, approved and promoted."""
        shutil.copytree(_world_with("promoted"), self.folder, dirs_exist_ok=True, ignore=NOT_COPIED)
        return "1"


@contextmanager
def tampered(number: str) -> Iterator[None]:
    """Change a leaf in a version's trees in the registry's storage, as an attacker with access to it could."""
    from ml.registry import model_versions

    folder = Path(model_versions.client().get_model_version_download_uri("churn", number))
    (trees,) = (path for path in folder.rglob("*") if path.is_file() and b"\nleaf_value=" in path.read_bytes())
    before = trees.read_bytes()
    trees.write_bytes(before.replace(b"\nleaf_value=", b"\nleaf_value=1", 1))
    try:
        yield
    finally:
        trees.write_bytes(before)  # worlds share the artifacts that they were copied from
