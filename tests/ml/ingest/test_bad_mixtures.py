"""Days with any mixture of bad arrivals: each bad file is a reason to hold the day, else every row is accounted for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.ops import held_days
from ml.storage import tables
from tests.support.data.bad_arrivals import ARRIVALS, Arrival
from tests.support.data.bronze_days import mark, rows_of
from tests.support.data.copied_days import SOURCE, CopiedDays

FIRST = date(2013, 1, 1)
BY_SHARE = {
    "all-rows-refused": 20,
    "no-json-at-all": 21,
}  # rows; held for their share of refused rows, so the rows of other files count
MIXED = [arrival for arrival in ARRIVALS if not arrival.landing and not arrival.id.endswith("among-many-good-ones")]


@pytest.fixture(scope="module")
def new_days() -> Iterator[date]:
    return (FIRST + timedelta(days=n) for n in itertools.count())


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=st.lists(st.sampled_from(MIXED), min_size=1, max_size=5, unique_by=lambda arrival: arrival.id))
def test_received_is_silver_and_quarantined_and_exact_duplicates(
    copied_days: CopiedDays, monkeypatch: pytest.MonkeyPatch, new_days: Iterator[date], arrivals: Sequence[Arrival]
) -> None:
    """After the files that hold the day are deleted, run by run, the day is ingested without them."""
    copied_days.connect(monkeypatch)
    day, remaining = next(new_days), dict(enumerate(arrivals))
    landed = {
        n: [
            copied_days.land(_named(n, name), content, day, arrival.md5) for name, content in arrival.files(day).items()
        ]
        for n, arrival in remaining.items()
    }
    while remaining:
        copied_days.copy(day)
        if copied_days.try_ingest(day) is None:
            break
        assert (mark(day), rows_of_day("silver.transactions", day)) == (None, [])
        reasons = held_days.read(SOURCE, [day])[day]["reasons"]
        named = {
            n
            for n in remaining
            if any(name_in_blob_storage(path) in reason for path in landed[n] for reason in reasons)
        }
        holding = {n for n, arrival in remaining.items() if arrival.outcome == "held"}
        assert named <= holding, "no other file is blamed"
        deleted = named or {n for n in holding if remaining[n].id in BY_SHARE}
        assert deleted, reasons
        for n in deleted:
            copied_days.delete(*landed[n])
            del remaining[n]
    if not remaining:
        return  # a day without files is not ingested
    silver, refused = (rows_of_day(name, day) for name in ("silver.transactions", "quarantine.transactions"))
    account = mark(day)
    assert account is not None
    assert all(row["reason"] and row["remedy"] and row["record"] and row["_file"] for row in refused)
    assert account["received"] == len(silver) + len(refused) + account["duplicates"]
    assert (account["silver"], account["quarantined"]) == (len(silver), len(refused))
    assert account["received"] == sum(BY_SHARE.get(arrival.id, arrival.account[0]) for arrival in remaining.values())
    assert all(arrival.outcome == "taken" or arrival.id in BY_SHARE for arrival in remaining.values())


def _named(number: int, name: str) -> str:
    return name if name.startswith("_") else f"{number}{name}"


def name_in_blob_storage(path: str) -> str:
    return path.replace("\\", "/")


def rows_of_day(table: str, day: date) -> list[dict[str, Any]]:
    return rows_of(table, day) if tables.exists(table) else []
