"""When a day is requested again: after a while, less and less often, and never while its Dag may be working on it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from ml.days.pending import Request
from mlops.scheduling.requests import Activity, RequestLog, RequestRecord, select_days

NOW = datetime(1998, 7, 1, 12, tzinfo=UTC)
WAIT = timedelta(minutes=5)
D1, D2, D3 = date(1998, 6, 28), date(1998, 6, 29), date(1998, 6, 30)
IDLE, BUSY = Activity(runs=8, busy=False), Activity(runs=8, busy=True)


def now(inputs: str = "a") -> Request:
    return Request(D1, inputs, trigger_now=True)


def by_event(inputs: str = "a") -> Request:
    return Request(D1, inputs, trigger_now=False)


def record(minutes: float, times: int = 1, inputs: str = "a") -> RequestRecord:
    return RequestRecord(inputs, NOW - timedelta(minutes=minutes), times)


@pytest.mark.parametrize(
    ("request_", "before", "activity", "manual", "times"),
    [
        pytest.param(now(), None, IDLE, False, 1, id="a-new-request-is-sent"),
        pytest.param(now(), None, BUSY, False, 1, id="a-new-request-is-sent-though-the-dag-is-busy"),
        pytest.param(by_event(), None, IDLE, False, 0, id="what-an-event-triggers-is-only-noted"),
        pytest.param(by_event(), None, IDLE, True, 1, id="a-manual-run-does-not-wait-for-the-event"),
        pytest.param(by_event(), None, BUSY, True, 0, id="a-manual-run-waits-for-runs-in-progress"),
        pytest.param(by_event(), record(4, 0), IDLE, False, None, id="noted-four-minutes-ago"),
        pytest.param(by_event(), record(5, 0), IDLE, False, 1, id="noted-five-minutes-ago-the-event-was-lost"),
        pytest.param(by_event(), record(5, 0), BUSY, False, None, id="noted-and-the-dag-is-busy"),
        pytest.param(now(), record(4), IDLE, False, None, id="requested-four-minutes-ago"),
        pytest.param(now(), record(5), IDLE, False, 2, id="requested-five-minutes-ago"),
        pytest.param(now(), record(5), BUSY, False, None, id="requested-and-the-dag-is-busy"),
        pytest.param(now(), record(9, 2), IDLE, False, None, id="the-second-wait-is-longer"),
        pytest.param(now(), record(10, 2), IDLE, False, 3, id="the-second-wait-ends"),
        pytest.param(now(), record(1439, 60), IDLE, False, None, id="a-wait-is-at-most-a-day"),
        pytest.param(now(), record(1440, 60), IDLE, False, 61, id="then-once-a-day-without-end"),
        pytest.param(now(), record(1, 9), IDLE, True, 10, id="a-manual-run-requests-at-once"),
        pytest.param(now(), record(0.2), IDLE, True, None, id="a-manual-run-waits-for-what-is-on-its-way"),
        pytest.param(now("b"), record(1), IDLE, False, 1, id="other-inputs-are-another-request"),
        pytest.param(by_event("b"), record(99, 3), IDLE, False, 0, id="other-inputs-that-an-event-triggers"),
    ],
)
def test_a_request_for_one_day(
    request_: Request, before: RequestRecord | None, activity: Activity, manual: bool, times: int | None
) -> None:
    """`times`: how often the day has been requested afterwards. None: nothing is sent and the log stays."""
    log = RequestLog({D1: before} if before else {}, runs=7)
    selected, after = select_days([request_], log, activity, NOW, WAIT, manual=manual)
    if times is None:
        assert (selected, after) == ([], log)
    else:
        assert selected == ([D1] if times else [])
        assert after.days == {D1: RequestRecord(request_.inputs, NOW, times)}


def test_a_paused_dag_gets_one_day_at_a_time_and_the_others_once_that_day_has_a_run() -> None:
    requests = [Request(day, "a", trigger_now=True) for day in (D1, D2, D3)]
    selected, log = select_days(requests, RequestLog(), IDLE, NOW, WAIT, manual=False)
    assert selected == [D1, D2, D3]
    for n in range(1, 50):  # no run takes them: the wait does not grow
        later = NOW + n * WAIT
        selected, log = select_days(requests, log, IDLE, later, WAIT, manual=False)
        assert selected == [D1]
    after_a_run = Activity(runs=9, busy=False)
    selected, log = select_days(requests[1:], log, after_a_run, later + timedelta(minutes=1), WAIT, manual=False)
    assert selected == [D2, D3]


def test_a_day_that_is_no_longer_pending_leaves_the_log() -> None:
    log = RequestLog({D1: record(1), D2: record(1)}, runs=7)
    after = select_days([Request(D2, "a", trigger_now=True)], log, IDLE, NOW, WAIT, manual=False)[1]
    assert set(after.days) == {D2}


def test_a_log_is_the_same_after_its_way_through_an_event() -> None:
    log = RequestLog({D1: record(1.5, 3), D2: record(0, 0, "b")}, runs=4)
    assert RequestLog.from_json(json.loads(json.dumps(log.to_json()))) == log


def test_the_json_in_the_event_is_the_one_that_deployments_hold() -> None:
    log = RequestLog({D1: RequestRecord("0123456789abcdef", NOW, 3)}, runs=4)
    assert log.to_json() == {"runs": 4, "days": {"1998-06-28": ["0123456789abcdef", "1998-07-01T12:00:00+00:00", 3]}}


@pytest.mark.parametrize("stored", [{}, {"1998-06-28": "0123456789abcdef"}], ids=["nothing", "an-older-form"])
def test_an_event_without_a_log_gives_an_empty_one(stored: dict[str, object]) -> None:
    assert RequestLog.from_json(stored) == RequestLog()
