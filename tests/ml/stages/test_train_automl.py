"""AutoML's model is adopted, measured and registered like a fitted one; a sweep's parameters are used and recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient

from ml.errors import StageError
from ml.registry import model_versions
from ml.storage import stores
from ml.train import automl
from tests.support.models.onnx_models import onnx_of, pipeline
from tests.support.models.registered import trees, versions
from tests.support.models.small_world import TEST_DAY, World, training_rows, training_set
from tests.support.models.stages import ml


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def graph() -> bytes:
    """AutoML's model of all features."""
    rows = training_set()
    rows = rows.filter(pc.equal(rows["split"], "train")).drop_columns(["split", "_inputs"])
    return onnx_of(*pipeline(rows))


@pytest.fixture
def folder(tmp_path: Path, graph: bytes) -> Path:
    """AutoML's output folder as Azure ML writes it: the graph, and a pickle beside it."""
    output = tmp_path / "best_model"
    (output / "deep").mkdir(parents=True)
    (output / "model.pkl").write_bytes(b"never read")
    (output / "deep" / "model.onnx").write_bytes(graph)
    return output


# --- parameters of a sweep ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "why"),
    [
        pytest.param("{num_leaves: 3}", "--params is not JSON", id="not-json"),
        pytest.param("[3]", "a JSON object of parameters is needed", id="not-an-object"),
        pytest.param('{"seed": 3}', "seed must not be set here", id="a-fixed-parameter"),
        pytest.param(
            '{"num_leaves": [3]}', "does not fit config train.params: params.num_leaves", id="not-a-single-value"
        ),
        pytest.param('{"learning_rate": NaN}', "does not fit config train.params", id="not-a-number"),
    ],
)
def test_parameters_that_the_config_would_refuse_are_refused(world: World, params: str, why: str) -> None:
    with pytest.raises(StageError, match=why):
        world.train(world.write_training_set(training_set()), params=params)
    assert versions() == []


def test_given_parameters_are_used_and_recorded_and_give_the_same_bytes(world: World) -> None:
    version = world.write_training_set(training_set())
    best = json.dumps({"num_leaves": 3, "n_estimators": 20})
    first, again = (world.train(version, key, params=best) for key in ("train-1", "train-2"))
    assert trees(first["version"]) == trees(again["version"])
    assert first["params"] == {**world.config.train.params, "num_leaves": 3, "n_estimators": 20, "seed": 7}
    logged = MlflowClient().get_run(first["run_id"]).data.params
    assert (logged["num_leaves"], logged["n_estimators"]) == ("3", "20")
    kept = json.loads(
        model_versions.read_artifact(model_versions.get_version("churn", first["version"]), "config.json")
    )
    assert kept["train"]["params"]["num_leaves"] == 3
    assert world.train(version, "train-1", params=best)["reused"]
    with pytest.raises(
        StageError, match=r"run key 'train-1' already has churn version 1, trained with parameters.*20.*100"
    ):
        world.train(version, "train-1")


# --- AutoML's model -------------------------------------------------------------------------------------------------


def test_automl_model_is_measured_and_registered_with_its_origin(world: World, folder: Path, graph: bytes) -> None:
    version = world.write_training_set(training_set())
    how = {"automl_model": str(folder), "automl_job": "job-7", "automl_algorithm": "LogisticRegression"}
    trained = world.train(version, **how)
    assert trained["roc_auc"]["value"] > 0.8
    version_1 = model_versions.get_version("churn", trained["version"])
    tags = {name: version_1.tags[name] for name in ("algorithm", "automl_job", "automl_sha256")}
    assert tags == {
        "algorithm": "LogisticRegression",
        "automl_job": "job-7",
        "automl_sha256": hashlib.sha256(graph).hexdigest(),
    }
    assert ml("evaluate", version=version_1.number)["roc_auc"] == trained["roc_auc"]
    assert world.gate(version_1.number)["approved"]
    again = world.train(version, **how)
    assert (again["reused"], again["version"]) == (True, trained["version"])
    with pytest.raises(StageError, match="already has churn version 1, trained with parameters of AutoML, not"):
        world.train(version)


def test_run_key_of_another_automl_model_is_refused(world: World, folder: Path) -> None:
    version = world.write_training_set(training_set())
    world.train(version)
    with pytest.raises(StageError, match="trained with a fit of its own, not AutoML model"):
        world.train(version, automl_model=str(folder))


def without_orders(world: World, rows: pa.Table) -> pa.Table:
    columns = tuple(name for name in world.config.feature_names if name != "orders")
    stays_away = tuple(check for check in world.config.evaluate.behaviour if check.name == "stays_away")
    world.configure(
        features={"customers": columns},
        evaluate={"behaviour": stays_away},
        gate={"max_violations": {"stays_away": 0.1}},
    )
    return rows


def with_visits(world: World, rows: pa.Table) -> pa.Table:
    world.configure(features={"customers": (*world.config.feature_names, "visits")})
    return rows.append_column("visits", rows["orders"])


