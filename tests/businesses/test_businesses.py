"""A business is files only: YAML, SQL and expectations. Those of this folder run beside the project's own, on one lake.

grocery has two sources of facts and two of snapshots, two feature tables and a model; credit is a table of examples. Their days
are the same days, and those of the simulated shop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml.cli import run_stage
from ml.config import load_project
from ml.datasets.shop import FIRST_DAY, Shop
from ml.storage import tables
from tests.support.data.businesses import BUSINESSES, FOLDER, Credit, Grocery
from tests.support.models.business_lake import BusinessLake
from tests.support.models.stages import ml

MODELS = {"grocery": "lapse_28d", "credit": "default_risk"}
LAST = {
    "grocery": Grocery.FIRST_DAY + timedelta(Grocery.DAYS - 1),
    "credit": Credit.FIRST_DAY + timedelta(Credit.DAYS - 1),
}
TABLES = ("households", "household_coupons")


@dataclass
class Loop:
    """Both businesses, from landed files to the scores of their last day, with the facts of each stage."""

    lake: BusinessLake
    ingested: dict[str, dict[str, Any]]
    trained: dict[str, dict[str, Any]]
    scored: dict[str, dict[str, Any]]
    monitored: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with pytest.MonkeyPatch.context() as patch:
        lake = BusinessLake(tmp_path_factory.mktemp("businesses"), patch)
        ingested = {
            source: lake.bring(business, source) for business in lake.data.values() for source in business.sources()
        }
        lake.features(*TABLES, as_of=[LAST["grocery"]])
        made = Loop(lake, ingested, {}, {}, {})
        for business, model in MODELS.items():
            day = LAST[business]
            made.trained[model] = lake.champion(model, day)
            made.scored[model] = ml("score", model=model, day=day, run_key=f"{model}-score")
            made.monitored[model] = ml("monitor", model=model, day=day, run_key=f"{model}-monitor")
        yield made


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BusinessLake:
    return BusinessLake(tmp_path, monkeypatch)


def keys(table: str, column: str) -> set[str]:
    return set(tables.read(table, columns=[column])[column].to_pylist())


@pytest.mark.parametrize("name", BUSINESSES)
def test_a_business_is_yaml_and_sql_only(name: str) -> None:
    files = [path for path in (FOLDER / name).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".yaml", ".sql"}
    assert {path.relative_to(FOLDER / name).parts[0] for path in files} == {"config", "sql", "expectations"}


def test_the_businesses_have_the_days_of_the_shop(lake: BusinessLake) -> None:
    shop_days = set(Shop(size=1).days("transactions"))
    for business in lake.data.values():
        for source in business.sources():
            assert set(business.days(source)) <= shop_days
            assert business.days(source)[0] == FIRST_DAY


def test_the_files_of_all_businesses_pass_the_check(loop: Loop) -> None:
    facts = run_stage(["check", "--no-spark"])  # tests/ml/engine/test_parity_of_every_query.py runs them on Spark
    assert facts["not_checked"] == []


def test_every_source_accounts_for_every_row(loop: Loop) -> None:
    assert loop.ingested.keys() == {s for business in loop.lake.data.values() for s in business.sources()}
    for source, facts in loop.ingested.items():
        assert facts["received"] == facts["silver"] + facts["quarantined"] + facts["duplicates"], source
        assert facts["silver"] > 0.9 * facts["received"], source


@pytest.mark.parametrize("model", MODELS.values())
def test_a_model_is_trained_gated_promoted_scored_and_watched(loop: Loop, model: str) -> None:
    assert 0.68 < loop.trained[model]["roc_auc"]["value"] < 0.85
    assert loop.scored[model]["model_version"] == loop.trained[model]["version"] == "1"
    assert loop.scored[model]["rows"] == tables.dataset(load_project().models[model].score.table).count_rows()
    assert 0 <= loop.monitored[model]["overall"] < 1


def test_households_are_scored_if_they_came_lately(loop: Loop) -> None:
    visits = tables.read("silver.visits", columns=["household_id", "day"])
    recent = visits.filter(pc.greater(visits["day"], pa.scalar(LAST["grocery"] - timedelta(28))))
    assert keys("gold.lapse_28d_scores", "household_id") == set(recent["household_id"].to_pylist())


def test_applications_of_the_day_are_scored_while_their_outcome_is_not_known(loop: Loop) -> None:
    of_day = tables.read("silver.applications", where=pc.field("day") == pa.scalar(LAST["credit"]))
    assert of_day["defaulted"].null_count == of_day.num_rows
    assert keys("gold.default_risk_scores", "application_id") == set(of_day["application_id"].to_pylist())


def test_no_table_has_rows_of_two_businesses(loop: Loop) -> None:
    first_letter = {"household_id": "H", "application_id": "A"}
    for table in ("gold.lapse_28d_scores", "gold.default_risk_scores", "features.households", "silver.visits"):
        (key,) = first_letter.keys() & set(tables.dataset(table).schema.names)
        assert {value[0] for value in keys(table, key)} == {first_letter[key]}
    written = {path.parent.name for path in (loop.lake.folder / "lake").glob("*/*/_delta_log")}
    assert not written & {"transactions", "customer_days", "customers", "customer_churn_scores"}


def sums(table: str, column: str, day: date) -> int:
    rows = tables.read(table, where=pc.field("as_of") == pa.scalar(day))
    return int(pc.sum(rows[column]).as_py())


def test_coupons_that_are_reported_late_make_their_day_again(lake: BusinessLake) -> None:
    grocery = Grocery()
    tenth = Grocery.FIRST_DAY + timedelta(9)
    lake.bring(grocery, "coupons", last=tenth)
    lake.features("household_coupons", as_of=[tenth])
    before = sums("features.household_coupons", "coupons", tenth)
    facts = lake.bring(grocery, "coupons", late=True, first=tenth, last=tenth)
    assert facts["duplicates"] == 0
    lake.features("household_coupons", as_of=[tenth])
    late = grocery.late_rows("coupons", tenth).num_rows
    assert late > 0
    assert sums("features.household_coupons", "coupons", tenth) == before + late


def test_a_price_change_counts_from_its_day_on(lake: BusinessLake) -> None:
    grocery, change = Grocery(size=150), Grocery.PRICE_CHANGE
    before, first = change - timedelta(1), change - timedelta(10)
    lake.bring(grocery, "groceries")
    lake.bring(grocery, "demographics")
    lake.bring(grocery, "visits", first=first, last=before)
    lake.features("households", as_of=[before, change])
    rows = tables.read("features.households", columns=["household_id", "as_of", "saved_share"])
    saved = {
        day: {row["household_id"]: row["saved_share"] for row in rows.to_pylist() if row["as_of"] == day}
        for day in (before, change)
    }
    assert saved[before].keys() == saved[change].keys()
    dearer = [h for h, share in saved[change].items() if share > saved[before][h]]
    assert len(dearer) > 0.2 * len(saved[change])  # the same baskets, compared with higher prices
    assert all(-1e-9 <= share <= 0.21 for share in saved[before].values())


def test_demographics_are_those_that_were_known_on_the_day(lake: BusinessLake) -> None:
    grocery, again = Grocery(size=150), Grocery.ASKED_AGAIN
    lake.bring(grocery, "groceries")
    lake.bring(grocery, "demographics")
    lake.bring(grocery, "visits", first=again - timedelta(20), last=again - timedelta(1))
    lake.features("households", as_of=[again - timedelta(1), again])
    rows = tables.read("features.households", columns=["household_id", "as_of", "household_size"]).to_pylist()
    sizes = [
        {row["household_id"]: row["household_size"] for row in rows if row["as_of"] == day}
        for day in (again - timedelta(1), again)
    ]
    grown = {h: (sizes[0][h], size) for h, size in sizes[1].items() if size != sizes[0][h]}
    assert 0 < len(grown) < 0.3 * len(sizes[1])
    assert all(after == then + 1 for then, after in grown.values())


def test_only_known_outcomes_are_learnt_from(loop: Loop) -> None:
    facts = loop.trained["default_risk"]
    assert facts["rows_train"] + facts["rows_test"] == (Credit.DAYS - Credit.UNKNOWN_DAYS) * Credit().per_day


def test_outcomes_become_known_when_their_day_is_sent_again(lake: BusinessLake) -> None:
    first, last = LAST["credit"] - timedelta(30), LAST["credit"]
    lake.bring(Credit(), "applications", first=first, last=last)
    unknown = tables.read("silver.applications", columns=["defaulted"])["defaulted"].null_count
    assert unknown == Credit.UNKNOWN_DAYS * Credit().per_day
    lake.bring(Credit(known=True), "applications", first=first, last=last)
    assert tables.read("silver.applications", columns=["defaulted"])["defaulted"].null_count == 0
