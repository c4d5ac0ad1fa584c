"""Refreshes of a dataset: asked for once, whoever asked, and green only when a refresh has completed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import TaskDeferred

from mlops.services import power_bi
from mlops.services.power_bi import PowerBI, PowerBIRefreshOperator, PowerBIRefreshTrigger
from remote.runs import RemoteRunFailed
from tests.faults.faults import Faults, wait_for
from tests.support.cloud import Standins
from tests.support.power_bi_client import DATASET, GROUP, write_scores
from tests.support.task_contexts import Ti, context_of
from tests.support.triggers import Triggerer, deferred_by

FULL = {"type": "Full"}
REFRESHES = {"method": "POST", "path": ".*/refreshes"}


def made(**options: Any) -> PowerBIRefreshOperator:
    defaults: dict[str, Any] = {"task_id": "t", "group_id": GROUP, "dataset_id": DATASET, "timeout": 60}
    return PowerBIRefreshOperator(**defaults | options)


@pytest.fixture
def dataset(connected: Standins) -> PowerBI:
    """The dataset as a person sees it, with scores to import and no refresh going on."""
    write_scores(connected.account)
    found = PowerBI(BaseHook.get_connection("powerbi_default"), GROUP, DATASET)
    wait_for(lambda: all(run.done for run in found.refreshes()), "the refreshes of other tests to end", 30)
    return found


@pytest.fixture
def faults(connected: Standins) -> Iterator[Faults]:
    switches = Faults(connected.url, connected.ca)
    yield switches
    switches.clear()


def ids(dataset: PowerBI) -> list[str]:
    return [run.run_id for run in dataset.refreshes()]


def over(dataset: PowerBI, refresh: str) -> Any:
    def ended() -> Any:
        return next((run for run in dataset.refreshes() if run.run_id == refresh and run.done), None)

    return wait_for(ended, f"the end of refresh {refresh}", 30)


class TestATaskThatEnds:
    def test_is_one_refresh_that_has_completed(self, dataset: PowerBI, triggerer: Triggerer, ti: Ti) -> None:
        before = ids(dataset)
        told = triggerer.run(made, context_of(ti))
        assert told == {"refresh": ids(dataset)[0], "status": "Completed"}
        assert ids(dataset)[1:] == before
        assert ti.xcoms["remote_run_url"] == f"https://app.powerbi.com/groups/{GROUP}/datasets/{DATASET}/details"

    def test_tells_power_bi_s_own_error(self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti) -> None:
        faults.add({"run": {"how": "fails", "seconds": 1}}, **REFRESHES)
        with pytest.raises(
            RemoteRunFailed, match=re.compile("Power BI run .* ended Failed: .*fault rule.*app.powerbi")
        ):
            triggerer.run(made, context_of(ti))

    def test_names_a_dataset_that_is_not_there(self, dataset: PowerBI, ti: Ti) -> None:
        with pytest.raises(Exception, match="404 PowerBIEntityNotFound: Dataset other"):
            made(dataset_id="other").execute(context_of(ti))


class TestWhoeverAsked:
    def test_a_refresh_that_began_after_the_task_is_attached_to(
        self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        """A first try that did not get to ask; meanwhile a person did."""
        faults.add({"answer": {"status": 429, "headers": {"Retry-After": "600"}}}, **REFRESHES)
        with pytest.raises(TaskDeferred):
            made().execute(context_of(ti))
        theirs = dataset.refresh(None).run_id
        assert triggerer.run(made, context_of(ti))["refresh"] == theirs
        assert ids(dataset)[0] == theirs

    def test_and_taken_when_it_has_completed(self, dataset: PowerBI, faults: Faults, ti: Ti) -> None:
        faults.add({"answer": {"status": 429, "headers": {"Retry-After": "600"}}}, **REFRESHES)
        with pytest.raises(TaskDeferred):
            made().execute(context_of(ti))
        theirs = dataset.refresh(None).run_id
        over(dataset, theirs)
        assert made().execute(context_of(ti.retried())) == {"refresh": theirs, "status": "Completed"}

    def test_a_refresh_that_was_going_on_already_is_waited_for_and_then_asked_anew(
        self, dataset: PowerBI, triggerer: Triggerer, ti: Ti
    ) -> None:
        """It may have read the table before the newest scores were there."""
        earlier = dataset.refresh(None).run_id
        context = context_of(ti)
        deferred = deferred_by(made(), context)
        assert deferred.method_name == "earlier_ended"
        assert ids(dataset)[0] == earlier, "Power BI refuses a second one meanwhile, so none is asked for"
        with pytest.raises(TaskDeferred) as again:
            triggerer.finish(deferred, made, context)
        told = triggerer.finish(again.value, made, context)
        assert ids(dataset)[:2] == [told["refresh"], earlier]

    def test_somebody_else_s_refresh_is_never_cancelled(
        self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        faults.add({"run": {"how": "never ends"}}, **REFRESHES)
        earlier = dataset.refresh(FULL).run_id
        context = context_of(ti)
        deferred = deferred_by(made(timeout=0), context)
        triggerer.kill(deferred.trigger)
        with pytest.raises(RemoteRunFailed, match=r"timed out: .*not this task's"):
            triggerer.finish(deferred, made, context)
        assert not dataset.refreshes()[0].done
        assert dataset.cancel(earlier) == ""

    def test_who_asks_in_the_same_moment_is_joined(
        self, dataset: PowerBI, triggerer: Triggerer, monkeypatch: pytest.MonkeyPatch, ti: Ti
    ) -> None:
        """Between our look and our request somebody else asked: Power BI refuses a second refresh."""
        monkeypatch.setattr(power_bi, "LISTED_WITHIN", 0.3)
        ask, theirs = PowerBI.refresh, []

        def too_late(self: PowerBI, body: Any) -> Any:
            if not theirs:
                theirs.append(ask(self, None).run_id)
            return ask(self, body)

        monkeypatch.setattr(PowerBI, "refresh", too_late)
        assert triggerer.run(made, context_of(ti))["refresh"] == theirs[0]


class TestAgain:
    def test_a_cleared_task_refreshes_again(self, dataset: PowerBI, triggerer: Triggerer, ti: Ti) -> None:
        first = triggerer.run(made, context_of(ti))["refresh"]
        again = triggerer.run(made, context_of(ti.cleared()))["refresh"]
        assert ids(dataset)[:2] == [again, first]

    def test_a_retry_after_success_takes_what_is_there(self, dataset: PowerBI, triggerer: Triggerer, ti: Ti) -> None:
        first = triggerer.run(made, context_of(ti))
        assert made().execute(context_of(ti.retried())) == first
        assert ids(dataset)[0] == first["refresh"]

    def test_each_try_asks_once_at_most(self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti) -> None:
        faults.add({"run": {"how": "fails", "seconds": 0}}, times=None, **REFRESHES)
        before = len(ids(dataset))
        for number, each in enumerate((ti, ti, ti.retried(), ti.retried()), 1):
            with pytest.raises(RemoteRunFailed):
                triggerer.run(made, context_of(each))
            assert len(ids(dataset)) - before == (number + 1) // 2


class TestAKill:
    def test_cancels_an_enhanced_refresh(self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti) -> None:
        faults.add({"run": {"how": "never ends"}}, **REFRESHES)
        deferred = deferred_by(made(body=FULL), context_of(ti))
        triggerer.kill(deferred.trigger)
        assert over(dataset, ti.xcoms["remote_run_id"]).state == "Cancelled"
        triggerer.kill(deferred.trigger)  # one that is over is no error

    def test_cannot_end_another_refresh_and_the_retry_attaches_to_it(
        self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        faults.add({"wait": 0}, **REFRESHES)
        context = context_of(ti)
        deferred = deferred_by(made(), context)
        triggerer.kill(deferred.trigger)
        made().on_kill()  # before anything was asked: nothing
        told = triggerer.run(made, context_of(ti.retried()))
        assert told == {"refresh": ti.xcoms["remote_run_id"], "status": "Completed"}

    def test_in_the_worker_cancels_too(self, dataset: PowerBI, faults: Faults, ti: Ti) -> None:
        faults.add({"run": {"how": "never ends"}}, **REFRESHES)
        operator = made(body=FULL)
        deferred_by(operator, context_of(ti))
        operator.on_kill()
        assert over(dataset, ti.xcoms["remote_run_id"]).state == "Cancelled"


def test_the_trigger_is_rebuilt_from_what_it_was_made_of() -> None:
    waiting = PowerBIRefreshTrigger("r1", "powerbi_default", 1893456000.5, GROUP, DATASET, ours=False)
    path, arguments = waiting.serialize()
    assert path == "mlops.services.power_bi.PowerBIRefreshTrigger"
    assert PowerBIRefreshTrigger(**arguments).serialize() == (path, arguments)
    assert arguments["ours"] is False
