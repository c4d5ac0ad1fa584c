"""The specification of an AutoML job: each setting is understood, rejected or reported as not implemented."""

from __future__ import annotations

from typing import Any

import pytest
from azure.ai.ml import Input, automl
from azure.ai.ml.automl import ColumnTransformer

from standins.azure_ml.automl.spec import FAMILIES, InvalidSpecError, Spec, UnsupportedSpecError, read_spec


def automl_body(**changes: Any) -> dict[str, Any]:
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
def test_invalid_settings_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidSpecError, match=why):
        read_spec(automl_body(**changes))


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
def test_unsupported_settings_are_not_implemented(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UnsupportedSpecError, match=what):
        read_spec(automl_body(**changes))


def test_the_sdks_request_is_understood_and_survives_serialisation() -> None:
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
    spec = read_spec(body)
    assert spec == Spec(
        "churned", "Accuracy", 4, None, tuple(name for name in FAMILIES if name != "KNN"), 12, 2, 600, 120, 0.9, False,
        True, False, {"a": ("median", None), "b": ("median", None), "c": ("constant", 0)},
    )  # fmt: skip
    assert Spec.from_json(spec.to_json()) == spec


def test_split_columns_are_understood_and_survive_serialisation() -> None:
    job = automl.classification(
        training_data=Input(type="mltable", path="azureml://datastores/d/paths/x/"),
        target_column_name="churned",
        cv_split_column_names=["one", "two"],
    )
    job.set_training(enable_onnx_compatible_models=True)
    spec = read_spec(job._to_rest_object().as_dict()["properties"])
    assert (spec.own_splits, spec.folds) == (("one", "two"), None)
    assert Spec.from_json(spec.to_json()) == spec


def test_missing_settings_get_the_services_defaults() -> None:
    spec = read_spec(automl_body())
    assert (spec.folds, spec.holdout, spec.families) == (None, None, FAMILIES)
    assert (spec.max_trials, spec.concurrent, spec.timeout, spec.trial_timeout) == (1000, 1, 21600, 1800)
    assert spec.early_termination
    assert spec.vote
    assert spec.stack
