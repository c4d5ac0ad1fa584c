"""A feature table that models read: a column may be added; one that is dropped, retyped or changed needs another version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ml.config import load_feature_table
from ml.engine import QueryError
from ml.errors import StageError
from ml.features.recipe import table_recipe
from ml.ops import built_days
from ml.storage import tables
from tests.support.data.small_shop import BUYERS, day, facts, ingest, put_table, write_project
from tests.support.models.stages import ml
from tests.support.resources import Resources

NODE = "features.buyers"
INPUTS: Mapping[str, Any] = {"silver.sales": facts(), "silver.prices": {"missing": "carry"}}
SALES = {number: [("ann", "tea", number), ("bob", "jam", 1)] for number in range(1, 6)}
VISITS = BUYERS.replace("AS worth --", "AS worth, CAST(count(DISTINCT sales.day) AS BIGINT) AS visits --")
MAX_PIECES = VISITS.replace("AS visits --", "AS visits, max(sales.pieces) AS max_pieces --")


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources) -> None:
    """Days 1 to 5 of sales; the features of days 3 and 4 are built."""
    monkeypatch.setenv("LAKE_URI", (tmp_path / "lake").as_uri())
    write_project(resources)
    ingest("sales", SALES)
    ingest("prices", {1: [("tea", 2.0), ("jam", 5.0)]})
    build(3, 4)


def build(*numbers: int, run_key: str = "k") -> dict[str, Any]:
    return ml("features", table="buyers", as_of=",".join(str(day(number)) for number in numbers), run_key=run_key)


def change(resources: Resources, text: str, revision: int = 1, inputs: Mapping[str, Any] = INPUTS) -> None:
    put_table(resources, "buyers", text, inputs, revision=revision)


def replaced(old: str, new: str) -> str:
    assert old in BUYERS
    return BUYERS.replace(old, new)


WORTH = "CAST(sum(sales.pieces * prices.price) AS DOUBLE) AS worth"
LINES = "  CAST(count(*) AS BIGINT) AS lines,\n"


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param(replaced(LINES, ""), "no longer gives the column lines", id="dropped"),
        pytest.param(
            replaced(LINES, LINES.replace("AS lines", "AS orders")), "no longer gives the column lines", id="renamed"
        ),
        pytest.param(
            replaced("CAST(count(*) AS BIGINT)", "CAST(count(*) AS DOUBLE)"),
            "gives lines as double, which is stored as int64",
            id="retyped",
        ),
        pytest.param(
            replaced("CAST(count(*) AS BIGINT)", "CAST(count(*) AS STRING)"),
            "gives lines as string, which is stored as int64",
            id="a-number-as-text",
        ),
        pytest.param(
            replaced("CAST(count(*) AS BIGINT)", "CAST(count(DISTINCT sales.product_id) AS BIGINT)"),
            "2 of 2 rows as of 2024-01-04 another lines: customer_id 'ann' has 4 in features.buyers, and now 1",
            id="other-values",
        ),
        pytest.param(
            replaced("GROUP BY sales.customer_id", "AND prices.price > 3 GROUP BY sales.customer_id"),
            "1 rows as of 2024-01-04, of which 1 are among the 2 that features.buyers has",
            id="other-rows",
        ),
    ],
)  # fmt: skip
def test_a_change_that_models_have_not_learnt_is_refused_with_the_remedy(
    resources: Resources, text: str, why: str
) -> None:
    change(resources, text)
    with pytest.raises(StageError, match=why) as refusal:
        build(5)
    assert "copy features/buyers.yaml and its query to buyers_v2, change those, and pin buyers_v2" in str(refusal.value)
    assert tables.partition_days(NODE, "as_of") == [day(3), day(4)]
    assert sorted(built_days.read_newest([NODE])[NODE]) == [day(3), day(4)]


def test_another_window_gives_other_values_and_is_refused(resources: Resources) -> None:
    change(resources, BUYERS, inputs=INPUTS | {"silver.sales": facts("2d")})
    with pytest.raises(StageError, match=r"another lines: customer_id 'ann' has 4 in .* and now 2"):
        build(5)


def test_the_newest_day_with_unchanged_inputs_shows_what_has_changed(resources: Resources) -> None:
    """Day 4 was corrected since it was built, so its stored values say nothing about the query; those of day 3 do."""
    ingest("sales", {4: [("ann", "tea", 9)]}, content="corrected")
    change(resources, replaced("CAST(count(*) AS BIGINT)", "CAST(1 + count(*) AS BIGINT)"))
    with pytest.raises(StageError, match="rows as of 2024-01-03 another lines: customer_id 'ann' has 3 in"):
        build(4, 5)


def test_the_remedy_of_a_second_version_is_a_third(resources: Resources) -> None:
    put_table(resources, "buyers_v2", BUYERS, INPUTS)
    ml("features", table="buyers_v2", as_of=day(3), run_key="k")
    put_table(resources, "buyers_v2", replaced(LINES, ""), INPUTS)
    with pytest.raises(StageError, match=r"copy features/buyers_v2\.yaml and its query to buyers_v3"):
        ml("features", table="buyers_v2", as_of=day(3), run_key="k")


# --- what may change ------------------------------------------------------------------------------------------------


def test_an_added_column_is_null_in_older_days_until_they_are_rebuilt(resources: Resources) -> None:
    change(resources, VISITS)
    build(5)
    rows = tables.read(NODE)
    by_day = {row["as_of"]: row for row in rows.to_pylist() if row["customer_id"] == "ann"}
    assert {at: row["visits"] for at, row in by_day.items()} == {day(3): None, day(4): None, day(5): 5}
    build(3)
    ann = tables.read(NODE).to_pylist()
    assert {row["as_of"]: row["visits"] for row in ann if row["customer_id"] == "ann"}[day(3)] == 3


def test_a_second_added_column_is_compared_with_days_that_lack_the_first(resources: Resources) -> None:
    """Day 5 is corrected, so the newest day to compare with is one in which the first added column is NULL."""
    change(resources, VISITS)
    build(5)
    ingest("sales", {5: [("ann", "tea", 9)]}, content="corrected")
    change(resources, MAX_PIECES)
    build(5)
    assert {row["max_pieces"] for row in tables.read(NODE).to_pylist() if row["as_of"] == day(5)} == {9, 1}


def test_a_raised_revision_may_change_values(resources: Resources) -> None:
    text = replaced("CAST(count(*) AS BIGINT)", "CAST(1 + count(*) AS BIGINT)")
    change(resources, text, revision=2)
    assert build(4)["because"] == {str(day(4)): "the query or its settings have changed"}
    lines = {row["as_of"]: row["lines"] for row in tables.read(NODE).to_pylist() if row["customer_id"] == "ann"}
    assert lines == {day(3): 3, day(4): 5}
    build(5)  # built with the recipe of the last build: nothing to compare
    change(resources, BUYERS, revision=2)
    with pytest.raises(StageError, match="another lines"):
        build(5)


def test_a_raised_revision_drops_no_column(resources: Resources) -> None:
    """A column that is NULL from one day on would be learnt as if it said something."""
    change(resources, replaced(LINES, ""), revision=2)
    with pytest.raises(StageError, match="no longer gives the column lines"):
        build(5)


def test_a_query_written_in_another_way_with_the_same_values_is_accepted(resources: Resources) -> None:
    change(resources, replaced("CAST(count(*) AS BIGINT)", "CAST(count(sales.customer_id) AS BIGINT)"))
    build(5)


def test_a_change_in_the_data_is_not_taken_for_one_of_the_query(resources: Resources) -> None:
    for number in SALES:
        ingest("sales", {number: [("ann", "tea", 50)]}, content="corrected")
    change(resources, VISITS)
    assert build(4)["because"] == {
        str(day(4)): "silver.sales changed since: 2024-01-01, 2024-01-02, 2024-01-03, 2024-01-04; "
        "the query or its settings have changed"
    }


# --- recipes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "is_equal"),
    [
        pytest.param(BUYERS.replace("-- at the prices known on the day", "-- in pounds"), True, id="a-comment"),
        pytest.param(BUYERS.replace("\n  ", "\n      ").replace("\nFROM", "\n\nFROM"), True, id="spaces-and-lines"),
        pytest.param(BUYERS.replace("SELECT", "select").replace("count(", "COUNT("), True, id="upper-and-lower-case"),
        pytest.param(VISITS, False, id="a-column"),
        pytest.param(BUYERS.replace(":as_of, sales.day", "sales.day, :as_of"), False, id="an-expression"),
    ],
)
def test_a_recipe_changes_with_the_meaning_of_the_query_alone(resources: Resources, text: str, is_equal: bool) -> None:
    before = table_recipe(load_feature_table("buyers"))
    change(resources, text)
    assert (table_recipe(load_feature_table("buyers")) == before) == is_equal


@pytest.mark.parametrize(
    ("inputs", "settings", "revision", "is_equal"),
    [
        pytest.param(INPUTS, {}, 1, True, id="nothing"),
        pytest.param(INPUTS | {"silver.prices": {"missing": "wait", "wait_until": "3d"}}, {}, 1, True, id="waiting"),
        pytest.param(INPUTS | {"silver.prices": {"missing": "carry", "max_age": "3d"}}, {}, 1, False, id="max-age"),
        pytest.param(INPUTS | {"silver.sales": facts("9d")}, {}, 1, False, id="window"),
        pytest.param(INPUTS, {"days": 3}, 1, False, id="setting"),
        pytest.param(INPUTS, {}, 2, False, id="revision"),
    ],
)
def test_a_recipe_changes_with_what_reaches_the_rows(
    resources: Resources, inputs: Mapping[str, Any], settings: Mapping[str, Any], revision: int, is_equal: bool
) -> None:
    before = table_recipe(load_feature_table("buyers"))
    put_table(resources, "buyers", BUYERS, inputs, revision=revision, **settings)
    assert (table_recipe(load_feature_table("buyers")) == before) == is_equal


def test_the_recipe_of_a_missing_query_names_its_file(resources: Resources) -> None:
    resources.remove("sql", "features/buyers.sql")
    with pytest.raises(QueryError, match=r"features/buyers\.sql: no such query"):
        table_recipe(load_feature_table("buyers"))


# --- the journal ----------------------------------------------------------------------------------------------------


def test_the_journal_says_what_each_day_was_built_from() -> None:
    newest = built_days.read_newest([NODE])[NODE][day(4)]
    assert (newest.rows, newest.because, newest.recipe) == (2, ("first",), table_recipe(load_feature_table("buyers")))
    assert newest.sources == {"ops.ingested_days": 1, "silver.sales": 0, "silver.prices": 0}
    assert len(newest.content) == 32


def test_equal_rows_have_equal_content_and_other_rows_have_not() -> None:
    first = built_days.read_newest([NODE])[NODE]
    build(4, run_key="again")
    again = built_days.read_newest([NODE])[NODE]
    assert again[day(4)].content == first[day(4)].content
    ingest("sales", {4: [("ann", "tea", 9)]}, content="corrected")
    build(3, 4, run_key="corrected")
    corrected = built_days.read_newest([NODE])[NODE]
    assert [corrected[day(n)].content == first[day(n)].content for n in (3, 4)] == [True, False]
    assert corrected[day(4)].because == ("silver.sales changed since: 2024-01-04",)


def test_a_new_price_list_is_named_as_the_reason() -> None:
    ingest("prices", {4: [("tea", 7.0)]}, content="new prices")
    because = build(3, 4, run_key="new prices")["because"]
    assert because == {
        str(day(3)): "requested again",
        str(day(4)): "silver.prices has changed: the snapshot of 2024-01-04 is in force",
    }
