"""Bad arrivals, through the real Copy and the real ingestion: each has the outcome that docs/bad-arrivals.md tells."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml.landing import listing
from ml.ops import held_days
from ml.storage import stores, tables
from tests.support.bad_arrivals import ARRIVALS, Arrival, as_csv, rows
from tests.support.bronze_days import mark, rows_of
from tests.support.copied_days import CopiedDays

FIRST = date(2011, 1, 1)
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "bad-arrivals.md"
PLACES = {arrival.id: FIRST + timedelta(days=n) for n, arrival in enumerate(ARRIVALS)}


@pytest.fixture
def days(copied_days: CopiedDays, monkeypatch: pytest.MonkeyPatch) -> CopiedDays:
    copied_days.connect(monkeypatch)
    return copied_days


@pytest.mark.parametrize("arrival", [pytest.param(arrival, id=arrival.id) for arrival in ARRIVALS])
def test_what_becomes_of(
    arrival: Arrival, days: CopiedDays, set_config: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    day = PLACES[arrival.id]
    if arrival.more:
        set_config("landing", **arrival.more)
    for name, content in arrival.files(day).items():
        days.land(name, content, day, arrival.md5)
    days.copy(day)
    for _ in range(2):  # a second time gives the same
        told = days.try_ingest(day)
        if arrival.outcome == "held":
            assert told is not None
            assert [part for part in arrival.told if part not in told] == []
            assert mark(day) is None
            assert not tables.exists("silver.transactions") or rows_of("silver.transactions", day) == []
            reasons = held_days.read([day])[day]["reasons"]
            assert told == "\n".join(f"{day}: {reason}" for reason in reasons)
            continue
        assert told is None
        account = mark(day)
        assert account is not None
        kept = tuple(account[name] for name in ("received", "silver", "quarantined", "duplicates"))
        assert kept == arrival.account
        refused = rows_of("quarantine.transactions", day)
        assert tuple(row["column"] for row in refused) == arrival.columns
        assert all(row["reason"] and row["remedy"] and row["record"] and row["_file"] for row in refused)
        assert held_days.read([day]) == {}
    if arrival.id == "extra-column":
        assert "x.csv: columns that are not used: coupon" in caplog.text
    if arrival.id == "same-file-under-two-names":
        assert "y.csv has the same content as" in caplog.text


def test_the_document_tells_of_every_arrival() -> None:
    told = re.findall(r"^\| `([a-z0-9-]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(told) == sorted(OTHERS | PLACES.keys())


OTHERS = {
    "same-name-with-new-content",
    "file-still-growing",
    "day-in-the-future",
    "ten-thousand-small-files",
    "one-huge-file",
    "file-outside-every-day",
}


def day_of_its_own(number: int) -> date:
    return FIRST + timedelta(days=500 + number)


def test_the_same_name_with_new_content_replaces_what_it_gave(days: CopiedDays) -> None:
    day = day_of_its_own(1)
    for numbers in ((1, 2, 3), (4,)):
        days.land("x.csv", as_csv(rows(day, *numbers)), day)
        days.copy(day)
        assert days.try_ingest(day) is None
        assert len(rows_of("silver.transactions", day)) == len(numbers)


def test_a_file_that_grows_after_it_was_listed_is_left_for_the_run_that_its_change_starts(days: CopiedDays) -> None:
    day = day_of_its_own(2)
    name = days.land("x.csv", as_csv(rows(day, 1)), day)
    days.copy(day)
    days.land("x.csv", as_csv(rows(day, 1, 2)), day)
    told = days.try_ingest(day)
    assert told is not None
    assert f"{day}: {name} was copied when something else was landed" in told
    assert (mark(day), held_days.read([day])) == (None, {})
    days.copy(day)
    assert days.try_ingest(day) is None


def test_bronze_that_an_older_copy_has_left_is_never_taken_for_what_is_landed(days: CopiedDays) -> None:
    """The new file cannot be copied, so that of before is still there."""
    day = day_of_its_own(3)
    days.land("x.csv", as_csv(rows(day, 1)), day)
    days.copy(day)
    days.land("x.csv", as_csv(rows(day, 1)) + b'"', day)
    days.copy(day)
    told = days.try_ingest(day)
    assert told is not None
    assert "copied when something else was landed" in told
    assert mark(day) is None


def test_a_day_that_has_not_begun_is_held(days: CopiedDays) -> None:
    day = datetime.now(UTC).date() + timedelta(days=9)
    days.land("x.csv", as_csv(rows(day)), day)
    days.copy(day)
    told = days.try_ingest(day)
    assert told is not None
    assert f"transactions/{day}/ is a day that has not begun" in told
    assert list(held_days.read([day])) == [day]
    assert mark(day) is None


@pytest.mark.parametrize("name", ["transactions/x.csv", "transactions/2011-02-30/x.csv", "x.csv"])
def test_a_file_outside_every_day_is_told_and_nothing_else(days: CopiedDays, name: str) -> None:
    days.account.container("landing").upload_blob(name, b"a,b\n1,2\n", overwrite=True)
    found = listing.landed_days(stores.landing().list(), "transactions")
    assert [stray.why for stray in found.strays if stray.name == name] != []
    assert all(blob.name != name for day in found.days for blob in day.files)


def test_a_hundred_small_files_are_one_day(days: CopiedDays) -> None:
    """Ten thousand are in tests/ml/ingest/test_large_days.py."""
    day = day_of_its_own(4)
    for n in range(100):
        days.land(f"part-{n:05}.csv", as_csv(rows(day, 2 * n, 2 * n + 1)), day)
    days.copy(day)
    assert days.try_ingest(day) is None
    found: dict[str, Any] | None = mark(day)
    assert found is not None
    assert (found["files"], found["silver"]) == (100, 200)
