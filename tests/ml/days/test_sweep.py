"""Pending work of a sweep: each day at the stage that it needs, and which days wait for others."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from ml.config import load_model
from ml.days import pending
from ml.landing import listing
from ml.storage import stores
from tests.support.data.built_days import LATER, D, build_all, ingest, lake_folder, record_build

__all__ = ["lake_folder"]  # an autouse fixture


def pending_days(
    requested: dict[date, tuple[str, int]] | None = None, now: datetime = LATER
) -> dict[str, dict[date, bool]]:
    """Per stage, the pending days, and whether the sweep must trigger each."""
    work = pending.pending_work(load_model("churn"), requested or {}, now)
    return {
        stage: {request.day: request.trigger_now for request in requests}
        for stage, requests in work.items()
        if requests
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
    record_build("score", D[0], "other inputs")
    assert pending_days() == {
        "ingest": {D[6]: True},
        "features": {D[1]: False, D[2]: True, D[3]: False},
        "score": {D[0]: False},
    }


def test_stale_days_wait_for_earlier_days_that_are_being_ingested() -> None:
    ingest(*D[:6])
    build_all(*D[:6])
    ingest(D[0], content="corrected")
    fingerprint = land_file(D[3])
    assert pending_days()["features"] == {D[0]: False, D[1]: True, D[2]: True}
    assert pending_days({D[3]: (fingerprint, 1)})["features"] == {D[0]: False, D[1]: True, D[2]: True}
    assert len(pending_days({D[3]: (fingerprint, 3)})["features"]) == 6, "a day that is never ingested delays no other"


def test_more_than_a_week_of_new_days_is_requested_when_all_have_arrived_and_stale_days_after_it() -> None:
    """They may be the beginning of a history; days that are stale because of them are rebuilt once, after them."""
    ingest(*D)
    build_all(*D)
    ingest(D[0], content="corrected")
    many = [D[0] - timedelta(n) for n in range(1, 9)]
    for day in many:
        land_file(day)
    assert pending_days(now=datetime.now(UTC)) == {"features": {D[0]: False}}
    assert pending_days() == {"ingest": dict.fromkeys(sorted(many), True), "features": {D[0]: False}}


def test_only_the_newest_days_are_requested_and_older_ones_logged(caplog: pytest.LogCaptureFixture) -> None:
    churn = load_model("churn")
    config = churn.model_copy(update={"features": churn.features.model_copy(update={"restate_days": 3})})
    ingest(*D)
    build_all(*D)
    ingest(D[0], content="corrected")
    requests = pending.pending_work(config, {}, LATER)["features"]
    assert [request.day for request in requests] == D[4:]
    assert f"behind, and older than the newest features.restate_days: {D[0]}, {D[1]}, {D[2]}, {D[3]}" in caplog.text
