"""Days of any mixture of bad arrivals: a day is held for each file that holds it, or every row of it is accounted for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml import held_days, lake
from tests.unit.bad_arrivals import ARRIVALS, Arrival
from tests.unit.bronze_days import mark, rows_of
from tests.unit.copied_days import CopiedDays

FIRST = date(2013, 1, 1)
BY_SHARE = {"all-rows-refused", "no-json-at-all"}  # held for how many rows are refused, which others' good rows change
MIXED = [arrival for arrival in ARRIVALS if not arrival.more]


@pytest.fixture(scope="module")
def new_days() -> Iterator[date]:
    return (FIRST + timedelta(days=n) for n in itertools.count())


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=st.lists(st.sampled_from(MIXED), min_size=1, max_size=5, unique_by=lambda one: one.id))
def test_received_is_silver_and_quarantined_and_exact_duplicates(
    copied_days: CopiedDays, monkeypatch: pytest.MonkeyPatch, new_days: Iterator[date], arrivals: Sequence[Arrival]
) -> None:
    copied_days.connect(monkeypatch)
    day = next(new_days)
    for n, arrival in enumerate(arrivals):
        for name, content in arrival.files(day).items():
            own = name if name.startswith("_") else f"{n}{name}"
            copied_days.land(own, content, day, arrival.md5)
    copied_days.copy(day)
    told = copied_days.try_ingest(day)
    silver = rows_of("silver.transactions", day) if lake.exists("silver.transactions") else []
    refused = rows_of("quarantine.transactions", day) if lake.exists("quarantine.transactions") else []
    assert all(row["reason"] and row["remedy"] and row["record"] and row["_file"] for row in refused)
    if told is not None:
        assert (mark(day), silver) == (None, [])
        reasons = held_days.read([day])[day]["reasons"]
        holding = {n for n, arrival in enumerate(arrivals) if arrival.outcome == "held" and arrival.id not in BY_SHARE}
        assert all(any(f"/{n}" in reason for reason in reasons) for n in holding), "each is told at once"
        assert holding or "rows were refused" in told
        return
    account = mark(day)
    assert account is not None
    assert account["received"] == len(silver) + len(refused) + account["duplicates"]
    assert (account["silver"], account["quarantined"]) == (len(silver), len(refused))
    landed = sum(arrival.account[0] for arrival in arrivals if arrival.id not in BY_SHARE)
    landed += sum({"all-rows-refused": 20, "no-json-at-all": 21}[one.id] for one in arrivals if one.id in BY_SHARE)
    assert account["received"] == landed
    assert all(arrival.outcome == "taken" or arrival.id in BY_SHARE for arrival in arrivals)
