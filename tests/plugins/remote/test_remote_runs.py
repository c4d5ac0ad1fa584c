"""Waiting for remote work: what a poll, a failed poll, a deadline and a person's kill mean."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from remote import links, responses, runs, triggers
from remote.links import RemoteRunLink, ReportLink, show_link
from remote.runs import RemoteRun, RemoteRunFailed, RemoteRunRefused, facts_of, succeed_or_raise
from tests.support.components.scripted_runs import DONE, FAILED, GOING, ScriptedTrigger, Service, services
from tests.support.components.task_contexts import Ti, context_of
from tests.support.components.triggers import events_of, rebuilt

AWAY = ConnectionError("no route")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_POLL", "MIN_POLL_PAUSE", "MAX_POLL_PAUSE"):
        monkeypatch.setattr(triggers, name, 0.0)
    for name in ("MIN_PAUSE", "MAX_PAUSE"):
        monkeypatch.setattr(responses, name, 0.0)


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    def make(*polled: RemoteRun | Exception, **options: int) -> Service:
        services["r1"] = Service(list(polled), **options)
        return services["r1"]

    yield make
    services.clear()


def trigger(seconds_left: float = 60) -> BaseTrigger:
    return rebuilt(ScriptedTrigger("r1", "scripted", time.time() + seconds_left))


class TestTheTrigger:
    def test_is_rebuilt_from_its_serialised_form(self) -> None:
        path, kwargs = ScriptedTrigger("r1", "scripted", 1893456000.5).serialize()
        assert path == "tests.support.components.scripted_runs.ScriptedTrigger"
        assert kwargs == {"run_id": "r1", "conn_id": "scripted", "deadline": 1893456000.5}
        assert json.loads(json.dumps(kwargs)) == kwargs, "Airflow stores it as JSON"
        assert rebuilt(ScriptedTrigger(**kwargs)).serialize() == (path, kwargs)

    @pytest.mark.parametrize("end", [DONE, FAILED], ids=["succeeded", "failed"])
    def test_reports_the_outcome_once(self, service: Callable[..., Service], end: RemoteRun) -> None:
        remote = service(GOING, GOING, end)
        assert events_of(trigger()) == [TriggerEvent(asdict(end))]
        assert (remote.polls, remote.cancels, remote.is_closed) == (3, 0, True)

    def test_its_event_restores_the_same_run(self, service: Callable[..., Service]) -> None:
        service(FAILED)
        (event,) = events_of(trigger())
        assert RemoteRun(**json.loads(json.dumps(event.payload))) == FAILED

    def test_waits_before_its_first_poll(
        self, service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An event before the scheduler has seen the task defer makes Airflow retry a running task (#72716)."""
        monkeypatch.setattr(triggers, "FIRST_POLL", 0.3)
        remote = service(DONE)

        async def poll_early() -> int:
            events = trigger().run()
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.15)
            polls = remote.polls
            await first
            return polls

        assert asyncio.run(poll_early()) == 0
        assert remote.polls == 1

    def test_polls_less_often_over_time(self, service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []

        async def note(seconds: float) -> None:
            pauses.append(seconds)

        monkeypatch.setattr(asyncio, "sleep", note)
        for name, value in (("FIRST_POLL", 2.0), ("MIN_POLL_PAUSE", 1.0), ("MAX_POLL_PAUSE", 3.0)):
            monkeypatch.setattr(triggers, name, value)
        service(*[GOING] * 5, DONE)
        events_of(trigger())
        assert pauses == [2.0, 1.0, 1.5, 2.25, 3.0, 3.0]


class TestAFailedPoll:
    def test_says_nothing_about_the_run(self, service: Callable[..., Service]) -> None:
        remote = service(*[AWAY] * (triggers.MAX_FAILURES - 1), DONE)
        assert events_of(trigger()) == [TriggerEvent(asdict(DONE))]
        assert remote.cancels == 0

    def test_is_forgotten_after_one_that_succeeds(self, service: Callable[..., Service]) -> None:
        nearly = [AWAY] * (triggers.MAX_FAILURES - 1)
        service(*nearly, GOING, *nearly, DONE)
        assert events_of(trigger()) == [TriggerEvent(asdict(DONE))]

    def test_repeated_too_often_ends_the_wait_and_leaves_the_run_alone(self, service: Callable[..., Service]) -> None:
        remote = service(AWAY)
        with pytest.raises(ConnectionError, match="no route"):
            events_of(trigger())
        assert (remote.polls, remote.cancels, remote.is_closed) == (triggers.MAX_FAILURES, 0, True)

    def test_is_no_reason_to_cancel_even_after_the_deadline(self, service: Callable[..., Service]) -> None:
        remote = service(AWAY, AWAY, DONE)
        assert events_of(trigger(-1)) == [TriggerEvent(asdict(DONE))]
        assert remote.cancels == 0

    def test_may_be_a_failed_connection(self, service: Callable[..., Service]) -> None:
        remote = service(GOING, DONE, connection_errors=triggers.MAX_FAILURES - 1)
        assert events_of(trigger()) == [TriggerEvent(asdict(DONE))]
        assert (remote.opened, remote.closed) == (1, 1)

    def test_without_any_connection_is_an_error(self, service: Callable[..., Service]) -> None:
        remote = service(DONE, connection_errors=10**6)
        with pytest.raises(ConnectionError):
            events_of(trigger())
        assert remote.polls == 0


class TestTheDeadline:
    def test_cancels_and_says_so(self, service: Callable[..., Service]) -> None:
        remote = service(GOING)
        (event,) = events_of(trigger(-1))
        run = RemoteRun(**event.payload)
        assert remote.cancels == 1
        assert run.failed
        assert (run.state, run.url) == ("timed out", GOING.url)
        assert run.detail == "it was still Running at its deadline, and was cancelled"

    def test_says_so_when_the_run_cannot_be_cancelled(self, service: Callable[..., Service]) -> None:
        service(GOING, uncancellable="only enhanced refreshes can be")
        (event,) = events_of(trigger(-1))
        assert event.payload["detail"].endswith("deadline, and could not be cancelled (only enhanced refreshes can be)")

    def test_does_not_cancel_a_run_that_has_ended(self, service: Callable[..., Service]) -> None:
        remote = service(DONE)
        assert events_of(trigger(-1)) == [TriggerEvent(asdict(DONE))]
        assert remote.cancels == 0

    def test_repeats_a_failed_cancel_request(self, service: Callable[..., Service]) -> None:
        """The retry would attach to a run that is left alive here, and give it the whole time again."""
        remote = service(GOING, cancel_errors=2)
        (event,) = events_of(trigger(-1))
        assert (event.payload["state"], remote.cancels) == ("timed out", 3)

    def test_reports_the_outcome_of_a_run_that_ends_while_cancelling_fails(
        self, service: Callable[..., Service]
    ) -> None:
        service(GOING, DONE, cancel_errors=1)
        assert events_of(trigger(-1)) == [TriggerEvent(asdict(DONE))]


class TestARunThatIsNotFound:
    GONE = runs.RemoteRunGone("no such run")

    def test_counts_as_vanished_after_some_polls(self, service: Callable[..., Service]) -> None:
        remote = service(GOING, self.GONE)
        (event,) = events_of(trigger())
        run = RemoteRun(**event.payload)
        assert (run.failed, run.state, remote.cancels) == (True, "vanished", 0)
        assert "its outcome is unknown" in run.detail
        assert remote.polls == 1 + triggers.MAX_MISSES

    def test_may_be_listed_late(self, service: Callable[..., Service]) -> None:
        service(*[self.GONE] * (triggers.MAX_MISSES - 1), DONE)
        assert events_of(trigger()) == [TriggerEvent(asdict(DONE))]

    def test_is_not_a_run_whose_service_is_unreachable(self, service: Callable[..., Service]) -> None:
        service(*[self.GONE, AWAY] * 8, DONE)
        assert events_of(trigger()) == [TriggerEvent(asdict(DONE))]


class TestAPersonsKill:
    def test_cancels_the_run(self, service: Callable[..., Service]) -> None:
        remote = service(GOING)
        asyncio.run(trigger().on_kill())
        assert (remote.cancels, remote.is_closed) == (1, True)

    @pytest.mark.parametrize(
        ("states", "cancels"),
        [
            pytest.param({"run": {"copy_files": "deferred"}}, 0, id="another-triggerer-has-it"),
            pytest.param({"run": {"copy_files": "failed"}}, 1, id="marked-failed"),
            pytest.param({"run": {"copy_files": "success"}}, 1, id="marked-success"),
            pytest.param({"run": {"copy_files": None}}, 1, id="cleared"),
            pytest.param({}, 1, id="dag-run-deleted"),
        ],
    )
    def test_differs_from_a_takeover_by_the_task_s_state(
        self, service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, states: Any, cancels: int
    ) -> None:
        """Airflow 3.3 calls `on_kill` for both; only the task's state differs."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **_: states)
        remote = service(GOING)
        waiting: Any = trigger()
        waiting.task_instance = SimpleNamespace(
            dag_id="transactions_ingest", task_id="copy_files", run_id="run", map_index=-1, task=None
        )
        asyncio.run(waiting.on_kill())
        assert remote.cancels == cancels

    def test_is_repeated_until_the_service_responds(self, service: Callable[..., Service]) -> None:
        remote = service(GOING, cancel_errors=3)
        asyncio.run(trigger().on_kill())
        assert remote.cancels == 4

    def test_differs_from_the_end_of_a_triggerer(self, service: Callable[..., Service]) -> None:
        """A cancelled wait (a restart, another triggerer takes over) leaves the run alone."""
        remote = service(GOING)

        async def end_triggerer() -> None:
            waiting = asyncio.ensure_future(anext(trigger().run()))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        asyncio.run(end_triggerer())
        assert remote.polls
        assert (remote.cancels, remote.is_closed) == (0, True)


class TestTheFactsOfALog:
    @pytest.mark.parametrize(
        ("log", "facts"),
        [
            pytest.param("", {}, id="empty-log"),
            pytest.param("Traceback …\nValueError: no", {}, id="no-facts"),
            pytest.param('{"rows": 3}', {"rows": 3}, id="only-facts"),
            pytest.param('INFO: loading\n{"rows": 3}\n', {"rows": 3}, id="facts-last"),
            pytest.param('{"rows": 3}\nINFO: connection closed\n', {"rows": 3}, id="a-library-logs-after"),
            pytest.param('{"rows": 1}\n{"rows": 2}', {"rows": 2}, id="the-last-of-two"),
            pytest.param('{"rows": 3}\n{"rows": 4', {"rows": 3}, id="a-line-cut-off"),
            pytest.param('[1]\n"text"\n3', {}, id="json-that-is-no-object"),
            pytest.param('{"rows": 3}\r\n', {"rows": 3}, id="line-ends-of-windows"),
        ],
    )
    def test_are_the_last_json_object(self, log: str, facts: dict[str, Any]) -> None:
        assert facts_of(log) == facts


class TestTheOutcome:
    def test_is_the_facts_of_a_success(self) -> None:
        assert succeed_or_raise(DONE, {"rows": 3}) == {"rows": 3}

    def test_names_service_run_state_reason_and_page(self) -> None:
        with pytest.raises(RemoteRunFailed) as caught:
            succeed_or_raise(FAILED, {})
        assert str(caught.value) == "Scripted run r1 ended Failed: out of memory. Look at: https://example.org/r1"
        assert not isinstance(caught.value, AirflowFailException), "a failure may be tried again"

    def test_says_when_the_service_gave_no_reason(self) -> None:
        with pytest.raises(RemoteRunFailed, match="the service gave no detail"):
            succeed_or_raise(RemoteRun("Scripted", "r1", "Failed", done=True), {})

    def test_is_final_when_the_stage_refused(self) -> None:
        with pytest.raises(RemoteRunRefused, match=r"x\.csv is empty.*example\.org/r1") as caught:
            succeed_or_raise(FAILED, {"refused": "x.csv is empty: ask upstream to send it again"})
        assert isinstance(caught.value, AirflowFailException), "not retryable"

    def test_of_a_success_is_never_a_refusal(self) -> None:
        assert succeed_or_raise(DONE, {"refused": "no"}) == {"refused": "no"}


def test_the_link_works_while_the_run_is_going() -> None:
    ti = Ti()
    show_link(context_of(ti), GOING)
    assert ti.xcoms[RemoteRunLink().xcom_key] == GOING.url
    assert ti.xcoms[links.URL_KEY] == GOING.url
    assert ti.xcoms["remote_run_id"] == "r1"


@pytest.mark.parametrize(
    ("facts", "link"),
    [
        pytest.param({"page": "http://mlflow/#/report.html"}, "http://mlflow/#/report.html", id="a-job-that-made-one"),
        pytest.param({"rows": 3}, "", id="a-job-that-made-none"),
        pytest.param(None, "", id="not-ended-yet"),
    ],
)
def test_report_of_a_job_is_linked_from_its_task(facts: Any, link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time.xcom import XCom

    monkeypatch.setattr(XCom, "get_value", lambda **_: facts)
    assert ReportLink().get_link(None, ti_key=None) == link  # type: ignore[arg-type]
