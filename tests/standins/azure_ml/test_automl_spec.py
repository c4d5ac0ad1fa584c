"""What an AutoML job may ask: understood, refused as wrong, or said to be not implemented; never passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from azure.ai.ml import Input, automl
from azure.ai.ml.automl import ColumnTransformer

from standins.azure_ml.automl.spec import FAMILIES, Spec, UnknownError, WrongError, read_spec
from standins.azure_ml.mltable import BadTableError, TableNotImplementedError, patterns, read


def asked(**changes: Any) -> dict[str, Any]:
    """A job's body with these parts of its taskDetails."""
    task = {"taskType": "Classification", "targetColumnName": "churned", "primaryMetric": "AUCWeighted"}
    task["trainingSettings"] = {"enableOnnxCompatibleModels": True, **changes.pop("training", {})}
    return {"jobType": "AutoML", "taskDetails": {**task, **changes}}


def imputer(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"mode": "custom", "transformerParams": {"Imputer": list(entries)}}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"targetColumnName": None}, "targetColumnName is required", id="no-target"),
        pytest.param({"primaryMetric": "auc"}, "primaryMetric 'auc': one of AUCWeighted", id="unknown-metric"),
        pytest.param({"nCrossValidations": {"mode": "Custom", "value": 1}}, "from 2 to 25", id="one-fold"),
        pytest.param({"validationDataSize": 1.5}, "a share between 0 and 1", id="share"),
        pytest.param(
            {"validationDataSize": 0.2, "nCrossValidations": {"mode": "Custom", "value": 5}},
            "choose one",
            id="both-ways",
        ),
        pytest.param({"limitSettings": {"maxTrials": 0}}, "max_trials 0: a number from 1", id="no-trials"),
        pytest.param({"limitSettings": {"timeout": "an hour"}}, "an ISO 8601 duration", id="timeout"),
        pytest.param(
            {"training": {"allowedTrainingAlgorithms": ["LightGB"]}}, "'LightGB': one of", id="unknown-family"
        ),
        pytest.param(
            {"training": {"blockedTrainingAlgorithms": ["LightGB"]}}, "'LightGB': one of", id="unknown-blocked"
        ),
        pytest.param(
            {"training": {"blockedTrainingAlgorithms": list(FAMILIES)}}, "no training algorithm is left", id="all"
        ),
        pytest.param(
            {"training": {"allowedTrainingAlgorithms": ["KNN"], "blockedTrainingAlgorithms": ["KNN"]}},
            "KNN are both allowed and blocked",
            id="allowed-and-blocked",
        ),
        pytest.param(
            {"featurizationSettings": imputer({"fields": ["a"], "parameters": {"strategy": "mode"}})},
            "imputer strategy 'mode': one of mean, median, most_frequent, constant",
            id="imputer-strategy",
        ),
        pytest.param(
            {"featurizationSettings": imputer({"fields": ["a"]}, {"fields": ["a"]})},
            "a has two imputers",
            id="imputers",
        ),
        pytest.param({"featurizationSettings": {"mode": "some"}}, "auto, custom or off", id="featurization-mode"),
        pytest.param(
            {"cvSplitColumnNames": ["a"], "nCrossValidations": {"mode": "Custom", "value": 3}}, "choose one", id="folds"
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(WrongError, match=why):
        read_spec(asked(**changes))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        pytest.param({"taskType": "Regression"}, "type 'Regression'", id="regression"),
        pytest.param({"weightColumnName": "w"}, "taskDetails.weightColumnName", id="weights"),
        pytest.param({"training": {"enableOnnxCompatibleModels": False}}, "would be a pickle", id="no-onnx"),
        pytest.param({"training": {"enableModelExplainability": True}}, "enableModelExplainability", id="explanations"),
        pytest.param(
            {"training": {"allowedTrainingAlgorithms": ["SVM"]}}, "with SVM .this stand-in has LightGBM", id="svm"
        ),
        pytest.param({"limitSettings": {"maxNodes": 4}}, "limitSettings.maxNodes", id="nodes"),
        pytest.param({"featurizationSettings": {"mode": "off"}}, "featurization off", id="featurization-off"),
        pytest.param(
            {"featurizationSettings": {"blockedTransformers": ["OneHotEncoder"]}}, "blockedTransformers", id="blocked"
        ),
        pytest.param(
            {"featurizationSettings": {"transformerParams": {"HashOneHotEncoder": [{}]}}},
            "HashOneHotEnc",
            id="transformer",
        ),
    ],
)
def test_what_is_not_implemented_is_said(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UnknownError, match=what):
        read_spec(asked(**changes))


