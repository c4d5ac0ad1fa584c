"""`python -m ml ingest`: a day's files into silver and quarantine, all or nothing, every row accounted for."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ml.errors import StageError
from ml.ingest import bronze
from ml.landing.listing import list_landing, save_listing
from ml.ops import held_days
from ml.storage import stores, tables
from tests.support.data.bronze_days import DAY, Days, mark, row, rows_of
from tests.support.resources import Resources

NEXT = DAY + timedelta(days=1)
TABLES = ("quarantine.transactions", "silver.transactions", "silver.customer_days", "ops.ingested_days")


@pytest.fixture
def days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Days:
    return Days(tmp_path, monkeypatch)


def refusal(days: Days, *requested: date, **arguments: Any) -> str:
    with pytest.raises(StageError) as error:
        days.ingest(*requested, **arguments)
    return str(error.value)


def next_day(number: int = 0) -> dict[str, Any]:
    return row(number, occurred_at=f"{NEXT}T09:00")


# --- files that cannot be used ---------------------------------------------------------------------


def test_an_empty_file_fails_its_day_with_the_remedy(days: Days) -> None:
    name = days.land("x.csv", b"")
    assert refusal(days) == (
        f"{DAY}: {name} has no rows: ask upstream to send it again, or delete it to accept the day without it, "
        "or set landing.empty_file: accept"
    )
    assert [tables.exists(table) for table in TABLES] == [False] * 4


def test_a_header_only_file_fails_its_day(days: Days) -> None:
    days.arrive("full.csv", [row(1)])
    days.arrive("x.csv", pa.Table.from_pylist([row()]).slice(0, 0))
    assert f"transactions/{DAY}/x.csv has no rows" in refusal(days)
    assert mark() is None


def test_an_empty_file_can_be_accepted(days: Days, resources: Resources) -> None:
    resources.change_source(landing={"empty_file": "accept"})
    days.land("x.csv", b"")
    facts = days.ingest()
    assert (facts["files"], facts["received"]) == (1, 0)
    assert mark() is not None
    assert rows_of("silver.transactions") == []


def test_all_problems_of_a_day_are_reported_at_once(days: Days) -> None:
    days.land("a.csv", b"")
    days.arrive("c.jsonl", [{"customer": "7", "occurred_at": "2011-06-28", "quantity": 1, "amount": 1}])
    days.arrive("good.csv", [row(1)])
    message = refusal(days).splitlines()
    assert len(message) == 2
    assert "a.csv has no rows" in message[0]
    assert "c.jsonl: lacks customer_id; found customer, " in message[1]
    assert "rename 'customer' to 'customer_id'" in message[1]
    assert mark() is None


def test_a_file_that_was_not_copied_is_no_reason_to_hold_its_day(days: Days) -> None:
    days.land("b.csv", b"truncat")
    days.arrive("good.csv", [row(1)])
    message = refusal(days)
    assert message.startswith(
        f"{DAY}: transactions/{DAY}/b.csv: the Copy did not write bronze/transactions/csv/{DAY}/b."
    )
    assert (mark(), held_days.read("transactions")) == (None, {})  # a held day would not be requested again


def test_a_held_day_keeps_its_silver_and_the_other_days_are_ingested(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    before = (rows_of("silver.transactions", DAY), mark(DAY))
    days.land("late.csv", b"")
    days.arrive("x.csv", [next_day()], NEXT)
    assert refusal(days, DAY, NEXT).startswith(f"{DAY}: ")
    assert (rows_of("silver.transactions", DAY), mark(DAY)) == before
    assert len(rows_of("silver.transactions", NEXT)) == 1
    assert mark(NEXT) is not None


def test_a_day_of_which_nothing_is_landed_stays_as_it_was_ingested(days: Days) -> None:
    path = days.arrive("x.csv", [row(1)])
    days.ingest()
    stores.landing().delete(path)
    assert refusal(days) == f"nothing is landed in transactions/ for {DAY}; what was ingested of it before is unchanged"
    assert len(rows_of("silver.transactions")) == 1


def test_days_of_a_range_without_files_are_no_error(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    assert days.ingest(DAY, NEXT)["days"] == 1
    assert mark(NEXT) is None


def test_landing_that_changed_since_the_copy_is_refusal(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    fingerprint = list_landing("transactions").days[0].fingerprint
    days.arrive("late.csv", [row(2)])
    assert refusal(days, fingerprint=fingerprint) == (
        f"{DAY}: landing changed while it was ingested; the change starts the day again"
    )
    assert mark() is None
    assert held_days.read("transactions") == {}  # a held day would not start again with the change


def test_landing_that_did_not_change_is_marked_with_its_fingerprint(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    fingerprint = list_landing("transactions").days[0].fingerprint
    days.ingest(fingerprint=fingerprint, run_key="key-1")
    found = mark()
    assert found is not None
    contents = found.pop("contents")
    assert contents.keys() == {"silver.transactions", "silver.customer_days"}
    assert {len(digest) for digest in contents.values()} == {32}
    assert found == {
        "source": "transactions",
        "day": DAY,
        "fingerprint": fingerprint,
        "files": 1,
        "received": 1,
        "silver": 1,
        "quarantined": 0,
        "duplicates": 0,
        "run_key": "key-1",
        "follow": True,
    }


def test_days_that_changed_since_they_were_listed_are_left_out_and_the_others_ingested(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.arrive("x.csv", [next_day()], NEXT)
    listing = save_listing("transactions", None, "key-1")
    days.arrive("late.csv", [next_day(2)], NEXT)
    assert refusal(days, DAY, NEXT, listing=listing) == (
        f"{NEXT}: landing changed while it was ingested; the change starts the day again"
    )
    assert (mark(DAY) is None, mark(NEXT) is None) == (False, True)
    days.ingest(DAY, NEXT, listing=save_listing("transactions", [DAY, NEXT], "key-2"))
    assert mark(NEXT) is not None


def test_a_listing_that_is_not_there_is_refusal(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    assert "no listing at bronze/_listing/k.json" in refusal(days, listing="bronze/_listing/k.json")


def test_a_fingerprint_of_several_days_is_refused(days: Days) -> None:
    assert "one day's files; 2 days were requested" in refusal(days, DAY, NEXT, fingerprint="0123456789abcdef")


def test_too_many_refused_rows_hold_the_day_and_show_the_rows(days: Days, resources: Resources) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    resources.change_source(clean={"max_quarantined_share": 0.5})
    days.arrive("x.csv", [row(1), row(2, customer_id=None), row(3, customer_id=None)])
    message = refusal(days)
    assert "2 of 3 rows were refused, which is more than clean.max_quarantined_share (0.5)" in message
    assert "most for: customer_id is missing (2)" in message
    assert len(rows_of("quarantine.transactions", DAY)) == 2
    assert len(rows_of("silver.transactions", DAY)) == 1
    accounted = mark()
    assert accounted is not None
    assert accounted["received"] == 1


def test_as_many_refused_rows_as_allowed_are_no_reason_to_hold(days: Days, resources: Resources) -> None:
    resources.change_source(clean={"max_quarantined_share": 0.5})
    days.arrive("x.csv", [row(1), row(2, customer_id=None)])
    assert days.ingest()["quarantined"] == 1


def test_a_lost_row_stops_the_ingestion(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    days.arrive("x.csv", [row(1), row(2)])
    batches = bronze.BronzeFile.batches
    monkeypatch.setattr(bronze.BronzeFile, "batches", lambda file: (batch.slice(1) for batch in batches(file)))
    assert "2 rows received, but 1 silver + 0 quarantined + 0 exact duplicates are 1" in refusal(days)
    assert [tables.exists(table) for table in TABLES] == [False] * 4


def test_a_held_day_is_recorded_with_fingerprint_and_reasons_until_it_is_ingested(days: Days) -> None:
    name = days.land("x.csv", b"")
    days.arrive("x.csv", [next_day()], NEXT)
    message = refusal(days, DAY, NEXT, run_key="key-1")
    fingerprint = list_landing("transactions").days[0].fingerprint
    assert held_days.read("transactions") == {
        DAY: {"fingerprint": fingerprint, "reasons": [message.removeprefix(f"{DAY}: ")], "run_key": "key-1"}
    }
    assert name in message
    days.arrive("x.csv", [row(1)])
    days.ingest(DAY, NEXT)
    assert held_days.read("transactions") == {}


def test_a_day_that_never_was_held_is_not_recorded(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    assert not tables.exists(held_days.HELD_DAYS)


# --- days that can be used ---------------------------------------------------------------------------------


def test_a_day_in_all_formats(days: Days) -> None:
    days.arrive("a.csv", [row(1)])
    days.arrive("b.tsv", [row(2, quantity="-1", amount="-2.55")])
    days.arrive("c.jsonl", [row(3, customer_id=17850, quantity=2, unit_price=2.55, amount=5.1, country=None)])
    parquet = row(
        4,
        customer_id=17850.0,
        quantity=3,
        amount=7.65,
        occurred_at=datetime.fromisoformat("2011-06-28T09:01:02.000003"),
    )
    days.arrive("d.parquet", [parquet])
    facts = days.ingest()
    assert {key: facts[key] for key in ("files", "received", "silver", "quarantined", "duplicates")} == {
        "files": 4,
        "received": 4,
        "silver": 4,
        "quarantined": 0,
        "duplicates": 0,
    }
    silver = rows_of("silver.transactions")
    assert [r["customer_id"] for r in silver] == ["17850"] * 4
    assert [r["amount"] for r in silver] == [15.3, -2.55, 5.1, 7.65]
    assert [r["kind"] for r in silver] == ["purchase", "return", "purchase", "purchase"]
    assert [r["_file"] for r in silver] == [
        f"landing/transactions/{DAY}/{file}" for file in ("a.csv", "b.tsv", "c.jsonl", "d.parquet")
    ]
    assert str(silver[3]["occurred_at"]) == "2011-06-28 09:01:02.000003+00:00"


def test_silver_has_the_agreed_columns(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    days.ingest()
    schema = tables.read("silver.transactions").schema
    assert {field.name: str(field.type) for field in schema} == {
        "day": "date32[day]",
        "occurred_at": "timestamp[us, tz=UTC]",
        **dict.fromkeys(("quantity", "unit_price", "amount"), "double"),
        "_row": "int64",
        **dict.fromkeys(("transaction_id", "customer_id", "product_id", "category"), "string"),
        **dict.fromkeys(("channel", "country", "kind", "_file"), "string"),
    }


def test_duplicates_across_files_are_counted_and_the_first_row_is_kept(days: Days) -> None:
    days.arrive("b.csv", [row(1), row(2)])
    days.arrive("a.tsv", [row(2), row(3), row(3)])
    facts = days.ingest()
    assert (facts["received"], facts["silver"], facts["duplicates"]) == (5, 3, 2)
    assert [(r["transaction_id"], r["_file"][-5:], r["_row"]) for r in rows_of("silver.transactions")] == [
        ("536367", "a.tsv", 1),
        ("536368", "a.tsv", 2),
        ("536366", "b.csv", 1),
    ]


def test_rows_the_copy_skipped_are_received_and_quarantined(days: Days) -> None:
    path = days.arrive("x.csv", [row(1), row(2)])
    days.skip(path, 3, "536367,17850,extra,extra")
    facts = days.ingest(copy_log="bronze/_log/k")
    assert (facts["received"], facts["silver"], facts["quarantined"]) == (3, 2, 1)
    assert facts["reasons"] == {"the row could not be parsed": 1}
    (skipped,) = rows_of("quarantine.transactions")
    assert (skipped["_file"], skipped["_row"], skipped["column"]) == (f"landing/{path}", None, None)
    assert "with row number 3: found more columns than expected" in skipped["reason"]
    assert json.loads(skipped["record"]) == {"line": "536367,17850,extra,extra"}


def test_a_file_of_which_every_row_was_skipped_is_not_empty(days: Days, resources: Resources) -> None:
    resources.change_source(clean={"max_quarantined_share": 1.0})
    path = days.arrive("x.csv", pa.Table.from_pylist([row()]).slice(0, 0))
    days.skip(path, 2, "a,b")
    assert days.ingest(copy_log="bronze/_log/k")["quarantined"] == 1


def test_a_copy_log_that_cannot_be_assigned_to_a_day_fails(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    stores.lake().write("bronze/_log/k/1.csv", b"OperationName,OperationItem,Message\nTabularRowSkip,a,no idea\n")
    assert "names no source: no idea" in refusal(days, copy_log="bronze/_log/k")


def test_bronze_of_a_file_that_is_no_longer_landed_is_ignored(days: Days) -> None:
    days.arrive("x.csv", [row(1)])
    stores.landing().delete(days.arrive("withdrawn.csv", [row(2)]))
    assert days.ingest()["received"] == 1


def test_columns_and_files_that_are_not_used_are_reported(days: Days) -> None:
    days.arrive("x.csv", [row(1, coupon="SUMMER")])
    days.land("_notes.txt", b"hello")
    facts = days.ingest()
    assert facts["extra_columns"] == ["coupon"]
    assert [stray.partition(":")[0] for stray in facts["strays"]] == [f"transactions/{DAY}/_notes.txt"]


def test_refusals_are_counted_by_reason(days: Days) -> None:
    days.arrive("x.csv", [row(1, customer_id=None, quantity="0"), row(2, customer_id=None), row(3)])
    assert days.ingest()["reasons"] == {"customer_id is missing": 2, "quantity is zero": 1}


def test_running_again_gives_identical_tables(days: Days) -> None:
    days.arrive("x.csv", [row(1), row(1), row(2, quantity="0"), row(3), row(4), row(5)])
    days.ingest()
    before = [rows_of(table) for table in TABLES]
    days.ingest()
    assert [rows_of(table) for table in TABLES] == before


def test_a_day_that_arrives_again_replaces_itself_and_leaves_other_days_untouched(days: Days) -> None:
    days.arrive("x.csv", [row(1), row(2, quantity="0")])
    days.arrive("x.csv", [next_day(1), next_day(2)], NEXT)
    days.ingest(DAY, NEXT)
    before = [rows_of(table, NEXT) for table in TABLES]
    days.arrive("x.csv", [row(7)])
    days.ingest(DAY, run_key="again")
    assert [rows_of(table, NEXT) for table in TABLES] == before
    assert [r["transaction_id"] for r in rows_of("silver.transactions", DAY)] == [row(7)["transaction_id"]]
    assert rows_of("quarantine.transactions", DAY) == []
    accounted = mark(DAY)
    assert accounted is not None
    assert (accounted["received"], accounted["run_key"]) == (1, "again")


def test_many_days_at_once_equal_the_same_days_one_by_one(days: Days) -> None:
    for n, day in enumerate((DAY, NEXT, DAY + timedelta(days=3))):
        rows = [row(k, occurred_at=str(day)) for k in range(n + 2)] + [row(9, occurred_at="2001-01-01")]
        days.arrive("x.csv", rows, day)
        days.ingest(day)
    before = [rows_of(table) for table in TABLES]
    facts = days.ingest(DAY, NEXT, DAY + timedelta(days=3))
    assert facts["days"] == 3
    assert [rows_of(table) for table in TABLES] == before


def test_content_depends_on_a_days_rows_and_not_on_its_files(days: Days) -> None:
    def content() -> dict[str, str]:
        days.ingest(run_key="another")
        found = mark()
        assert found is not None
        contents: dict[str, str] = found["contents"]
        return contents

    path = days.arrive("x.csv", [row(1), row(2, country=None), row(3)])
    before = content()
    stores.landing().delete(path)
    days.arrive("a.tsv", [row(3), row(3)])
    days.arrive("b.parquet", [row(2, country=None, customer_id="17850.0", amount="15.30"), row(1)])
    assert content() == before
    days.arrive("b.parquet", [row(2, product_id="X"), row(1)])
    after = content()
    assert after["silver.transactions"] != before["silver.transactions"]
    assert after["silver.customer_days"] == before["silver.customer_days"], "the products of a day are not in it"


def test_the_row_of_ingested_days_is_written_last(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    days.arrive("x.csv", [row(1)])
    replace = tables.replace
    written: list[str] = []

    def dies_at_customer_days(name: str, *args: Any, **kwargs: Any) -> int:
        if name == "silver.customer_days":
            raise OSError("the process died here")
        written.append(name)
        return replace(name, *args, **kwargs)

    monkeypatch.setattr(tables, "replace", dies_at_customer_days)
    with pytest.raises(OSError, match="died"):
        days.ingest()
    assert (written, mark()) == (["quarantine.transactions", "silver.transactions"], None)
    monkeypatch.setattr(tables, "replace", replace)
    days.ingest()
    assert mark() is not None
    assert len(rows_of("silver.transactions")) == 1
