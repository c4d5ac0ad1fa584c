"""Suites of expectations: read from files, filled with the config's thresholds, and checked against frames."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from ml.config import ConfigError, list_names, load_model, load_source
from ml.resources import resource_dir
from ml.validate import expectations
from tests.support.resources import Resources

OF_SOURCES = [(suite, load_source(name)) for name in list_names("source") for suite in ("arrival", "silver")]
OF_MODELS = [("training", load_model(name)) for name in list_names("model")]


@pytest.mark.parametrize(
    ("suite", "config"), [pytest.param(suite, c, id=f"{c.name}-{suite}") for suite, c in [*OF_SOURCES, *OF_MODELS]]
)
def test_every_expectation_has_its_reason(suite: str, config: expectations.Config) -> None:
    for expectation in expectations.load(suite, config).expectations:
        assert expectation.description
        assert expectation.meta.why
        assert "$" not in str({k: v for k, v in expectation.kwargs.items() if "regex" not in k})


def test_every_folder_of_expectations_is_of_a_source_or_model() -> None:
    folders = {
        path.name: {file.stem for file in path.iterdir()}
        for path in resource_dir("expectations").iterdir()
        if path.is_dir()
    }
    for name, suites in folders.items():
        known = {"arrival", "silver"} if name in list_names("source") else set()
        known |= {"training"} if name in list_names("model") else set()
        assert suites <= known, name


def test_thresholds_come_from_the_sources_config() -> None:
    config = load_source("transactions")
    bounds = [
        e.kwargs
        for e in expectations.load("silver", config).expectations
        if e.kwargs.get("column") == "amount" and len(e.kwargs) == 3
    ]
    limit = config.clean.settings["max_abs_amount"]
    assert bounds == [{"column": "amount", "min_value": -limit, "max_value": limit}]


def test_the_general_suite_asks_what_its_source_can_answer() -> None:
    dated, undated = (load_source(name).model_copy(update={"source": "new"}) for name in ("transactions", "products"))
    first, second = (expectations.load("silver", source).expectations for source in (dated, undated))
    assert [e for e in first if e.meta.needs is None] == second
    assert {"column": "occurred_at"} in [e.kwargs for e in first if e.meta.needs == "time"]


def suite_of(column: str, needs: str = "") -> str:
    return (
        f"name: x\ndescription: y\nexpectations:\n- {{type: expect_column_to_exist, kwargs: {{column: {column}}}, "
        f"severity: critical, description: z, meta: {{why: w{needs}}}}}"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("name: [", "not YAML", id="not-yaml"),
        pytest.param("name: x\ndescription: y", "expectations: Field required", id="no-expectations"),
        pytest.param(suite_of("$clean.typo"), "'z': no such key as clean.typo in ", id="unknown-key"),
        pytest.param(suite_of("$clean.settings.typo"), "no such key as clean.settings.typo in ", id="unknown-setting"),
        pytest.param(suite_of("$timezone.key"), "no such key as timezone.key in ", id="a-key-below-a-text"),
        pytest.param(suite_of("-$timezone"), "no number to negate at timezone, but 'UTC', in ", id="minus-a-text"),
        pytest.param(suite_of("a", ", needs: clean.typo"), "no such key as clean.typo in ", id="needs-an-unknown-key"),
        pytest.param(suite_of("$time"), "no value for time in ", id="key-without-value"),
    ],
)
def test_a_bad_suite_names_file_and_key(resources: Resources, text: str, why: str) -> None:
    resources.write("expectations", "bad.yaml", text)
    with pytest.raises(ConfigError, match=re.escape(why)) as error:
        expectations.load("bad", load_source("products"))
    assert "bad.yaml" in str(error.value)
    if why.endswith(" in "):
        assert str(error.value).endswith("config/sources/products.yaml")


def test_a_source_adds_expectations_and_nothing_else(resources: Resources) -> None:
    resources.write("expectations", "products/silver.yaml", suite_of("a"))
    with pytest.raises(ConfigError, match=r"products/silver.yaml:\n  name: Extra inputs are not permitted"):
        expectations.load("silver", load_source("products"))


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
    assert [o.passed for o in outcomes if o.expectation.description == "Every row has its key"] == [True]
    (lost,) = [o for o in outcomes if o.expectation.description == "Every row says as of when"]
    assert not lost.passed
    assert 'could not be computed: Error: The column "as_of"' in lost.observed
