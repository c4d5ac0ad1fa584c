"""The rows of a model for a day: feature tables joined on entity and day, limited to the population; or examples."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from ml.config import ModelConfig, load_project
from ml.config.sections import Population
from ml.engine import open_engine
from ml.errors import StageError
from ml.features.inputs import pin_versions
from ml.features.rows import ComputedPartitions, Pins, join_rows, model_rows, names_in_population, pins_of
from ml.models.frames import Feature
from tests.support.data.small_shop import (
    BUYERS,
    day,
    facts,
    ingest,
    put_examples_model,
    put_model,
    put_table,
    write_examples,
    write_project,
)  # fmt: skip
from tests.support.models.stages import ml
from tests.support.resources import Resources

SALES = {1: [("ann", "tea", 1), ("cid", "tea", 2)], 9: [("bob", "jam", 1)], 10: [("ann", "tea", 2)]}
BOTH = {"buyers": ["lines", "recency_days"], "callers": ["minutes"]}


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources) -> None:
    monkeypatch.setenv("LAKE_URI", (tmp_path / "lake").as_uri())
    write_project(resources)
    ingest("sales", SALES)
    ingest("calls", {10: [("bob", 7), ("dan", 3)]})
    ingest("prices", {1: [("tea", 2.0)]})


def build(name: str, number: int = 10) -> None:
    ml("features", table=name, as_of=day(number), run_key="k")


def rows(model: ModelConfig, number: int = 10, **how: object) -> list[dict[str, object]]:
    return model_rows(model, load_project(), day(number), **how).rows.to_pylist()  # type: ignore[arg-type]


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_table_that_was_never_built_names_the_stage(resources: Resources) -> None:
    model = put_model(resources, "both", BOTH)
    with pytest.raises(
        StageError, match=r"features\.buyers does not exist .* run the stage 'features' --table buyers for"
    ):
        rows(model)


def test_a_day_that_was_not_built_names_the_table(resources: Resources) -> None:
    model = put_model(resources, "both", BOTH)
    build("buyers")
    build("callers", 11)
    with pytest.raises(StageError, match=r"features\.callers version 0 has no rows for 2024-01-10: run the stage"):
        rows(model)


def test_a_column_that_the_table_does_not_have_is_named(resources: Resources) -> None:
    model = put_model(resources, "both", {"buyers": ["lines", "charm"]})
    build("buyers")
    with pytest.raises(StageError, match=r"features\.buyers version 0 does not fit the model: column charm is missing"):
        rows(model)


def test_a_column_of_another_kind_is_named(resources: Resources) -> None:
    model = put_model(resources, "both", {"buyers": ["lines"]})
    build("buyers")
    with pytest.raises(StageError, match="column lines is of type int64; the model takes it as a category"):
        rows(model, features=[Feature("lines", "category")])


def test_a_day_without_anybody_in_the_population_is_refused(resources: Resources) -> None:
    model = put_model(resources, "both", BOTH, days=1)
    ingest("sales", {13: []})
    build("buyers", 13)
    build("callers", 13)
    with pytest.raises(
        StageError, match=r"none of the 3 rows of features\.buyers as of 2024-01-13 is in the population of both"
    ):
        rows(model, 13)


def test_a_population_that_is_no_population_is_refused(resources: Resources) -> None:
    resources.write("sql", "populations/recent.sql", "SELECT customer_id FROM buyers WHERE recency_days < :days")
    model = put_model(resources, "both", {"buyers": ["lines"]})
    build("buyers")
    with pytest.raises(StageError, match=r"populations/recent\.sql gives customer_id: a population has as_of too"):
        rows(model)


# --- rows -----------------------------------------------------------------------------------------------------------


def test_other_tables_are_joined_to_the_rows_of_the_first(resources: Resources) -> None:
    model = put_model(resources, "both", BOTH, days=None)
    build("buyers")
    build("callers")
    assert rows(model) == [
        {"customer_id": "ann", "as_of": day(10), "lines": 2, "recency_days": 0, "minutes": None},
        {"customer_id": "bob", "as_of": day(10), "lines": 1, "recency_days": 1, "minutes": 7},
        {"customer_id": "cid", "as_of": day(10), "lines": 1, "recency_days": 9, "minutes": None},
    ]


def test_the_population_limits_the_rows(resources: Resources) -> None:
    model = put_model(resources, "both", BOTH, days=9)
    build("buyers")
    build("callers")
    assert [row["customer_id"] for row in rows(model)] == ["ann", "bob"]


def test_a_table_that_was_built_without_rows_gives_null(resources: Resources) -> None:
    """Nobody called in the window: that is known, and no reason to wait."""
    model = put_model(resources, "both", BOTH, days=None)
    put_table(
        resources, "callers", "SELECT customer_id, CAST(:as_of AS DATE) AS as_of, CAST(sum(minutes) AS BIGINT) AS minutes "
        "FROM calls WHERE minutes > 99 GROUP BY customer_id ORDER BY customer_id", {"silver.calls": facts("30d", "carry")}
    )  # fmt: skip
    build("buyers")
    build("callers")
    assert [row["minutes"] for row in rows(model)] == [None, None, None]


def test_the_versions_that_were_read_are_named_with_the_first_table_first(resources: Resources) -> None:
    model = put_model(resources, "both", BOTH)
    for name in ("callers", "buyers", "buyers"):
        build(name)
    assert list(model_rows(model, load_project(), day(10)).versions.items()) == [
        ("features.buyers", 1),
        ("features.callers", 0),
    ]


def test_both_ways_to_get_a_table_s_rows_give_the_same(resources: Resources) -> None:
    model = put_model(resources, "both", BOTH)
    build("buyers")
    build("callers")
    project = load_project()
    versions = pin_versions(project, ["silver.sales", "silver.calls", "silver.prices"])
    computed = ComputedPartitions(open_engine(), project, versions)
    again: pa.Table = join_rows(open_engine(), model, computed, day(10), pins_of(model))
    assert again.equals(model_rows(model, project, day(10)).rows)


# --- what a version pins --------------------------------------------------------------------------------------------


def test_a_version_is_read_with_the_columns_and_population_that_it_pins(resources: Resources) -> None:
    """The model's file already names the table's next version, and another population."""
    put_table(resources, "buyers_v2", BUYERS, {"silver.sales": facts("2d"), "silver.prices": {"missing": "carry"}})
    model = put_model(resources, "both", {"buyers_v2": ["lines"]}, days=1)
    build("buyers")
    build("buyers_v2")
    pins = Pins({"buyers": ("recency_days", "lines")}, Population(query="populations/recent", settings={"days": 5}))
    assert rows(model, pins=pins) == [
        {"customer_id": "ann", "as_of": day(10), "recency_days": 0, "lines": 2},
        {"customer_id": "bob", "as_of": day(10), "recency_days": 1, "lines": 1},
    ]
    assert rows(model) == [{"customer_id": "ann", "as_of": day(10), "lines": 1}], (
        "the population reads buyers_v2 as buyers"
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["a"], {"a": "a"}, id="one"),
        pytest.param(["a_v2"], {"a_v2": "a_v2", "a": "a_v2"}, id="a-later-version-has-the-family-s-name-too"),
        pytest.param(["a", "a_v2"], {"a": "a", "a_v2": "a_v2"}, id="both"),
        pytest.param(["a_v2", "a_v3"], {"a_v2": "a_v2", "a_v3": "a_v3"}, id="no-version-is-meant"),
    ],
)
def test_the_names_that_a_population_may_use(names: list[str], expected: dict[str, str]) -> None:
    assert names_in_population(names) == expected


# --- examples -------------------------------------------------------------------------------------------------------

ORDERS = [
    {"order_id": "o2", "day": 1, "pieces": 5, "returned": 1},
    {"order_id": "o1", "day": 1, "pieces": 2, "returned": None},
    {"order_id": "o3", "day": 2, "pieces": 1, "returned": 0},
]


def test_all_examples_of_a_day_are_its_rows_whether_their_label_is_known_or_not(resources: Resources) -> None:
    model = put_examples_model(resources, {"by": "day", "test_share": 0.5})
    write_examples(ORDERS)
    assert rows(model, 1) == [
        {"order_id": "o1", "as_of": day(1), "pieces": 2},
        {"order_id": "o2", "as_of": day(1), "pieces": 5},
    ]


@pytest.mark.parametrize(
    ("number", "more", "why"),
    [
        pytest.param(3, [], "silver.orders version 0 has no rows for 2024-01-03: ingest the day first", id="no-rows"),
        pytest.param(1, [ORDERS[0]], "1 values of order_id occur more than once, such as 'o2'", id="repeated"),
    ],
)
def test_a_day_of_examples_that_cannot_be_scored_is_refused(
    resources: Resources, number: int, more: list[dict[str, object]], why: str
) -> None:
    model = put_examples_model(resources, {"by": "day", "test_share": 0.5})
    write_examples(ORDERS + more)
    with pytest.raises(StageError, match=why):
        rows(model, number)
