"""Pending work of a sweep: each day at the stage that it needs, and which days wait for others."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from ml.config import load_project
from ml.days import pending
from ml.landing import listing
from ml.storage import stores
from tests.support.data.built_days import (
    CHAIN,
    FEATURES,
    LATER,
    SCORE,
    SILVER_NODE,
    D,
    build_all,
    ingest,
    lake_folder,
    record_build,
)
from tests.support.resources import Resources

__all__ = ["lake_folder"]  # an autouse fixture


def pending_days(
    requested: dict[date, tuple[str, int]] | None = None, now: datetime = LATER
) -> dict[str, dict[date, bool]]:
    """Per node of one chain, the pending days, and whether the sweep must trigger each."""
    work = pending.pending_work(load_project(), {SILVER_NODE: requested or {}}, now)
    return {
        node: {request.day: request.trigger_now for request in requests}
        for node, requests in work.items()
        if requests and node in CHAIN
    }


def land_file(day: date) -> str:
    stores.landing().write(f"transactions/{day}/x.csv", str(day).encode())
    return next(landed.fingerprint for landed in listing.list_landing("transactions").days if landed.day == day)


def test_an_empty_lake_has_no_pending_work() -> None:
    assert pending_days() == {}


def test_each_day_is_pending_at_the_stage_that_it_needs() -> None:
    land_file(D[6])
    ingest(*D[:4])
    build_all(*D[:3])
    ingest(D[1], content="corrected")
    record_build(SCORE, D[0], "other inputs")
    assert pending_days() == {
        SILVER_NODE: {D[6]: True},
        FEATURES: {D[1]: False, D[2]: True, D[3]: False},
        SCORE: {D[0]: False},
    }


def test_stale_days_wait_for_earlier_days_that_are_being_ingested() -> None:
    ingest(*D[:6])
    build_all(*D[:6])
    ingest(D[0], content="corrected")
    fingerprint = land_file(D[3])
    assert pending_days()[FEATURES] == {D[0]: False, D[1]: True, D[2]: True}
    assert pending_days({D[3]: (fingerprint, 1)})[FEATURES] == {D[0]: False, D[1]: True, D[2]: True}
    assert len(pending_days({D[3]: (fingerprint, 3)})[FEATURES]) == 6, "a day that is never ingested delays no other"


def test_more_than_a_week_of_new_days_is_requested_when_all_have_arrived_and_stale_days_after_it() -> None:
    """They may be the beginning of a history; days that are stale because of them are rebuilt once, after them."""
    ingest(*D)
    build_all(*D)
    ingest(D[0], content="corrected")
    many = [D[0] - timedelta(n) for n in range(1, 9)]
    for day in many:
        land_file(day)
    assert pending_days(now=datetime.now(UTC)) == {FEATURES: {D[0]: False}}
    assert pending_days() == {SILVER_NODE: dict.fromkeys(sorted(many), True), FEATURES: {D[0]: False}}


def test_only_the_newest_days_are_requested_and_older_ones_logged(
    resources: Resources, caplog: pytest.LogCaptureFixture
) -> None:
    resources.change_table(rebuild={"restate_days": 3})
    ingest(*D)
    build_all(*D)
    ingest(D[0], content="corrected")
    assert list(pending_days()[FEATURES]) == D[4:]
    assert f"{FEATURES}: behind, and left to people: {D[0]}, {D[1]}, {D[2]}, {D[3]}" in caplog.text


def test_a_source_whose_landing_cannot_be_listed_holds_up_no_other(
    resources: Resources, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    transactions = resources.change_source()
    resources.put(transactions.model_copy(update={"source": "visits", "daily": {}}))
    list_landing = listing.list_landing

    def fail_for_visits(source: str) -> Any:
        if source == "visits":
            raise OSError("403 Forbidden")
        return list_landing(source)

    monkeypatch.setattr(pending, "list_landing", fail_for_visits)
    land_file(D[6])
    assert pending_days() == {SILVER_NODE: {D[6]: True}}
    assert "visits: its landing cannot be listed" in caplog.text
