"""What a feature table's query sees as of a day: facts of the window, the price list in force, and nothing later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ml.config import load_feature_table, load_project
from ml.engine import open_engine
from ml.errors import StageError
from ml.features.compute import compute_features
from ml.features.inputs import absent_tables, feature_inputs, pin_versions
from tests.support.data.small_shop import BUYERS, day, facts, ingest, put_table, write_project
from tests.support.resources import Resources

SALES = {
    1: [("ann", "tea", 1)],
    10: [("ann", "tea", 2), ("bob", "jam", 1)],
    20: [("bob", "tea", 1)],
    21: [("ann", "jam", 9)],
}


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources) -> None:
    monkeypatch.setenv("LAKE_URI", (tmp_path / "lake").as_uri())
    write_project(resources)


def rows_of(name: str, number: int, until: int | None = None) -> dict[str, dict[str, Any]]:
    """The rows of a feature table as of a day, by customer."""
    project, table = load_project(), load_feature_table(name)
    versions = pin_versions(project, table.inputs, absent_tables(table))
    last = None if until is None else day(until)
    rows = compute_features(open_engine(), project, table, day(number), versions, until=last)
    return {row.pop("customer_id"): row for row in rows.to_pylist()}


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_source_that_is_waited_for_and_was_never_ingested_is_named() -> None:
    with pytest.raises(
        StageError, match=r"silver\.sales does not exist .*no day of the source sales is ingested. Run ingest"
    ):
        rows_of("buyers", 20)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(("CAST(:as_of AS DATE) AS as_of", "CAST(:as_of AS DATE) AS day"), "gives no column as_of", id="no-as-of"),
        pytest.param(
            ("CAST(:as_of AS DATE) AS as_of", "CAST(date_add(CAST(:as_of AS DATE), 1) AS DATE) AS as_of"),
            "gives rows with as_of 2024-01-21 for the day 2024-01-20",
            id="another-day",
        ),
        pytest.param(
            ("CAST(:as_of AS DATE) AS as_of", "date_add(CAST(:as_of AS DATE), 0) AS as_of"),
            "gives as_of as timestamp.*cast it to DATE",
            id="not-a-date",
        ),
        pytest.param(
            ("GROUP BY sales.customer_id", "GROUP BY sales.customer_id, sales.product_id"),
            "1 values of customer_id occur more than once, such as 'bob' \\(2 rows\\)",
            id="two-rows-of-an-entity",
        ),
        pytest.param(("FROM sales", "FROM purchases"), "features/buyers.yaml: .*reads .*purchases", id="no-such-input"),
    ],
)  # fmt: skip
def test_a_query_that_gives_no_feature_table_is_refused(
    resources: Resources, change: tuple[str, str], why: str
) -> None:
    ingest("sales", SALES)
    ingest("prices", {1: [("tea", 2.0)]})
    assert change[0] in BUYERS
    put_table(
        resources, "buyers", BUYERS.replace(*change), {"silver.sales": facts(), "silver.prices": {"missing": "carry"}}
    )
    with pytest.raises(StageError, match=why):
        rows_of("buyers", 20)


def test_a_version_that_no_longer_exists_is_named() -> None:
    ingest("sales", SALES)
    project, table = load_project(), load_feature_table("buyers")
    with pytest.raises(StageError, match=r"silver\.sales no longer has version 9"):
        feature_inputs(project, table, day(20), {"silver.sales": 9})


# --- facts ----------------------------------------------------------------------------------------------------------


def test_facts_end_at_the_day_even_when_the_query_does_not_say_so(resources: Resources) -> None:
    ingest("sales", SALES)
    text = BUYERS.replace("WHERE sales.day <= :as_of\n", "")
    put_table(resources, "buyers", text, {"silver.sales": facts(), "silver.prices": {"missing": "carry"}})
    assert {who: row["lines"] for who, row in rows_of("buyers", 20).items()} == {"ann": 2, "bob": 2}
    assert rows_of("buyers", 20, until=21)["ann"]["lines"] == 3, "with later days included"


@pytest.mark.parametrize(("back", "lines"), [("all", 2), ("20d", 2), ("11d", 1), ("10d", None), ("1d", None)])
def test_a_window_has_its_days_and_none_before_them(resources: Resources, back: str, lines: int | None) -> None:
    ingest("sales", SALES)
    put_table(resources, "buyers", BUYERS, {"silver.sales": facts(back), "silver.prices": {"missing": "carry"}})
    assert rows_of("buyers", 20).get("ann", {"lines": None})["lines"] == lines


def test_facts_that_are_carried_may_never_have_come(caplog: pytest.LogCaptureFixture) -> None:
    assert rows_of("callers", 20) == {}
    assert "silver.calls does not exist yet: no day of the source calls is ingested" in caplog.text


# --- snapshots ------------------------------------------------------------------------------------------------------

PRICES = {10: [("tea", 2.0), ("jam", 5.0)], 20: [("tea", 3.0), ("jam", 5.0)]}


@pytest.mark.parametrize(
    ("number", "worth"),
    [
        pytest.param(1, {"ann": 2.0}, id="before-the-first-list-the-first-one-counts"),
        pytest.param(10, {"ann": 6.0, "bob": 5.0}, id="from-its-day-on"),
        pytest.param(19, {"ann": 6.0, "bob": 5.0}, id="until-the-next-one"),
        pytest.param(20, {"ann": 9.0, "bob": 8.0}, id="the-next-one"),
        pytest.param(30, {"ann": 9.0 + 45.0, "bob": 8.0}, id="the-last-one-stays-in-force"),
    ],
)
def test_the_price_list_in_force_on_the_day_counts(number: int, worth: dict[str, float]) -> None:
    ingest("sales", SALES)
    ingest("prices", PRICES)
    assert {who: row["worth"] for who, row in rows_of("buyers", number).items()} == worth


def test_the_log_says_that_the_first_list_counts_before_its_day(caplog: pytest.LogCaptureFixture) -> None:
    ingest("sales", SALES)
    ingest("prices", PRICES)
    rows_of("buyers", 10)
    assert "prices" not in caplog.text
    rows_of("buyers", 1)
    assert "silver.prices has no snapshot up to 2024-01-01: the first one, of 2024-01-10, counts" in caplog.text


@pytest.mark.parametrize(("number", "is_known"), [(12, True), (13, False), (20, True)])
def test_a_list_that_is_too_old_does_not_count(
    resources: Resources, caplog: pytest.LogCaptureFixture, number: int, is_known: bool
) -> None:
    ingest("sales", SALES)
    ingest("prices", PRICES)
    inputs = {"silver.sales": facts(), "silver.prices": {"missing": "carry", "max_age": "2d"}}
    put_table(resources, "buyers", BUYERS, inputs)
    assert (rows_of("buyers", number)["bob"]["worth"] is not None) == is_known
    assert ("and max_age is 2d: none counts" in caplog.text) != is_known


def test_without_any_list_the_columns_are_empty(caplog: pytest.LogCaptureFixture) -> None:
    ingest("sales", SALES)
    assert rows_of("buyers", 20)["ann"] == {"as_of": day(20), "lines": 2, "recency_days": 10, "worth": None}
    assert "silver.prices does not exist yet" in caplog.text


def test_a_query_sees_no_column_that_says_where_a_row_of_a_list_came_from() -> None:
    ingest("sales", SALES)
    ingest("prices", PRICES)
    project, table = load_project(), load_feature_table("buyers")
    inputs = feature_inputs(project, table, day(20), pin_versions(project, table.inputs))
    assert inputs["prices"].projected_schema.names == ["product_id", "price"]  # type: ignore[union-attr]
