"""Faults of a service: each still gives one effect, and a correct outcome.

Every case runs through each service's own SDK against stand-ins with faults switched on. `make test` runs one case of
each kind, `make test-faults` all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from mlops.services import data_factory
from remote import operators, responses
from remote.operators import RemoteCallRefused
from remote.runs import RemoteRunFailed
from tests.support.cloud.faults import Faults, wait_for
from tests.support.cloud.standins import Standins
from tests.support.components.remote_services import SERVICES, Service, prepare
from tests.support.components.task_contexts import Ti, context_of
from tests.support.components.triggers import Triggerer, deferred_by

slow = pytest.mark.faults
_prepared: list[str] = []


@pytest.fixture(autouse=True)
def _quick(connected: Standins, monkeypatch: pytest.MonkeyPatch) -> None:
    if connected.url not in _prepared:
        prepare(connected)
        _prepared.append(connected.url)
    monkeypatch.setattr(responses, "MIN_PAUSE", 0.1)
    monkeypatch.setattr(data_factory, "LISTED_WITHIN", 1.0)


@pytest.fixture
def faults(connected: Standins) -> Iterator[Faults]:
    switches = Faults(connected.url, connected.ca)
    switches.clear()
    yield switches
    switches.clear()


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, connected: Standins, ti: Ti) -> Service:
    ti.notes["refreshes_before"] = len(connected.ledger(service="power_bi"))
    service: Service = SERVICES[request.param]
    return service


def add(faults: Faults, route: tuple[str, str], do: dict[str, Any], **options: Any) -> int:
    return faults.add(do, method=route[0], path=route[1], **options)


def answer(status: int, headers: dict[str, str] | None = None, body: Any = None) -> dict[str, Any]:
    return {"answer": {"status": status, "headers": headers or {}, "json": body or {}}}


def times(hits: list[dict[str, Any]]) -> list[datetime]:
    return [datetime.fromisoformat(hit["time"]) for hit in hits]


class TestASubmission:
    @pytest.mark.parametrize(
        "do",
        [
            pytest.param({"reset": True}, id="reset"),
            pytest.param(answer(503), id="503", marks=slow),
            pytest.param(answer(500), id="500", marks=slow),
        ],
    )
    def test_whose_response_is_lost_is_not_repeated(
        self, service: Service, connected: Standins, triggerer: Triggerer, faults: Faults, ti: Ti, do: dict[str, Any]
    ) -> None:
        """The work has begun, and no response came. Neither an SDK nor the operator may submit it again."""
        add(faults, service.submit, do, when="after")
        triggerer.run(service.make, context_of(ti))
        (entry,) = service.entries(connected, ti)
        assert entry["outcome"] in ("Succeeded", "SUCCESS", "Completed")

    @slow
    def test_that_never_arrived_is_repeated(
        self, service: Service, connected: Standins, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        rule = add(faults, service.submit, {"reset": True}, times=2)
        triggerer.run(service.make, context_of(ti))
        assert len(service.entries(connected, ti)) == 1
        assert len(faults.matches(rule)) == 3

    @pytest.mark.parametrize(
        ("status", "as_date"),
        [
            pytest.param(429, False, id="429-in-seconds"),
            pytest.param(429, True, id="429-as-a-date", marks=slow),
            pytest.param(503, False, id="503-in-seconds", marks=slow),
            pytest.param(503, True, id="503-as-a-date", marks=slow),
        ],
    )
    def test_that_must_wait_is_not_repeated_earlier(
        self,
        service: Service,
        connected: Standins,
        triggerer: Triggerer,
        faults: Faults,
        ti: Ti,
        status: int,
        as_date: bool,
    ) -> None:
        then = format_datetime(datetime.now(UTC) + timedelta(seconds=4), usegmt=True)
        rule = add(faults, service.submit, answer(status, {"Retry-After": then if as_date else "2"}))
        triggerer.run(service.make, context_of(ti))
        first, second = times(faults.matches(rule))
        if as_date:
            assert second >= datetime.strptime(then, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
        else:
            assert second - first >= timedelta(seconds=2)
        assert len(service.entries(connected, ti)) == 1

    def test_that_must_wait_long_waits_without_a_worker(self, service: Service, faults: Faults, ti: Ti) -> None:
        rule = add(faults, service.submit, answer(429, {"Retry-After": "60"}))
        before = datetime.now(UTC)
        with pytest.raises(TaskDeferred) as caught:
            service.make().execute(context_of(ti))
        assert caught.value.method_name == "go_on"
        assert caught.value.kwargs == {"step": "begin", "failures": 1}
        assert caught.value.trigger.moment >= before + timedelta(seconds=60)
        assert len(faults.matches(rule)) == 1
        faults.clear()
        again = service.make()
        resumed = partial(again.go_on, context_of(ti), event=None, **caught.value.kwargs)  # as Airflow does it
        assert deferred_by(again, context_of(ti), resumed).method_name == "execute_complete"
        again.on_kill()

    @pytest.mark.parametrize("status", [pytest.param(401, marks=slow), 403])
    def test_that_is_refused_fails_at_once_and_says_what_is_missing(
        self, service: Service, connected: Standins, faults: Faults, ti: Ti, status: int
    ) -> None:
        rule = add(faults, service.submit, answer(status, body=service.denied), times=None)
        with pytest.raises(RemoteCallRefused) as caught:
            service.make().execute(context_of(ti))
        assert isinstance(caught.value, AirflowFailException), "not retryable"
        message = str(caught.value)
        for part in (str(status), "does not have authorization", service.role, "clear the task"):
            assert part in message
        assert len(faults.matches(rule)) == 1
        assert service.entries(connected, ti) == []

    @slow
    def test_with_a_slow_response_is_sent_once(
        self, service: Service, connected: Standins, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        add(faults, service.submit, {"wait": 3}, when="after")
        triggerer.run(service.make, context_of(ti))
        assert len(service.entries(connected, ti)) == 1


class TestAPoll:
    def test_that_must_wait_is_not_repeated_earlier(
        self, service: Service, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        context = context_of(ti)
        deferred = deferred_by(service.make(), context)
        rule = add(faults, service.poll, answer(429, {"Retry-After": "2"}))
        triggerer.finish(deferred, service.make, context)
        first, second, *_ = times(faults.matches(rule))
        assert second - first >= timedelta(seconds=2)

    @slow
    def test_through_a_storm_finds_the_end(
        self, service: Service, connected: Standins, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        context = context_of(ti)
        deferred = deferred_by(service.make(), context)
        for do in ({"reset": True}, answer(503), answer(500), answer(401), {"reset": True}):
            add(faults, service.poll, do)
        triggerer.finish(deferred, service.make, context)
        assert len(service.entries(connected, ti)) == 1


class TestAPollOfTheWorker:
    """A run that ends within seconds ends before another process could wait for it."""

    @pytest.fixture(params=["data-factory", "databricks"])
    def service(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Service:
        monkeypatch.setattr(operators, "WORKER_POLL_TIME", 30.0)  # a busy machine needs longer for work of a second
        found: Service = SERVICES[request.param]
        return found

    def test_finishes_with_a_run_that_ends_at_once(self, service: Service, connected: Standins, ti: Ti) -> None:
        assert service.make().execute(context_of(ti))
        (entry,) = service.entries(connected, ti)
        assert entry["outcome"] in ("Succeeded", "SUCCESS")

    def test_hands_a_longer_run_to_the_trigger(
        self, service: Service, faults: Faults, ti: Ti, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(operators, "WORKER_POLL_TIME", 1.0)
        add(faults, service.submit, {"run": {"how": "never ends"}})
        operator = service.make()
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context_of(ti))
        assert deferred.value.method_name == "execute_complete"
        operator.on_kill()

    @pytest.mark.parametrize(
        "do", [{"reset": True}, answer(503), answer(401), answer(404)], ids=["reset", "503", "401", "404"]
    )
    def test_that_fails_is_left_to_the_trigger(
        self, service: Service, faults: Faults, ti: Ti, do: dict[str, Any]
    ) -> None:
        add(faults, service.submit, {"run": {"how": "never ends"}})
        add(faults, service.poll, do, skip=polls_while_attaching(service))
        operator = service.make()
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context_of(ti))
        assert deferred.value.method_name == "execute_complete"
        operator.on_kill()

    def test_that_must_wait_is_not_repeated_earlier(
        self, service: Service, connected: Standins, faults: Faults, ti: Ti
    ) -> None:
        rule = add(faults, service.poll, answer(429, {"Retry-After": "2"}), skip=polls_while_attaching(service))
        assert service.make().execute(context_of(ti))
        (first,) = times(faults.hits(rule))
        assert datetime.now(UTC) - first >= timedelta(seconds=2)
        assert len(service.entries(connected, ti)) == 1


def polls_while_attaching(service: Service) -> int:
    """Databricks returns only the id of a submission: its operator polls the run once."""
    return 1 if service.name == "databricks" else 0


class TestARun:
    def test_that_vanished_fails_and_is_submitted_again(
        self, service: Service, connected: Standins, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        add(faults, service.submit, {"run": {"how": "vanishes", "seconds": 1}})
        with pytest.raises(RemoteRunFailed, match=r"vanished.*the next try submits the work again"):
            triggerer.run(service.make, context_of(ti))
        triggerer.run(service.make, context_of(ti.retried()))
        first, second = service.entries(connected, ti)
        assert second["outcome"] in ("Succeeded", "SUCCESS", "Completed")
        if service.name != "power_bi":
            assert first["run_key"].endswith("-g1")
            assert second["run_key"].endswith("-g2")

    def test_that_never_ends_is_cancelled_after_its_deadline(
        self, service: Service, connected: Standins, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        add(faults, service.submit, {"run": {"how": "never ends"}})
        context = context_of(ti)
        deferred = deferred_by(service.make(), context)
        deferred.trigger.deadline = time.time() - 1
        with pytest.raises(RemoteRunFailed, match=r"timed out: it was still .* and was cancelled"):
            triggerer.finish(deferred, service.make, context)
        (entry,) = ended(service, connected, ti)
        assert entry["outcome"].lower().startswith("cancel")

    @slow
    def test_that_failed_stays_failed_when_it_is_found_again(
        self, service: Service, connected: Standins, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        add(faults, service.submit, {"run": {"how": "fails", "seconds": 1}})
        for _ in range(2):  # the same try twice, as when a worker is lost after the run has failed
            with pytest.raises(RemoteRunFailed, match="ended F"):
                triggerer.run(service.make, context_of(ti))
        assert len(service.entries(connected, ti)) == 1
        triggerer.run(service.make, context_of(ti.retried()))
        assert len(service.entries(connected, ti)) == 2

    @slow
    def test_is_cancelled_by_a_killed_worker_whose_request_must_wait(
        self, service: Service, connected: Standins, faults: Faults, ti: Ti
    ) -> None:
        add(faults, service.submit, {"run": {"how": "never ends"}})
        operator = service.make()
        deferred_by(operator, context_of(ti))
        rule = add(faults, service.cancel, answer(429, {"Retry-After": "2"}))
        operator.on_kill()
        first, second, *_ = times(faults.matches(rule))
        assert second - first >= timedelta(seconds=2)
        (entry,) = ended(service, connected, ti)
        assert entry["outcome"].lower().startswith("cancel")

    def test_is_cancelled_though_the_cancel_request_must_wait(
        self, service: Service, connected: Standins, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        add(faults, service.submit, {"run": {"how": "never ends"}})
        deferred = deferred_by(service.make(), context_of(ti))
        rule = add(faults, service.cancel, answer(429, {"Retry-After": "2"}))
        triggerer.kill(deferred.trigger)
        first, second, *_ = times(faults.matches(rule))
        assert second - first >= timedelta(seconds=2)
        (entry,) = ended(service, connected, ti)
        assert entry["outcome"].lower().startswith("cancel")


def ended(service: Service, cloud: Standins, ti: Ti) -> list[dict[str, Any]]:
    """The ledger entries of a task, once all of its runs are over."""

    def ended_entries() -> list[dict[str, Any]] | None:
        entries = service.entries(cloud, ti)
        return entries if all(entry["outcome"] for entry in entries) else None

    entries: list[dict[str, Any]] = wait_for(ended_entries, "the end of the task's runs", 20)
    return entries