def with_orders_as_text(_: World, rows: pa.Table) -> pa.Table:
    place = rows.schema.get_field_index("orders")
    return rows.set_column(place, "orders", rows["orders"].cast(pa.string()))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(without_orders, r"missing none, not expected \['orders \(number\)'\]", id="fewer"),
        pytest.param(with_visits, r"missing \['visits \(number\)'\]", id="more"),
        pytest.param(
            with_orders_as_text,
            r"missing \['orders \(category\)'\], not expected \['orders \(number\)'\]",
            id="other-kind",
        ),
    ],
)
def test_automl_model_of_other_columns_is_refused_and_leaves_nothing(
    world: World, folder: Path, change: Callable[[pa.Table], pa.Table], why: str
) -> None:
    version = world.write_training_set(change(world, training_set()))
    with pytest.raises(StageError, match=why):
        world.train(version, automl_model=str(folder))
    assert versions() == []
    assert MlflowClient().search_experiments(filter_string="name = '/Shared/churn-prediction'") == []


@pytest.mark.parametrize(
    ("location", "why"),
    [
        pytest.param(
            "best_model/nothing", "exactly one model.onnx is needed, and there are 0; the folder has nothing", id="none"
        ),
        pytest.param("pickle", "there are 0; the folder has model.pkl. AutoML writes one when", id="only-a-pickle"),
        pytest.param("two", "there are 2", id="two"),
        pytest.param(
            "azureml://datastores/d/paths/x", "Give an azureml:// address to the job as an input", id="azureml"
        ),
        pytest.param("https://x/y", "a local path or az://container/path is needed", id="https"),
        pytest.param("pickle/model.pkl", "is not an ONNX model that onnxruntime", id="not-onnx"),
    ],
)
def test_location_without_an_onnx_model_is_refused(
    world: World, folder: Path, tmp_path: Path, location: str, why: str
) -> None:
    for name in ("pickle/model.pkl", "two/a/model.onnx", "two/b/model.onnx"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(StageError, match=why):
        world.train(
            world.write_training_set(training_set()),
            automl_model=location if ":" in location else str(tmp_path / location),
        )
    assert versions() == []


def test_automl_model_is_fetched_from_blob_storage(
    tmp_path: Path, folder: Path, graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def blobs(uri: str) -> stores.Store:
        opened.append(uri)
        return stores.FolderStore(tmp_path)

    monkeypatch.setattr(stores, "open_store", blobs)
    assert automl.fetch("az://lake/best_model/") == graph
    assert automl.fetch("az://lake/best_model/deep/model.onnx") == graph
    assert opened == ["az://lake"] * 2


# --- the data for AutoML --------------------------------------------------------------------------------------------


def export(world: World, version: int, run_key: str = "automl/1 a") -> dict[str, Any]:
    return ml("automl_data", training_set_version=version, run_key=run_key)


def test_export_holds_the_training_part_without_ids_and_without_test_rows(world: World) -> None:
    rows = training_set()
    facts = export(world, world.write_training_set(rows))
    folder = world.folder / "lake" / facts["path"]
    assert facts["path"] == "automl/churn/automl_1_a-v0"
    assert facts["uri"] == f"file://{folder}"
    table = yaml.safe_load((folder / "MLTable").read_text())
    assert table["paths"] == [{"file": "./train.parquet"}]
    exported = pq.read_table(folder / "train.parquet")
    train = rows.filter(pc.equal(rows["split"], "train"))
    assert exported.num_rows == facts["rows"] == train.num_rows == 1200
    folds = [f"fit_in_fold_{n}" for n in range(1, 6)]
    assert exported.schema.names == [*facts["features"], "churned", *folds]
    assert tuple(facts["features"]) == world.config.feature_names
    assert sorted(exported["recency_days"].to_pylist()) == sorted(train["recency_days"].to_pylist())


def test_export_puts_a_customer_into_one_fold_with_all_its_rows(world: World) -> None:
    older = training_rows(1200, TEST_DAY - timedelta(days=180), "train", seed=5)  # the same customers, earlier
    facts = export(world, world.write_training_set(pa.concat_tables([older, training_set()])))
    exported = pq.read_table(world.folder / "lake" / facts["path"] / "train.parquet")
    marks = np.column_stack(
        [exported[name].to_numpy() for name in exported.schema.names if name.startswith("fit_in_fold")]
    )
    assert set(marks.sum(axis=1)) == {4}, "tested in one fold, fitted in the others"
    assert (marks[:1200] == marks[1200:]).all(), "both rows of a customer"
    assert all(200 < 2400 - fitted < 800 for fitted in marks.sum(axis=0))


def test_export_has_columns_in_the_form_of_scoring(world: World) -> None:
    facts = export(world, world.write_training_set(training_set()))
    exported = pq.read_table(world.folder / "lake" / facts["path"] / "train.parquet")
    assert exported.schema.field("amount").type == pa.float32()
    assert exported["online_preference_ratio"].null_count > 0
    assert exported["country"].null_count == 0
    assert set(exported["country"].to_pylist()) == {"DE", "FR", "NL", ""}


def test_export_again_changes_nothing_and_completes_an_incomplete_one(world: World) -> None:
    version = world.write_training_set(training_set())
    facts = export(world, version)
    folder = world.folder / "lake" / facts["path"]
    before = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").write_bytes(b"half of it")
    (folder / "MLTable").unlink()  # the process died before it was written
    again = export(world, version)
    assert (again["reused"], (folder / "train.parquet").read_bytes()) == (False, before)
    assert export(world, version) == {**facts, "reused": True}
    assert export(world, world.write_training_set(training_set(seed=2)))["path"] != facts["path"]
