"""Days of any mixture of bad arrivals: a day is held for each file that holds it, or every row of it is accounted for."""

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
from tests.support.bad_arrivals import ARRIVALS, Arrival
from tests.support.bronze_days import mark, rows_of
from tests.support.copied_days import CopiedDays

FIRST = date(2013, 1, 1)
BY_SHARE = {"all-rows-refused": 20, "no-json-at-all": 21}  # rows; held for how many are refused, so others' rows count
MIXED = [arrival for arrival in ARRIVALS if not arrival.more and not arrival.id.endswith("among-many-good-ones")]


@pytest.fixture(scope="module")
def new_days() -> Iterator[date]:
    return (FIRST + timedelta(days=n) for n in itertools.count())


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=st.lists(st.sampled_from(MIXED), min_size=1, max_size=5, unique_by=lambda one: one.id))
def test_received_is_silver_and_quarantined_and_exact_duplicates(
    copied_days: CopiedDays, monkeypatch: pytest.MonkeyPatch, new_days: Iterator[date], arrivals: Sequence[Arrival]
) -> None:
    """And who deletes the files that hold the day, as often as told, comes to an end: it is taken without them."""
    copied_days.connect(monkeypatch)
    day, left = next(new_days), dict(enumerate(arrivals))
    landed = {
        n: [
            copied_days.land(_named(n, name), content, day, arrival.md5) for name, content in arrival.files(day).items()
        ]
        for n, arrival in left.items()
    }
    while left:
        copied_days.copy(day)
        told = copied_days.try_ingest(day)
        if told is None:
            break
        assert (mark(day), rows_of_day("silver.transactions", day)) == (None, [])
        reasons = held_days.read([day])[day]["reasons"]
        named = {n for n in left if any(told_as(path) in reason for path in landed[n] for reason in reasons)}
        holding = {n for n, arrival in left.items() if arrival.outcome == "held"}
        assert named <= holding, "no other file is blamed"
        gone = named or {n for n in holding if left[n].id in BY_SHARE}
        assert gone, reasons
        for n in gone:
            copied_days.delete(*landed[n])
            del left[n]
    if not left:
        return  # of a day without files nothing is known
    silver, refused = (rows_of_day(name, day) for name in ("silver.transactions", "quarantine.transactions"))
    account = mark(day)
    assert account is not None
    assert all(row["reason"] and row["remedy"] and row["record"] and row["_file"] for row in refused)
    assert account["received"] == len(silver) + len(refused) + account["duplicates"]
    assert (account["silver"], account["quarantined"]) == (len(silver), len(refused))
    assert account["received"] == sum(BY_SHARE.get(arrival.id, arrival.account[0]) for arrival in left.values())
    assert all(arrival.outcome == "taken" or arrival.id in BY_SHARE for arrival in left.values())


def _named(number: int, name: str) -> str:
    return name if name.startswith("_") else f"{number}{name}"


def told_as(path: str) -> str:
    return path.replace("\\", "/")  # so Blob Storage writes it


def rows_of_day(table: str, day: date) -> list[dict[str, Any]]:
    return rows_of(table, day) if tables.exists(table) else []
