"""Validate: suites in files, checked against what arrived, what became silver and training sets."""

from __future__ import annotations

import argparse
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ml.config import load_model
from ml.errors import StageError
from ml.ops import built_days, held_days, ingested_days
from ml.stages import validate
from ml.storage import stores, tables
from tests.support.data.bronze_days import DAY, Days, row
from tests.support.data.deliveries import parcel, put_deliveries
from tests.support.resources import Resources

NEXT = date(2011, 6, 29)


@pytest.fixture
def days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Days:
    return Days(tmp_path, monkeypatch)


def run(suite: str, *arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    validate.add_arguments(parser)
    return validate.run(parser.parse_args(["--suite", suite, "--run-key", "k", *arguments]))


def of_day(suite: str, days: str = str(DAY), source: str = "transactions") -> dict[str, Any]:
    return run(suite, "--source", source, "--days", days)


def report(suite: str, subject: str = str(DAY), name: str = "transactions") -> tuple[str, dict[str, Any]]:
    name = f"validation/{name}/{suite}/{subject}"
    reports = stores.reports()
    return reports.read(f"{name}.html").decode(), json.loads(reports.read(f"{name}.json"))


def change_silver(**changed: pa.Array) -> None:
    """Damage the day's one silver row, as a person or a fault could."""
    rows = tables.read("silver.transactions")
    for name, values in changed.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    tables.replace("silver.transactions", rows, tables.day_predicate("day", [DAY]), partition_by=["day"])


# --- arrival ---------------------------------------------------------------------------------------


def test_arrival_of_a_good_day_passes(days: Days) -> None:
    days.arrive("x.csv", [row(1), row(2)])
    facts = of_day("arrival")
    assert facts["passed"]
    assert facts["failed"] == []
    assert facts["rows"] == {"rows": 2, "files": 1}
    assert facts["report"] == f"validation/transactions/arrival/{DAY}.html"


def test_arrival_reports_bad_rows_and_files_as_warnings_and_passes(days: Days) -> None:
    days.arrive("x.csv", [row(1, coupon="X"), row(2, customer_id=" ", quantity="six")])
    days.land("empty.csv", b"")
    days.land("truncated.csv", b"trunc")
    facts = of_day("arrival")
    assert facts["passed"]
    sentences = "\n".join(facts["failed"])
    for sentence in (
        f"Every landed file can be used: 1 of 3 files do not, such as name transactions/{DAY}/truncated.csv, problem",
        f"Every landed file has rows: 1 of 3 files do not, such as name transactions/{DAY}/empty.csv, received 0",
        "No file has columns we do not know: 1 of 3 files do not",
        "Nine of ten rows name their customer: 1 of 2 rows do not (50 %; at most 10 % may), such as _file ",
        f"landing/transactions/{DAY}/x.csv, _row 2, customer_id missing",
        "Quantities are numbers: 1 of 2 rows do not (50 %; at most 1 % may)",
    ):
        assert sentence in sentences
    page, result = report("arrival")
    assert "! warning" in page
    assert "six" in page
    assert result["passed"]


def test_arrival_of_a_day_without_landed_files_fails(days: Days) -> None:
    with pytest.raises(StageError, match=f"nothing is landed in transactions/ for {DAY}"):
        of_day("arrival")


# --- silver ----------------------------------------------------------------------------------------


def test_silver_of_an_ingested_day_passes(days: Days) -> None:
    days.arrive("x.csv", [row(1), row(1), row(2, quantity="0"), row(3)])
    days.ingest()
    facts = of_day("silver")
    assert facts["passed"]
    assert facts["failed"] == []
    page, result = report("silver")
    assert page.count("✓ met") == facts["expectations"] == len(result["outcomes"])
    assert not re.findall(r"https?://|<script|<link|src=", page)


def test_silver_of_an_accepted_day_without_rows_passes(days: Days, resources: Resources) -> None:
    resources.change_source(landing={"empty_file": "accept"})
    days.land("x.csv", b"")
    days.ingest()
    assert of_day("silver")["passed"]


def test_a_range_of_days_is_one_report(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.arrive("x.csv", [row(1, occurred_at=str(NEXT))], NEXT)
    days.ingest(DAY, NEXT)
    facts = of_day("silver", f"{DAY}..{NEXT}")
    assert facts["report"] == f"validation/transactions/silver/{DAY}..{NEXT}.html"
    assert facts["rows"] == {"rows": 2, "days": 2}


def test_the_report_is_written_again_for_the_same_day(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    of_day("silver")
    before = report("silver")
    of_day("silver")
    assert report("silver") == before


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        pytest.param({"customer_id": pa.array([""])}, "No customer id is empty", id="customer-empty"),
        pytest.param({"customer_id": pa.array([None], pa.string())}, "Every row names its customer", id="no-customer"),
        pytest.param({"kind": pa.array(["gift"])}, "Every row is a purchase or a return", id="kind-unknown"),
        pytest.param({"amount": pa.array([2e6])}, "Amounts are within bounds", id="amount-absurd"),
        pytest.param({"quantity": pa.array([0.0])}, "No quantity is zero", id="quantity-zero"),
        pytest.param({"unit_price": pa.array([-1.0])}, "Unit prices are not negative", id="price-negative"),
        pytest.param(
            {"occurred_at": pa.array([0], pa.timestamp("us", "UTC"))}, "in the partition of its day", id="other-day"
        ),
    ],
)
def test_silver_that_fails_an_expectation_is_refused_with_row_and_report(
    days: Days, changed: dict[str, pa.Array], sentence: str
) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    change_silver(**changed)
    with pytest.raises(StageError) as error:
        of_day("silver")
    assert sentence in str(error.value)
    assert f"1 of 1 rows do not, such as _file landing/transactions/{DAY}/x.csv, _row 1" in str(error.value)
    assert f"Report: validation/transactions/silver/{DAY}.html" in str(error.value)
    page, result = report("silver")
    assert "✗ failed" in page
    assert f"landing/transactions/{DAY}/x.csv" in page
    assert not result["passed"]
    (held,) = held_days.read("transactions").values()
    assert sentence in " ".join(held["reasons"]), "it is held until its files change"
    assert held["fingerprint"] == tables.read("ops.ingested_days")["fingerprint"].to_pylist()[0]
    assert built_days.read_newest()["silver.transactions"] == {}


def ingested_content() -> str:
    return ingested_days.read_ingested_days("transactions")[DAY].content


def test_the_content_that_passed_is_recorded_in_the_journal(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    of_day("silver")
    (validated,) = built_days.read_newest()["silver.transactions"].values()
    assert (validated.inputs, validated.rows) == (ingested_content(), 1)
    days.arrive("y.csv", [row(2)])
    days.ingest()
    assert built_days.read_newest()["silver.transactions"][DAY].inputs != ingested_content()


def test_a_refused_day_that_is_ingested_again_is_no_longer_held(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    change_silver(amount=pa.array([2e6]))
    with pytest.raises(StageError):
        of_day("silver")
    days.ingest()
    assert held_days.read("transactions") == {}
    assert of_day("silver")["passed"]


def test_rows_written_twice_fail(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    rows = tables.read("silver.transactions")
    twice = pa.concat_tables([rows, rows])
    tables.replace("silver.transactions", twice, tables.day_predicate("day", [DAY]), partition_by=["day"])
    with pytest.raises(StageError) as error:
        of_day("silver")
    assert "No received row is there twice: 2 of 2 rows do not" in str(error.value)
    assert "Silver has as many rows as the account says: 1 of 1 days do not" in str(error.value)


def test_a_day_whose_ingestion_did_not_end_fails(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    marks = tables.read("ops.ingested_days")
    tables.replace("ops.ingested_days", marks.slice(0, 0), tables.day_predicate("day", [DAY]))
    with pytest.raises(StageError, match="Every day with rows has its account: 1 of 1 days do not"):
        of_day("silver")


def test_an_account_that_does_not_add_up_fails(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    marks = tables.read("ops.ingested_days")
    marks = marks.set_column(marks.schema.get_field_index("received"), "received", pa.array([3]))
    tables.replace("ops.ingested_days", marks, tables.day_predicate("day", [DAY]))
    with pytest.raises(
        StageError, match=r"silver, quarantined or exact duplicates: 1 of 1 days do not, .* unaccounted 2"
    ):
        of_day("silver")


def test_silver_before_any_ingestion_names_the_missing_table(days: Days) -> None:
    with pytest.raises(StageError, match=r"silver.transactions does not exist at .*the stage 'ingest' builds it"):
        of_day("silver")


def test_a_day_that_was_never_ingested_fails(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    with pytest.raises(StageError, match="The day was ingested: found 0"):
        of_day("silver", str(NEXT))


# --- training --------------------------------------------------------------------------------------


def training_set(**changed: list[Any]) -> int:
    """Two customers per split; the label of a training row is known on the day the test span begins."""
    first, second = date(2011, 3, 30), date(2011, 6, 28)
    columns: dict[str, list[Any]] = {
        "customer_id": ["1", "2", "1", "2"],
        "as_of": [first, first, second, second],
        **{name: [0.0, 5.0, 10.0, 15.0] for name in load_model("churn").feature_names},
        "country": ["UK", "FR", "UK", "FR"],
        "churned": [0, 1, 1, 0],
        "split": ["train", "train", "test", "test"],
    }
    return tables.replace(
        "features.training_set", pa.table(columns | changed), "as_of IS NOT NULL", partition_by=["as_of"]
    )


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        pytest.param({"churned": [0, 2, 1, 0]}, "Every label is 0 or 1", id="label-out-of-range"),
        pytest.param({"churned": [0, None, 1, 0]}, "Every row has its label", id="label-missing"),
        pytest.param({"churned": [0, 1, 1, 1]}, "Both splits .*: lacks test 0 ", id="test-has-one-class"),
        pytest.param({"churned": [1, 1, 1, 0]}, "Both splits .*: lacks train 0 ", id="train-has-one-class"),
        pytest.param({"split": ["test"] * 4}, "Both splits have rows of both outcomes", id="no-training-rows"),
        pytest.param({"split": ["train"] * 4}, "Both splits have rows of both outcomes", id="no-test-rows"),
        pytest.param({"customer_id": ["1", None, "1", "2"]}, "Every row has its key", id="key-missing"),
        pytest.param({"customer_id": ["1", "1", "1", "2"]}, "A key is there once per cut-off", id="key-twice"),
        pytest.param(
            {"as_of": [date(2011, 4, 1)] * 2 + [date(2011, 6, 28)] * 2},
            "No training label reaches past the first test cut-off",
            id="label-from-the-test-span",
        ),
    ],
)
def test_an_unfit_training_set_fails(days: Days, changed: dict[str, list[Any]], sentence: str) -> None:
    with pytest.raises(StageError, match=sentence):
        run("training", "--model", "churn", "--version", str(training_set(**changed)))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param(("training", "--model", "churn"), "--suite training needs --version", id="no-version"),
        pytest.param(("silver", "--source", "transactions"), "--suite silver needs --days", id="no-days-of-silver"),
        pytest.param(("arrival", "--source", "transactions"), "--suite arrival needs --days", id="no-days-of-arrival"),
        pytest.param(("silver",), "--suite silver needs --source; there are: deliveries, ", id="which-source"),
        pytest.param(("silver", "--model", "churn"), "--suite silver is about a source: leave out --model", id="model"),
        pytest.param(
            ("training", "--source", "transactions"), "--suite training is about a model: leave out", id="source"
        ),
    ],
)
def test_a_suite_without_what_it_is_about_is_refused(
    days: Days, resources: Resources, arguments: tuple[str, ...], why: str
) -> None:
    put_deliveries(resources)
    with pytest.raises(StageError, match=why):
        run(*arguments)


# --- several sources -------------------------------------------------------------------------------


def test_two_sources_have_reports_holds_and_journal_entries_of_their_own(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    couriers = days.of("deliveries")
    days.arrive("x.csv", [row(1)])
    days.ingest()
    couriers.arrive("x.csv", [parcel(1), parcel(2)])
    couriers.ingest()
    assert of_day("silver", source="deliveries")["rows"] == {"rows": 2, "days": 1}
    assert list(built_days.read_newest()) == ["silver.deliveries"]
    change_silver(amount=pa.array([2e6]))
    with pytest.raises(StageError, match="Amounts are within bounds"):
        of_day("silver")
    assert report("silver", name="deliveries")[1]["passed"]
    assert report("silver", name="deliveries")[1]["source"] == "deliveries"
    assert not report("silver")[1]["passed"]
    assert (list(held_days.read("transactions")), held_days.read("deliveries")) == ([DAY], {})


def test_a_source_without_a_time_is_not_asked_when_its_rows_were(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [parcel(1, hub=None), parcel(2)])
    arrived = of_day("arrival", source="deliveries")
    assert (arrived["passed"], arrived["failed"]) == (True, [])
    couriers.ingest()
    of_day("silver", source="deliveries")
    asked = [outcome["description"] for outcome in report("silver", name="deliveries")[1]["outcomes"]]
    assert "No received row is there twice" in asked
    assert "Every row is in the partition of its day" not in asked


def test_what_a_source_adds_to_a_suite_is_asked_of_it_alone(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    text = (
        "expectations:\n- {type: expect_column_values_to_be_between, severity: critical, description: Light, "
        "kwargs: {column: grams, max_value: $clean.settings.max_weight}, meta: {why: they are carried}}\n"
    )
    resources.write("expectations", "deliveries/silver.yaml", text.replace("$clean", "-$clean"))
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [parcel(7)])
    couriers.ingest()
    with pytest.raises(StageError, match=r"Light: 1 of 1 rows do not, such as .* parcel_id p7, grams 250"):
        of_day("silver", source="deliveries")
    days.arrive("x.csv", [row(1)])
    days.ingest()
    assert of_day("silver")["passed"]
