"""Bad arrivals through the real Copy and the real ingestion: each has the outcome that docs/bad-arrivals.md documents."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml.landing import listing
from ml.ops import held_days
from ml.storage import stores, tables
from tests.support.data.bad_arrivals import ARRIVALS, Arrival, as_csv, rows
from tests.support.data.bronze_days import mark, rows_of
from tests.support.data.copied_days import SOURCE, CopiedDays
from tests.support.resources import Resources

FIRST = date(2011, 1, 1)
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "bad-arrivals.md"
DAYS = {arrival.id: FIRST + timedelta(days=n) for n, arrival in enumerate(ARRIVALS)}


@pytest.fixture
def days(copied_days: CopiedDays, monkeypatch: pytest.MonkeyPatch) -> CopiedDays:
    copied_days.connect(monkeypatch)
    return copied_days


@pytest.mark.parametrize("arrival", [pytest.param(arrival, id=arrival.id) for arrival in ARRIVALS])
def test_outcome_of(arrival: Arrival, days: CopiedDays, resources: Resources, caplog: pytest.LogCaptureFixture) -> None:
    day = DAYS[arrival.id]
    if arrival.landing:
        resources.change_source(landing=arrival.landing)
    for name, content in arrival.files(day).items():
        days.land(name, content, day, arrival.md5)
    days.copy(day)
    for _ in range(2):  # a second run has the same outcome
        message = days.try_ingest(day)
        if arrival.outcome == "held":
            assert message is not None
            assert [part for part in arrival.reasons if part not in message] == []
            assert mark(day) is None
            assert not tables.exists("silver.transactions") or rows_of("silver.transactions", day) == []
            reasons = held_days.read(SOURCE, [day])[day]["reasons"]
            assert message == "\n".join(f"{day}: {reason}" for reason in reasons)
            continue
        assert message is None
        account = mark(day)
        assert account is not None
        counts = tuple(account[name] for name in ("received", "silver", "quarantined", "duplicates"))
        assert counts == arrival.account
        refused = rows_of("quarantine.transactions", day)
        assert tuple(row["column"] for row in refused) == arrival.columns
        assert all(row["reason"] and row["remedy"] and row["record"] and row["_file"] for row in refused)
        assert held_days.read(SOURCE, [day]) == {}
    if arrival.id == "extra-column":
        assert "x.csv: columns that are not used: coupon" in caplog.text
    if arrival.id == "same-file-under-two-names":
        assert "y.csv has the same content as" in caplog.text


def test_every_arrival_is_documented() -> None:
    documented = re.findall(r"^\| `([a-z0-9-]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(OTHERS | DAYS.keys())


OTHERS = {
    "same-name-with-new-content",
    "file-still-growing",
    "day-in-the-future",
    "ten-thousand-small-files",
    "one-huge-file",
    "file-outside-every-day",
}


def unused_day(number: int) -> date:
    return FIRST + timedelta(days=500 + number)


def test_new_content_under_the_same_name_replaces_the_rows_of_the_old(days: CopiedDays) -> None:
    day = unused_day(1)
    for numbers in ((1, 2, 3), (4,)):
        days.land("x.csv", as_csv(rows(day, *numbers)), day)
        days.copy(day)
        assert days.try_ingest(day) is None
        assert len(rows_of("silver.transactions", day)) == len(numbers)


def test_a_file_that_grows_after_it_was_listed_is_ingested_by_the_next_run_only(days: CopiedDays) -> None:
    day = unused_day(2)
    name = days.land("x.csv", as_csv(rows(day, 1)), day)
    days.copy(day)
    days.land("x.csv", as_csv(rows(day, 1, 2)), day)
    message = days.try_ingest(day)
    assert message is not None
    assert f"{day}: {name} was copied when something else was landed" in message
    assert (mark(day), held_days.read(SOURCE, [day])) == (None, {})
    days.copy(day)
    assert days.try_ingest(day) is None


def test_bronze_of_an_older_copy_is_never_taken_for_what_is_landed(days: CopiedDays) -> None:
    """The new file cannot be copied, so the bronze file of the old one still exists."""
    day = unused_day(3)
    days.land("x.csv", as_csv(rows(day, 1)), day)
    days.copy(day)
    days.land("x.csv", as_csv(rows(day, 1)) + b'"', day)
    days.copy(day)
    message = days.try_ingest(day)
    assert message is not None
    assert "copied when something else was landed" in message
    assert mark(day) is None


def test_a_day_that_has_not_begun_is_held(days: CopiedDays) -> None:
    day = datetime.now(UTC).date() + timedelta(days=9)
    days.land("x.csv", as_csv(rows(day)), day)
    days.copy(day)
    message = days.try_ingest(day)
    assert message is not None
    assert f"transactions/{day}/ is a day that has not begun" in message
    assert list(held_days.read(SOURCE, [day])) == [day]
    assert mark(day) is None


@pytest.mark.parametrize("name", ["transactions/x.csv", "transactions/2011-02-30/x.csv", "x.csv"])
def test_a_file_outside_every_day_is_reported_and_ignored(days: CopiedDays, name: str) -> None:
    days.account.container("landing").upload_blob(name, b"a,b\n1,2\n", overwrite=True)
    landing = listing.landed_days(stores.landing().list(), "transactions")
    assert [stray.why for stray in landing.strays if stray.name == name] != []
    assert all(blob.name != name for day in landing.days for blob in day.files)


def test_a_hundred_small_files_are_one_day(days: CopiedDays) -> None:
    """Ten thousand are in tests/ml/ingest/test_large_days.py."""
    day = unused_day(4)
    for n in range(100):
        days.land(f"part-{n:05}.csv", as_csv(rows(day, 2 * n, 2 * n + 1)), day)
    days.copy(day)
    assert days.try_ingest(day) is None
    account: dict[str, Any] | None = mark(day)
    assert account is not None
    assert (account["files"], account["silver"]) == (100, 200)
