"""Training sets of several models on the same tables, over several feature tables and sources, and what each names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ml.config import load_model, load_project
from ml.errors import StageError
from ml.storage import tables
from ml.train import rebuild
from ml.train.dataset import read_training_set
from ml.validate import leaks
from tests.support.data.small_shop import CALLERS, day, facts, ingest, put_model, put_table, write_project
from tests.support.models.stages import ml
from tests.support.resources import Resources

LAST = 40
BUYS = {"ann": 2, "bob": 3, "cid": 9, "dan": 13}  # each buys every so many days
CALLS = {"ann": 4, "eve": 1}


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources) -> None:
    monkeypatch.setenv("LAKE_URI", (tmp_path / "lake").as_uri())
    write_project(resources)
    days = range(1, LAST + 1)
    ingest("sales", {n: [(who, "tea", n) for who, step in BUYS.items() if n % step == 0] for n in days})
    ingest("calls", {n: [(who, n) for who, step in CALLS.items() if n % step == 0] for n in days})
    ingest("prices", {20: [("tea", 2.0)], 35: [("tea", 3.0)]})


def build(model: str, through: int = LAST) -> dict[str, Any]:
    return ml("training_set", model=model, through=day(through), run_key="k")


def rows_of(model: str) -> list[dict[str, Any]]:
    rows = tables.read(load_model(model).train.table).sort_by([("as_of", "ascending"), ("customer_id", "ascending")])
    listed: list[dict[str, Any]] = rows.to_pylist()
    return listed


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "of"), [("bought", "silver.sales"), ("called", "silver.calls")], ids=["of-a-feature", "of-the-label"]
)
def test_every_table_of_facts_must_be_complete(resources: Resources, label: str, of: str) -> None:
    put_model(resources, "both", {"buyers": ["lines"], "callers": ["minutes"]}, label=label, of=of)
    ingest("sales", {LAST + 1: []})
    with pytest.raises(
        StageError, match=r"the last ingested day of silver\.calls is 2024-02-09.*use --through 2024-02-09"
    ):
        build("both", LAST + 1)


def test_a_label_from_a_source_that_was_never_ingested_is_refused(resources: Resources) -> None:
    put_model(resources, "calling", {"buyers": ["lines"]}, label="called", of="silver.calls")
    tables.replace("ops.ingested_days", tables.read("ops.ingested_days").slice(0, 0), "source = 'calls'")
    with pytest.raises(StageError, match=r"no day of silver\.calls up to 2024-02-09 is ingested"):
        build("calling")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(("AS bought", "AS came"), "and not bought: it must give customer_id, as_of and 'bought'", id="name"),
        pytest.param(("GROUP BY population.customer_id, population.as_of", "GROUP BY population.customer_id, population.as_of, sales.day"),
                     "values of customer_id occur more than once", id="two-labels-of-a-row"),
        pytest.param(("FROM population", "FROM people"), "models/buying.yaml: label: .*reads people", id="no-population"),
    ],
)  # fmt: skip
def test_a_label_query_that_gives_no_label_is_refused(resources: Resources, change: tuple[str, str], why: str) -> None:
    put_model(resources, "buying", {"buyers": ["lines"]})
    text = (resources.folder / "sql/labels/bought.sql").read_text()
    assert change[0] in text
    resources.write("sql", "labels/bought.sql", text.replace(*change))
    with pytest.raises(StageError, match=why):
        build("buying")


# --- models on the same tables ---------------------------------------------------------------------------------------


def test_two_models_on_the_same_tables_have_their_own_label_horizon_and_population(resources: Resources) -> None:
    put_model(resources, "buying", {"buyers": ["lines", "worth"]}, horizon_days=5, days=4)
    put_model(
        resources, "calling", {"buyers": ["lines"]}, label="called", of="silver.calls", horizon_days=3, days=None,
        train_cutoffs=1,
    )  # fmt: skip
    buying, calling = build("buying"), build("calling")
    assert (buying["train_cutoffs"], buying["test_cutoffs"]) == (["2024-01-25", "2024-01-30"], ["2024-02-04"])
    assert (calling["train_cutoffs"], calling["test_cutoffs"]) == (["2024-02-03"], ["2024-02-06"])
    assert buying["sources"].keys() == {"silver.sales", "silver.prices"}
    assert calling["sources"].keys() == {"silver.sales", "silver.prices", "silver.calls"}
    labels = [(row["as_of"], row["customer_id"], row["bought"]) for row in rows_of("buying")]
    assert labels == [
        (day(25), "ann", 1), (day(25), "bob", 1),
        (day(30), "ann", 1), (day(30), "bob", 1), (day(30), "cid", 0),
        (day(35), "ann", 1), (day(35), "bob", 1),
    ]  # fmt: skip
    assert {(row["customer_id"], row["called"]) for row in rows_of("calling")} == {
        ("ann", 1), ("bob", 0), ("cid", 0), ("dan", 0),
    }  # fmt: skip
    before = tables.table("features.buying_training_set").version()
    build("calling")
    assert tables.table("features.buying_training_set").version() == before


def test_two_feature_tables_and_two_sources_are_joined_as_of_each_cut_off(resources: Resources) -> None:
    put_model(resources, "both", {"buyers": ["worth", "lines"], "callers": ["minutes"]}, days=4, train_cutoffs=1)
    facts_of_set = build("both")
    assert facts_of_set["sources"] == {"silver.sales": 0, "silver.prices": 0, "silver.calls": 0}
    rows = rows_of("both")
    assert list(rows[0]) == ["customer_id", "as_of", "worth", "lines", "minutes", "bought", "split", "_inputs"]
    ann = {row["as_of"]: row for row in rows if row["customer_id"] == "ann"}
    bought = sum(range(2, 27, 2))
    assert ann[day(26)]["worth"] == 2.0 * bought, "at the prices of day 20, in force on day 26"
    assert ann[day(26)]["minutes"] == sum(range(4, 27, 4))
    assert {row["minutes"] for row in rows if row["customer_id"] == "bob"} == {None}, "bob never called"
    assert {row["_inputs"] for row in rows} == {json.dumps(facts_of_set["sources"])}


@pytest.mark.parametrize(
    ("through", "prices"),
    [pytest.param(LAST, 2.0, id="the-list-of-day-20"), pytest.param(26, 2.0, id="before-it-the-first-list-counts")],
)
def test_a_later_price_list_does_not_reach_an_earlier_cut_off(
    resources: Resources, through: int, prices: float
) -> None:
    put_model(resources, "buying", {"buyers": ["worth"]}, train_cutoffs=1)
    build("buying", through)
    row = next(row for row in rows_of("buying") if row["customer_id"] == "ann")
    assert row["worth"] == prices * sum(range(2, (row["as_of"] - day(1)).days + 2, 2))


def test_a_carried_source_may_begin_late_and_a_needed_one_shortens_the_history(resources: Resources) -> None:
    put_model(resources, "both", {"buyers": ["lines"], "callers": ["minutes"]}, train_cutoffs=9)
    early = build("both")["train_cutoffs"]
    rows = tables.read("ops.ingested_days")
    late = rows.filter(
        [
            not (s == "calls" and d < day(20))
            for s, d in zip(rows["source"].to_pylist(), rows["day"].to_pylist(), strict=True)
        ]
    )
    tables.replace_all("ops.ingested_days", late, partition_by=["source"])
    assert build("both")["train_cutoffs"] == early
    put_table(resources, "callers", CALLERS, {"silver.calls": facts("30d", "wait")})
    assert build("both")["train_cutoffs"] == [cutoff for cutoff in early if cutoff >= str(day(24))]


def test_days_without_data_are_counted_per_table(resources: Resources) -> None:
    put_model(resources, "both", {"buyers": ["lines"], "callers": ["minutes"]})
    rows = tables.read("ops.ingested_days")
    kept = [
        not (s == "calls" and d in (day(3), day(4)))
        for s, d in zip(rows["source"].to_pylist(), rows["day"].to_pylist(), strict=True)
    ]
    tables.replace_all("ops.ingested_days", rows.filter(kept), partition_by=["source"])
    assert build("both")["days_without_data"] == {"silver.sales": 0, "silver.calls": 2}


# --- columns that change --------------------------------------------------------------------------------------------


def test_a_training_set_has_the_columns_of_now_and_earlier_ones_keep_theirs(resources: Resources) -> None:
    put_model(resources, "both", {"buyers": ["lines", "worth"]})
    first = build("both")["version"]
    put_table(
        resources, "callers", CALLERS.replace("AS minutes", "AS app_version"), {"silver.calls": facts("30d", "carry")}
    )
    model = put_model(resources, "both", {"callers": ["app_version"], "buyers": ["lines"]}, days=None)
    second = build("both")["version"]
    assert tables.read("features.both_training_set", version=first).column_names[2:4] == ["lines", "worth"]
    trained = read_training_set(model, second)
    assert [feature.name for feature in trained.features] == ["app_version", "lines"]
    with pytest.raises(StageError, match=rf"version {first} lacks app_version"):
        read_training_set(model, first)


# --- what can be checked again --------------------------------------------------------------------------------------


def checked(model: str) -> dict[str, Mapping[str, Any]]:
    rows = leaks.find_leaks(load_model(model), load_project(), tables.read(load_model(model).train.table))
    return {row["name"]: row for row in rows.to_pylist() if row["not_as_known"] or row["asks_for_later"]}


def test_every_feature_table_is_computed_again_from_the_recorded_versions(resources: Resources) -> None:
    """Sales, calls and prices were corrected since; the training set names the versions that it was built from."""
    model = put_model(resources, "both", {"buyers": ["lines", "worth"], "callers": ["minutes"]})
    version = build("both")["version"]
    ingest("sales", {10: [("ann", "tea", 1000)] * 3})
    ingest("calls", {8: [("ann", 1000)]})
    ingest("prices", {20: [("tea", 99.0)]})
    assert checked("both") == {}
    rebuild.check_against_sources(model, load_project(), read_training_set(model, version))


@pytest.mark.parametrize("column", ["worth", "minutes"])
def test_a_value_that_was_not_known_is_found_in_each_table(resources: Resources, column: str) -> None:
    model = put_model(resources, "both", {"buyers": ["lines", "worth"], "callers": ["minutes"]})
    build("both")
    rows = tables.read(model.train.table).to_pandas()
    rows[column] = rows[column].fillna(0) + 1
    schema = tables.dataset(model.train.table).schema
    version = tables.replace_all(model.train.table, pa.Table.from_pandas(rows, schema), partition_by=["as_of"])
    assert list(checked("both")) == [column]
    with pytest.raises(StageError, match=f"{column} was trained on as .* where the sources give"):
        rebuild.check_against_sources(model, load_project(), read_training_set(model, version))


def test_a_table_whose_query_asks_for_later_days_is_found(resources: Resources) -> None:
    text = CALLERS.replace("WHERE day <= :as_of\n", "")
    put_table(resources, "callers", text, {"silver.calls": facts("30d", "carry")})
    put_model(resources, "both", {"buyers": ["lines"], "callers": ["minutes"]})
    build("both")
    (name, finding), *others = checked("both").items()
    assert (name, others) == ("minutes", [])
    assert not finding["not_as_known"], "the stages give the query no later days"
    assert "when later days are included" in finding["example"]
