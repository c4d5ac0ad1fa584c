"""What a sweep wants: each day at the stage it needs, and what waits for other days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from ml.config import load_model
from ml.days import pending
from ml.landing import listing
from ml.storage import stores
from tests.support.built_days import LATER, D, finish, ingest, lake_folder, note

__all__ = ["lake_folder"]  # every test's


def wanted(asked: dict[date, tuple[str, int]] | None = None, now: datetime = LATER) -> dict[str, dict[date, bool]]:
    found = pending.pending_work(load_model("churn"), asked or {}, now)
    return {name: {day: at_once for day, (_, at_once) in of.items()} for name, of in found.items() if of}


def land_file(day: date) -> str:
    stores.landing().write(f"transactions/{day}/x.csv", str(day).encode())
    return next(found.fingerprint for found in listing.list_landing("transactions").days if found.day == day)


def test_nothing_when_there_is_nothing() -> None:
    assert wanted() == {}


def test_each_day_at_the_stage_it_needs() -> None:
    land_file(D[6])
    ingest(*D[:4])
    finish(*D[:3])
    ingest(D[1], content="corrected")
    note("score", D[0], "other inputs")
    found = wanted()
    assert found == {
        "ingest": {D[6]: True},
        "features": {D[1]: False, D[2]: True, D[3]: False},
        "score": {D[0]: False},
    }


def test_stale_days_wait_for_the_days_before_them_that_are_being_ingested() -> None:
    ingest(*D[:6])
    finish(*D[:6])
    ingest(D[0], content="corrected")
    fingerprint = land_file(D[3])
    assert wanted()["features"] == {D[0]: False, D[1]: True, D[2]: True}
    assert wanted({D[3]: (fingerprint, 1)})["features"] == {D[0]: False, D[1]: True, D[2]: True}
    assert len(wanted({D[3]: (fingerprint, 3)})["features"]) == 6, "one that never comes holds up no other"


def test_more_than_a_weeks_days_when_all_are_there_and_stale_ones_after_them() -> None:
    """They may be the beginning of a history; and what looks back on them is made again once, after them."""
    ingest(*D)
    finish(*D)
    ingest(D[0], content="corrected")
    many = [D[0] - timedelta(n) for n in range(1, 9)]
    for day in many:
        land_file(day)
    assert wanted(now=datetime.now(UTC)) == {"features": {D[0]: False}}
    assert wanted() == {"ingest": dict.fromkeys(sorted(many), True), "features": {D[0]: False}}


def test_only_the_newest_days_and_the_others_in_words(caplog: pytest.LogCaptureFixture) -> None:
    churn = load_model("churn")
    few = churn.model_copy(update={"features": churn.features.model_copy(update={"restate_days": 3})})
    ingest(*D)
    finish(*D)
    ingest(D[0], content="corrected")
    found = pending.pending_work(few, {}, LATER)["features"]
    assert list(found) == D[4:]
    assert f"behind, and older than the newest features.restate_days: {D[0]}, {D[1]}, {D[2]}, {D[3]}" in caplog.text
