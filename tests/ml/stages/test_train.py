"""One version per run key, the same bytes from the same inputs, and no training on what is unfit for it."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from ml.errors import StageError
from ml.registry import model_versions
from ml.stages import evaluate
from ml.storage import tables
from tests.support.models.registered import trees, versions
from tests.support.models.small_world import TRAINING_SET, World, training_set


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def runs(run_key: str) -> list[Any]:
    client = MlflowClient()
    experiments = [found.experiment_id for found in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.run_key = '{run_key}'"))


def dies(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt("the process dies here")


def changed(column: str, values: Callable[[pa.ChunkedArray], Any]) -> pa.Table:
    rows = training_set()
    return rows.set_column(rows.schema.get_field_index(column), column, values(rows[column]))


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        pytest.param(
            changed("churned", lambda c: pa.repeat(2, len(c))), r"churned holds \[2\] beside 0 and 1", id="label"
        ),
        pytest.param(changed("churned", lambda c: pa.nulls(len(c), pa.int64())), r"holds \[None\]", id="label-missing"),
        pytest.param(changed("churned", lambda c: pa.repeat(1, len(c))), "nothing can be learnt", id="one-class"),
        pytest.param(changed("split", lambda c: pa.repeat("dev", len(c))), "2000 rows have a split other", id="split"),
        pytest.param(training_set(train=999), "999 training rows; train.min_train_rows requires 1000", id="few-rows"),
        pytest.param(
            changed("as_of", lambda c: pa.repeat(c[-1], len(c))), "these labels were not known on", id="not-out-of-time"
        ),
        pytest.param(training_set().drop_columns(["churned", "split"]), "lacks split, churned", id="columns-missing"),
        pytest.param(training_set().drop_columns(["orders"]), "lacks orders; it has", id="feature-missing"),
        pytest.param(
            training_set().drop_columns(["_inputs"]), "no column _inputs names the table versions", id="no-sources"
        ),
        pytest.param(
            changed("_inputs", lambda c: pa.array(["{}"] + ["null"] * (len(c) - 1))),
            "all rows must name the same table versions in _inputs",
            id="several-sources",
        ),
        pytest.param(
            changed("orders", lambda c: pa.array([b"x"] * len(c))),
            "column orders is of type binary",
            id="no-feature-type",
        ),
    ],
)
def test_unfit_training_set_is_refused_and_leaves_nothing(world: World, rows: pa.Table, why: str) -> None:
    version = world.write_training_set(rows)
    with pytest.raises(StageError, match=why):
        world.train(version)
    assert versions() + runs("train-1") == []


@pytest.mark.parametrize(
    ("written", "version", "why"),
    [
        pytest.param(False, 0, "features.training_set does not exist at .* 'training_set' builds it", id="no-table"),
        pytest.param(True, 7, "has no version 7; the newest is 0", id="no-such-version"),
    ],
)
def test_training_set_that_does_not_exist_is_named(world: World, written: bool, version: int, why: str) -> None:
    if written:
        world.write_training_set(training_set())
    with pytest.raises(StageError, match=why):
        world.train(version)


def test_exactly_the_requested_version_is_read(world: World) -> None:
    old = world.write_training_set(training_set(train=1100))
    world.write_training_set(training_set(train=1500))
    assert world.train(old)["rows_train"] == 1100


def test_same_inputs_give_the_same_bytes(world: World) -> None:
    version = world.write_training_set(training_set())
    first, again = world.train(version, "train-1"), world.train(version, "train-2", params="{}")
    assert first["version"] != again["version"]
    assert trees(first["version"]) == trees(again["version"])


def test_processes_started_after_training_inherit_no_experiment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)  # mlflow.set_experiment sets it
    world.train(world.write_training_set(training_set()))
    assert "MLFLOW_EXPERIMENT_ID" not in os.environ


def test_order_of_the_rows_changes_nothing(world: World) -> None:
    rows = training_set()
    shuffled = rows.take(np.random.default_rng(0).permutation(rows.num_rows))
    first = world.train(world.write_training_set(rows), "train-1")
    again = world.train(world.write_training_set(shuffled), "train-2", params="{}")
    assert trees(first["version"]) == trees(again["version"])


def test_the_same_run_key_again_returns_its_version(world: World) -> None:
    version = world.write_training_set(training_set())
    first, again = world.train(version), world.train(version)
    assert (first["reused"], again["reused"]) == (False, True)
    assert (first["version"], first["run_id"]) == (again["version"], again["run_id"])
    assert len(versions()) == len(runs("train-1")) == 1


def test_run_key_of_another_training_set_is_refused(world: World) -> None:
    first, other = (world.write_training_set(training_set(seed=seed)) for seed in (1, 2))
    world.train(first)
    with pytest.raises(StageError, match=f"trained with training set version {first}, not {other}: use a new run key"):
        world.train(other)


@pytest.mark.parametrize("step", ["log_model", "register_once", "finish_run"])
def test_process_that_dies_leaves_one_version_after_the_next_try(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    version = world.write_training_set(training_set())
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):  # noqa: PT012 - replaced only inside
        broken.setattr(model_versions, step, dies)
        world.train(version)
    done = world.train(version)
    assert [found.version for found in versions()] == [int(done["version"])]
    left = {run.info.run_id: run for run in runs("train-1")}
    assert left.pop(done["run_id"]).info.status == "FINISHED"
    assert all(run.data.tags["superseded_by"] == done["run_id"] for run in left.values())
    assert (world.folder / "reports" / done["report"]).exists()


def test_run_left_running_by_a_killed_process_is_ended_and_superseded(world: World) -> None:
    client = MlflowClient()
    experiment = client.create_experiment(world.config.experiment)
    left = client.create_run(experiment, tags={"run_key": "train-1"}).info.run_id
    done = world.train(world.write_training_set(training_set()))
    ended = client.get_run(left)
    assert (ended.info.status, ended.data.tags["superseded_by"]) == ("KILLED", done["run_id"])


def test_two_at_once_end_with_one_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    version = world.write_training_set(training_set())
    log_model, inner = model_versions.log_model, []

    def meanwhile(*args: Any) -> str:
        """While this one trains, another process does the whole of it under the same run key."""
        monkeypatch.setattr(model_versions, "log_model", log_model)
        uri = log_model(*args)
        import mlflow

        mlflow.end_run()
        inner.append(world.train(version))
        return uri

    monkeypatch.setattr(model_versions, "log_model", meanwhile)
    outer = world.train(version)
    assert outer["version"] == inner[0]["version"]
    assert [str(found.version) for found in versions()] == [outer["version"]]


def test_run_key_with_a_quote_is_refused(world: World) -> None:
    with pytest.raises(StageError, match="contains a quote"):
        world.train(0, "it's")


def test_model_is_stored_as_text_and_takes_only_features(world: World) -> None:
    trained = world.train(world.write_training_set(training_set()))
    path = Path(download_artifacts(artifact_uri=f"models:/churn/{trained['version']}"))
    assert {"MLmodel", "model.lgb"} <= {file.name for file in path.iterdir()}
    assert not list(path.rglob("*.pkl"))
    names = [
        feature.name
        for feature in model_versions.load(model_versions.get_version("churn", trained["version"])).features
    ]
    assert tuple(names) == world.config.feature_names


@pytest.mark.parametrize("name", ["app_version", "active", "features_version"])
def test_a_feature_is_what_the_config_names_and_no_name_is_special(world: World, name: str) -> None:
    """Names that the columns of the training set itself once had."""
    rows = training_set().append_column(name, pa.array(np.arange(2000) % 7))
    version = world.write_training_set(rows)
    without = world.train(version, "train-1")
    world.configure(features={"customers": (*world.config.feature_names, name)})
    trained = world.train(version, "train-2")
    names = [
        [feature.name for feature in model_versions.load(model_versions.get_version("churn", number)).features]
        for number in (without["version"], trained["version"])
    ]
    assert [name in each for each in names] == [False, True]


def test_columns_that_the_config_does_not_name_are_not_learnt(world: World) -> None:
    """A copy of the label that lies in the table has no effect."""
    rows = training_set()
    leak = rows.append_column("left_for_good", rows["churned"])
    first = world.train(world.write_training_set(rows), "train-1")
    again = world.train(world.write_training_set(leak), "train-2", params="{}")
    assert trees(first["version"]) == trees(again["version"])


def test_a_training_set_of_the_release_before_is_learnt_from(world: World) -> None:
    """It names its table versions in columns of their own, and has columns that are no features."""
    rows = training_set().drop_columns(["_inputs"])
    old = rows.append_column("active", pa.repeat(True, 2000))
    old = old.append_column("customer_days_version", pa.repeat(7, 2000))
    old = old.append_column("features_version", pa.repeat(3, 2000))
    first = world.train(world.write_training_set(training_set()), "train-1")
    again = world.train(world.write_training_set(old), "train-2", params="{}")
    assert trees(first["version"]) == trees(again["version"])
    assert model_versions.get_version("churn", again["version"]).tags["source.silver.customer_days"] == "7"


def test_version_is_tagged_with_its_inputs(world: World) -> None:
    trained = world.train(world.write_training_set(training_set()))
    version = model_versions.get_version("churn", trained["version"])
    assert version.tags == {
        "algorithm": "lightgbm",
        "commit": "abc123",
        "config_digest": version.tags["config_digest"],
        "model_digest": model_versions.digest_files(
            Path(model_versions.client().get_model_version_download_uri("churn", version.number))
        ),
        "roc_auc": f"{trained['roc_auc']['value']:.4f}",
        "run_key": "train-1",
        "source.silver.customer_days": "7",
        "trained_through": "1998-01-01",
        "training_set_version": "0",
    }
    run = MlflowClient().get_run(trained["run_id"])
    assert run.info.run_name == "train-1"
    assert run.data.params["seed"] == str(world.config.train.seed)
    assert run.data.metrics["roc_auc_low"] < run.data.metrics["roc_auc"] < run.data.metrics["roc_auc_high"]
    reference = json.loads(model_versions.read_artifact(version, "reference.json"))
    assert reference["rows"] == trained["rows_train"]
    assert reference["features"]["country"]["categories"] == sorted(
        ["DE", "FR", "NL"], key=lambda name: -_count(tables.read(TRAINING_SET), name)
    )


def _count(rows: pa.Table, country: str) -> int:
    learnt = [
        c for c, split in zip(rows["country"].to_pylist(), rows["split"].to_pylist(), strict=True) if split == "train"
    ]
    return learnt.count(country)


def test_single_class_test_rows_register_a_version_that_the_gate_rejects(world: World) -> None:
    rows = training_set().to_pandas()
    rows.loc[rows.split == "test", "churned"] = 1
    trained = world.train(world.write_training_set(pa.Table.from_pandas(rows, training_set().schema)))
    assert "roc_auc" in trained["problems"][0]
    assert model_versions.get_version("churn", trained["version"]).tags["roc_auc"] == "not measured"
    decision = world.gate(trained["version"])
    assert not decision["approved"]
    assert "rows are of one class; at least" in decision["reasons"][0]
    assert any("roc_auc was not measured" in reason for reason in decision["reasons"])


def test_a_country_column_of_nulls_is_trained_on(world: World) -> None:
    rows = changed("country", lambda c: pa.nulls(len(c), pa.string()))
    trained = world.train(world.write_training_set(rows))
    predictor = model_versions.load(model_versions.get_version("churn", trained["version"]))
    assert np.isfinite(predictor.predict(rows)).all()


def test_registered_model_measured_again_gives_the_same_auc(world: World) -> None:
    trained = world.train(world.write_training_set(training_set()))
    version = model_versions.get_version("churn", trained["version"])
    again = evaluate.run(Namespace(model="churn", version=version.number))
    assert again["roc_auc"] == trained["roc_auc"]
