"""Suites of expectations: read from files, filled with the config's thresholds, and checked against frames."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from ml.config import ConfigError, load_model
from ml.validate import expectations
from tests.support.resources import Resources


@pytest.mark.parametrize("suite", ["arrival", "silver", "training"])
def test_every_expectation_has_its_reason(suite: str) -> None:
    for expectation in expectations.load(suite, load_model("churn")).expectations:
        assert expectation.description
        assert expectation.meta.why


def test_thresholds_come_from_the_models_config() -> None:
    config = load_model("churn")
    bounds = [
        e.kwargs
        for e in expectations.load("silver", config).expectations
        if e.kwargs.get("column") == "amount" and len(e.kwargs) == 3
    ]
    limit = config.clean.max_abs_amount
    assert bounds == [{"column": "amount", "min_value": -limit, "max_value": limit}]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("name: [", "not YAML", id="not-yaml"),
        pytest.param("name: x\ndescription: y", "expectations: Field required", id="no-expectations"),
        pytest.param("$typo", "no such key in config/churn.yaml", id="unknown-threshold"),
    ],
)
def test_a_bad_suite_names_file_and_key(resources: Resources, text: str, why: str) -> None:
    if text == "$typo":
        text = (
            "name: x\ndescription: y\nexpectations:\n- {type: expect_column_to_exist, kwargs: {column: $clean.typo}, "
            "severity: critical, description: z, meta: {why: w}}"
        )
    resources.write("expectations", "bad.yaml", text)
    with pytest.raises(ConfigError, match=re.escape(why)) as error:
        expectations.load("bad", load_model("churn"))
    assert "bad.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("kind", "of", "why"),
    [
        pytest.param("expect_nothing", "rows", "expect_nothing", id="type-that-does-not-exist"),
        pytest.param(
            "expect_column_to_exist",
            "lines",
            "is of frame 'lines'; existing frames: rows",
            id="frame-that-is-not-given",
        ),
    ],
)
def test_an_expectation_of_unknown_type_or_frame_is_a_config_error(kind: str, of: str, why: str) -> None:
    expectation = {
        "type": kind,
        "kwargs": {"column": "a"},
        "severity": "critical",
        "description": "d",
        "meta": {"why": "w", "of": of},
    }
    suite = expectations.Suite.model_validate({"name": "s", "description": "d", "expectations": [expectation]})
    with pytest.raises(ConfigError, match=re.escape(why)):
        expectations.check(suite, {"rows": pa.table({"a": [1]})})


def test_an_expectation_that_cannot_be_computed_has_failed() -> None:
    suite = expectations.load("training", load_model("churn"))
    frames = {"rows": pa.table({"customer_id": ["7"]}), "features": pa.table({"name": ["amount"]})}
    outcomes = expectations.check(suite, frames)
    assert [o.passed for o in outcomes if o.expectation.description == "Every row names its customer"] == [True]
    (lost,) = [o for o in outcomes if o.expectation.description == "Every row says as of when"]
    assert not lost.passed
    assert 'could not be computed: Error: The column "as_of"' in lost.observed
