"""Models are read from formats that cannot execute code; the registry's other formats are refused unread."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pytest

from ml.errors import StageError
from ml.models import predictors
from ml.models.frames import Feature
from ml.registry import model_versions
from tests.support.models.onnx_models import onnx_of, pipeline, table
from tests.support.models.small_world import TEST_DAY, World, training_rows, training_set


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return training_rows(600, TEST_DAY, "train", seed=3)


@pytest.fixture(scope="module")
def fitted(rows: pa.Table) -> tuple[Any, tuple[Feature, ...], bytes]:
    model, features = pipeline(rows)
    return model, features, onnx_of(model, features)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def folder_with(where: Path, flavors: str, **files: bytes) -> Path:
    """A model folder as an attacker could write it."""
    where.mkdir()
    signature = (
        'signature:\n  inputs: \'[{"type": "double", "name": "orders", "required": false}]\'\n'
        '  outputs: \'[{"type": "double"}]\'\n'
    )
    (where / "MLmodel").write_text(f"artifact_path: model\nflavors:\n{flavors}{signature}")
    for name, content in files.items():
        (where / name.replace("__", ".")).write_bytes(content)
    return where


@pytest.mark.parametrize(
    ("flavors", "why"),
    [
        pytest.param(
            "  sklearn:\n    pickled_model: model.pkl\n    serialization_format: pickle\n",
            "stored as sklearn, and reading that runs code",
            id="sklearn-pickle",
        ),
        pytest.param(
            "  python_function:\n    loader_module: mlflow.sklearn\n    model_path: model.pkl\n",
            "stored as python_function",
            id="python-function-alone",
        ),
        pytest.param(
            "  lightgbm:\n    data: model.pkl\n    model_class: lightgbm.sklearn.LGBMClassifier\n",
            "stored as lightgbm, and reading that runs code",
            id="pickled-wrapper-in-the-lightgbm-flavor",
        ),
        pytest.param(
            "  lightgbm:\n    data: model.pkl\n    model_class: lightgbm.basic.Booster\n",
            "'model.pkl' is not LightGBM's text",
            id="pickle-that-claims-to-be-text",
        ),
        pytest.param("  onnx:\n    data: model.pkl\n", "is not an ONNX model", id="pickle-that-claims-to-be-onnx"),
        pytest.param("  onnx:\n    data: ../other.onnx\n", "outside of the model's folder", id="file-elsewhere"),
        pytest.param("  onnx:\n    data: other.onnx\n", "is not in the model's folder", id="file-missing"),
        pytest.param(
            "  evil: !!python/object/apply:pathlib.Path.touch [mark]\n",
            "MLmodel file cannot be read",
            id="yaml-with-code",
        ),
    ],
)
def test_a_folder_that_could_run_code_is_refused_and_its_code_not_run(tmp_path: Path, flavors: str, why: str) -> None:
    mark = tmp_path / "mark"
    folder = folder_with(
        tmp_path / "model", flavors.replace("[mark]", f"[{mark}]"), model__pkl=pickle.dumps(Bomb(mark))
    )
    with pytest.raises(StageError, match=why):
        predictors.read_predictor(folder, "churn version 1")
    assert not mark.exists()


def test_a_pickled_model_in_the_registry_is_refused_and_its_code_not_run(world: World, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pickled = b"  sklearn:\n    pickled_model: model.pkl\n  python_function:\n    loader_module: mlflow.sklearn\n"
    folder = folder_with(tmp_path / "model", pickled.decode(), model__pkl=pickle.dumps(Bomb(mark)))
    with model_versions.training_run("tests", "pickled-1", {}) as run_id:
        mlflow.log_artifacts(str(folder), "model")
        digest = model_versions.digest_files(folder)  # the attacker sets the right digest, too
        mlflow.register_model(f"runs:/{run_id}/model", "churn", tags={model_versions.DIGEST: digest})
    with pytest.raises(StageError, match=r"churn version 1 is stored as python_function, sklearn.*register it again"):
        model_versions.load(model_versions.get_version("churn", "1"))
    assert not mark.exists()


def test_onnx_gives_the_probabilities_of_the_pipeline(rows: pa.Table, fitted: Any) -> None:
    model, features, content = fitted
    expected = model.predict_proba(table(rows, features))[:, 1]
    assert np.abs(predictors.from_onnx(content, "m").predict(rows) - expected).max() < 1e-5


def test_onnx_is_logged_registered_and_read_again(world: World, rows: pa.Table, fitted: Any) -> None:
    _, features, content = fitted
    predictor = predictors.from_onnx(content, "m", features)
    with model_versions.training_run("tests", "onnx-1", {}):
        model_versions.register_once("churn", model_versions.log_model(predictor), "onnx-1", {})
    again = model_versions.load(model_versions.get_version("churn", "1"))
    assert isinstance(again, predictors.OnnxPredictor)
    assert (again.content, again.features) == (content, features)
    assert (again.predict(rows) == predictor.predict(rows)).all()


def test_the_same_rows_give_the_same_bits_and_a_single_row_the_same_within_1e_6(rows: pa.Table, fitted: Any) -> None:
    predictor = predictors.from_onnx(fitted[2], "m")
    together = predictor.predict(rows)
    assert (predictor.predict(rows) == together).all()
    assert (predictors.from_onnx(fitted[2], "m").predict(rows) == together).all()
    alone = [predictor.predict(rows.slice(n, 1))[0] for n in range(0, rows.num_rows, 50)]
    # float32, and a matrix is multiplied in another order than a vector
    assert alone == pytest.approx(together[::50], abs=1e-6)


def test_many_rows_are_scored_a_part_at_a_time(rows: pa.Table, fitted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = predictors.from_onnx(fitted[2], "m")
    together = predictor.predict(rows)
    monkeypatch.setattr(predictors, "_ONNX_ROWS", 7)
    assert predictor.predict(rows) == pytest.approx(together, abs=1e-6)


@pytest.mark.parametrize("kind", ["lightgbm", "onnx"])
def test_nulls_and_unseen_categories_are_scored_and_rows_stay_in_order(world: World, kind: str, fitted: Any) -> None:
    if kind == "onnx":
        predictor: predictors.Predictor = predictors.from_onnx(fitted[2], "m")
    else:
        world.train(world.write_training_set(training_set()))
        predictor = model_versions.load(model_versions.get_version("churn", "1"))
    rows = training_rows(50, TEST_DAY, "test", seed=9)
    null = rows.set_column(rows.schema.get_field_index("country"), "country", pa.nulls(50, pa.string()))
    unseen = rows.set_column(rows.schema.get_field_index("country"), "country", pa.repeat("XX", 50))
    empty = rows.set_column(rows.schema.get_field_index("orders"), "orders", pa.nulls(50, pa.int64()))
    for odd in (null, unseen, empty):
        scores = predictor.predict(odd)
        assert scores.dtype == np.float64
        assert ((scores > 0) & (scores < 1)).all()
        assert (predictor.predict(odd.take(pa.array(range(49, -1, -1)))) == scores[::-1]).all()
    assert len(predictor.predict(rows.slice(0, 0))) == 0


def test_missing_columns_are_named(fitted: Any, rows: pa.Table) -> None:
    predictor = predictors.from_onnx(fitted[2], "m")
    with pytest.raises(StageError, match="the input of m does not fit the model: column orders is missing"):
        predictor.predict(rows.drop_columns(["orders"]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(lambda f: f[:-1], r"missing none, not expected \['country \(category\)'\]", id="too-many"),
        pytest.param(
            lambda f: (*f, Feature("age", "number")), r"missing \['age \(number\)'\], not expected none", id="too-few"
        ),
        pytest.param(
            lambda f: (*f[:-1], Feature("country", "number")), r"missing \['country \(number\)'\]", id="other-kind"
        ),
    ],
)
def test_a_graph_with_other_columns_than_the_features_is_refused(
    fitted: Any, change: Callable[..., Any], why: str
) -> None:
    with pytest.raises(StageError, match=why):
        predictors.from_onnx(fitted[2], "m", change(fitted[1]))


def test_features_in_another_order_are_matched_by_name(fitted: Any, rows: pa.Table) -> None:
    _, features, content = fitted
    other = predictors.from_onnx(content, "m", features[::-1])
    assert other.features == features[::-1]
    assert (other.predict(rows) == predictors.from_onnx(content, "m").predict(rows)).all()


def test_probabilities_as_a_list_of_maps_are_refused(fitted: Any) -> None:
    model, features, _ = fitted
    with pytest.raises(StageError, match="convert with zipmap off"):
        predictors.from_onnx(onnx_of(model, features, zipmap=True), "m")