def test_what_the_client_sends_is_understood_and_survives_its_file() -> None:
    job = automl.classification(
        training_data=Input(type="mltable", path="azureml://datastores/d/paths/x/"),
        target_column_name="churned",
        primary_metric="accuracy",
        n_cross_validations=4,
    )
    job.set_limits(
        timeout_minutes=10, trial_timeout_minutes=2, max_trials=12, max_concurrent_trials=2, exit_score=0.9,
        enable_early_termination=False,
    )  # fmt: skip
    job.set_training(
        blocked_training_algorithms=["KNN", "SVM"], enable_onnx_compatible_models=True, enable_stack_ensemble=False
    )
    fill = {"strategy": "constant", "fill_value": 0}
    columns = [ColumnTransformer(fields=["a", "b"], parameters={"strategy": "median"})]
    columns.append(ColumnTransformer(fields=["c"], parameters=fill))
    job.set_featurization(mode="custom", transformer_params={"imputer": columns})
    body = job._to_rest_object().as_dict()["properties"]
    found = read_spec(body)
    assert found == Spec(
        "churned", "Accuracy", 4, None, tuple(name for name in FAMILIES if name != "KNN"), 12, 2, 600, 120, 0.9, False,
        True, False, {"a": ("median", None), "b": ("median", None), "c": ("constant", 0)},
    )  # fmt: skip
    assert Spec.from_json(found.to_json()) == found


def test_folds_that_columns_tell_are_understood_and_survive_the_file() -> None:
    job = automl.classification(
        training_data=Input(type="mltable", path="azureml://datastores/d/paths/x/"),
        target_column_name="churned",
        cv_split_column_names=["one", "two"],
    )
    job.set_training(enable_onnx_compatible_models=True)
    found = read_spec(job._to_rest_object().as_dict()["properties"])
    assert (found.own_splits, found.folds) == (("one", "two"), None)
    assert Spec.from_json(found.to_json()) == found


def test_the_services_defaults_hold_where_nothing_is_said() -> None:
    found = read_spec(asked())
    assert (found.folds, found.holdout, found.families) == (None, None, FAMILIES)
    assert (found.max_trials, found.concurrent, found.timeout, found.trial_timeout) == (1000, 1, 21600, 1800)
    assert found.early_termination
    assert found.vote
    assert found.stack


# --- MLTable --------------------------------------------------------------------------------------------------------

READ = "transformations: [read_parquet]"


@pytest.mark.parametrize(
    ("text", "problem", "why"),
    [
        pytest.param("a: [", BadTableError, "not YAML", id="no-yaml"),
        pytest.param("type: mltable", BadTableError, "names no paths", id="no-paths"),
        pytest.param("paths: [x]\n" + READ, BadTableError, "one of file, pattern and folder", id="bare-path"),
        pytest.param("paths: [{file: ../x}]\n" + READ, TableNotImplementedError, "outside of its own folder", id="up"),
        pytest.param("paths: [{file: /x}]\n" + READ, TableNotImplementedError, "outside of its own", id="absolute"),
        pytest.param("paths: [{file: 'https://x/y'}]\n" + READ, TableNotImplementedError, "outside of", id="elsewhere"),
        pytest.param("paths: [{file: x}]", TableNotImplementedError, "read_parquet .none", id="no-reading"),
        pytest.param(
            "paths: [{file: x}]\ntransformations: [{read_delimited: {}}]",
            TableNotImplementedError,
            "read_deli",
            id="csv",
        ),
        pytest.param(
            "paths: [{file: x}]\ntransformations: [read_parquet, {take: 5}]",
            TableNotImplementedError,
            "take",
            id="take",
        ),
        pytest.param(
            "paths: [{file: x}]\ntransformations: [{read_parquet: {include_path_column: true}}]",
            TableNotImplementedError,
            "include_path_column",
            id="option",
        ),
        pytest.param("paths: [{file: x}]\nmetadata: {}\n" + READ, TableNotImplementedError, "metadata", id="metadata"),
    ],
)
def test_data_table_that_cannot_be_read_is_refused(text: str, problem: type[Exception], why: str) -> None:
    with pytest.raises(problem, match=why):
        patterns(text)


def test_data_table_of_several_files_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (2, 1):
        pq.write_table(pa.table({"n": [number]}), tmp_path / f"part-{number}.parquet")
    (tmp_path / "MLTable").write_text("paths: [{folder: ./}]\n" + READ)
    assert read(tmp_path)["n"].to_pylist() == [1, 2]
    pq.write_table(pa.table({"m": [3]}), tmp_path / "part-3.parquet")
    with pytest.raises(BadTableError, match="different columns"):
        read(tmp_path)
    (tmp_path / "MLTable").write_text("paths: [{file: none.parquet}]\n" + READ)
    with pytest.raises(BadTableError, match=r"there is no file none\.parquet"):
        read(tmp_path)
