"""Refreshes of a dataset: requested once, by any client, and successful only when a refresh has completed."""

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
from tests.support.cloud.faults import Faults, wait_for
from tests.support.cloud.power_bi_client import DATASET, GROUP, write_scores
from tests.support.cloud.standins import Standins
from tests.support.components.task_contexts import Ti, context_of
from tests.support.components.triggers import Triggerer, deferred_by

FULL = {"type": "Full"}
REFRESHES = {"method": "POST", "path": ".*/refreshes"}


def make_task(**options: Any) -> PowerBIRefreshOperator:
    defaults: dict[str, Any] = {"task_id": "t", "group_id": GROUP, "dataset_id": DATASET, "timeout": 60}
    return PowerBIRefreshOperator(**defaults | options)


@pytest.fixture
def dataset(connected: Standins) -> PowerBI:
    """The dataset as another client sees it, with scores to import and no refresh in progress."""
    write_scores(connected.account)
    power_bi_dataset = PowerBI(BaseHook.get_connection("powerbi_default"), GROUP, DATASET)
    wait_for(lambda: all(run.done for run in power_bi_dataset.refreshes()), "the refreshes of other tests to end", 30)
    return power_bi_dataset


@pytest.fixture
def faults(connected: Standins) -> Iterator[Faults]:
    switches = Faults(connected.url, connected.ca)
    yield switches
    switches.clear()


def ids(dataset: PowerBI) -> list[str]:
    return [run.run_id for run in dataset.refreshes()]


def ended_run(dataset: PowerBI, refresh: str) -> Any:
    def find_ended() -> Any:
        return next((run for run in dataset.refreshes() if run.run_id == refresh and run.done), None)

    return wait_for(find_ended, f"the end of refresh {refresh}", 30)


class TestATaskThatEnds:
    def test_is_one_refresh_that_has_completed(self, dataset: PowerBI, triggerer: Triggerer, ti: Ti) -> None:
        before = ids(dataset)
        result = triggerer.run(make_task, context_of(ti))
        assert result == {"refresh": ids(dataset)[0], "status": "Completed"}
        assert ids(dataset)[1:] == before
        assert ti.xcoms["remote_run_url"] == f"https://app.powerbi.com/groups/{GROUP}/datasets/{DATASET}/details"

    def test_reports_power_bi_s_own_error(self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti) -> None:
        faults.add({"run": {"how": "fails", "seconds": 1}}, **REFRESHES)
        with pytest.raises(
            RemoteRunFailed, match=re.compile("Power BI run .* ended Failed: .*fault rule.*app.powerbi")
        ):
            triggerer.run(make_task, context_of(ti))

    def test_names_a_dataset_that_is_not_there(self, dataset: PowerBI, ti: Ti) -> None:
        with pytest.raises(Exception, match="404 PowerBIEntityNotFound: Dataset other"):
            make_task(dataset_id="other").execute(context_of(ti))


class TestARefreshOfAnotherClient:
    def test_that_started_after_the_task_is_attached_to(
        self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        """The first try could not request one; meanwhile a person did."""
        faults.add({"answer": {"status": 429, "headers": {"Retry-After": "600"}}}, **REFRESHES)
        with pytest.raises(TaskDeferred):
            make_task().execute(context_of(ti))
        theirs = dataset.refresh(None).run_id
        assert triggerer.run(make_task, context_of(ti))["refresh"] == theirs
        assert ids(dataset)[0] == theirs

    def test_that_has_completed_is_accepted(self, dataset: PowerBI, faults: Faults, ti: Ti) -> None:
        faults.add({"answer": {"status": 429, "headers": {"Retry-After": "600"}}}, **REFRESHES)
        with pytest.raises(TaskDeferred):
            make_task().execute(context_of(ti))
        theirs = dataset.refresh(None).run_id
        ended_run(dataset, theirs)
        assert make_task().execute(context_of(ti.retried())) == {"refresh": theirs, "status": "Completed"}

    def test_that_was_in_progress_before_is_waited_for_and_followed_by_a_new_one(
        self, dataset: PowerBI, triggerer: Triggerer, ti: Ti
    ) -> None:
        """It may have read the table before the newest scores were there."""
        earlier = dataset.refresh(None).run_id
        context = context_of(ti)
        deferred = deferred_by(make_task(), context)
        assert deferred.method_name == "earlier_ended"
        assert ids(dataset)[0] == earlier, "Power BI refuses a second one meanwhile, so none is requested"
        with pytest.raises(TaskDeferred) as again:
            triggerer.finish(deferred, make_task, context)
        result = triggerer.finish(again.value, make_task, context)
        assert ids(dataset)[:2] == [result["refresh"], earlier]

    def test_is_never_cancelled(self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti) -> None:
        faults.add({"run": {"how": "never ends"}}, **REFRESHES)
        earlier = dataset.refresh(FULL).run_id
        context = context_of(ti)
        deferred = deferred_by(make_task(timeout=0), context)
        triggerer.kill(deferred.trigger)
        with pytest.raises(RemoteRunFailed, match=r"timed out: .*another client requested it"):
            triggerer.finish(deferred, make_task, context)
        assert not dataset.refreshes()[0].done
        assert dataset.cancel(earlier) == ""

    def test_that_is_requested_at_the_same_moment_is_attached_to(
        self, dataset: PowerBI, triggerer: Triggerer, monkeypatch: pytest.MonkeyPatch, ti: Ti
    ) -> None:
        """Another client requests one between the operator's read and its request: Power BI refuses a second refresh."""
        monkeypatch.setattr(power_bi, "LISTED_WITHIN", 0.3)
        refresh, theirs = PowerBI.refresh, []

        def too_late(self: PowerBI, body: Any) -> Any:
            if not theirs:
                theirs.append(refresh(self, None).run_id)
            return refresh(self, body)

        monkeypatch.setattr(PowerBI, "refresh", too_late)
        assert triggerer.run(make_task, context_of(ti))["refresh"] == theirs[0]


class TestAgain:
    def test_a_cleared_task_refreshes_again(self, dataset: PowerBI, triggerer: Triggerer, ti: Ti) -> None:
        first = triggerer.run(make_task, context_of(ti))["refresh"]
        again = triggerer.run(make_task, context_of(ti.cleared()))["refresh"]
        assert ids(dataset)[:2] == [again, first]

    def test_a_retry_after_success_accepts_the_completed_one(
        self, dataset: PowerBI, triggerer: Triggerer, ti: Ti
    ) -> None:
        first = triggerer.run(make_task, context_of(ti))
        assert make_task().execute(context_of(ti.retried())) == first
        assert ids(dataset)[0] == first["refresh"]

    def test_each_try_requests_one_at_most(
        self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        faults.add({"run": {"how": "fails", "seconds": 0}}, times=None, **REFRESHES)
        before = len(ids(dataset))
        for number, each in enumerate((ti, ti, ti.retried(), ti.retried()), 1):
            with pytest.raises(RemoteRunFailed):
                triggerer.run(make_task, context_of(each))
            assert len(ids(dataset)) - before == (number + 1) // 2


class TestAKill:
    def test_cancels_an_enhanced_refresh(self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti) -> None:
        faults.add({"run": {"how": "never ends"}}, **REFRESHES)
        deferred = deferred_by(make_task(body=FULL), context_of(ti))
        triggerer.kill(deferred.trigger)
        assert ended_run(dataset, ti.xcoms["remote_run_id"]).state == "Cancelled"
        triggerer.kill(deferred.trigger)  # one that is over is no error

    def test_cannot_cancel_a_plain_refresh_and_the_retry_attaches_to_it(
        self, dataset: PowerBI, triggerer: Triggerer, faults: Faults, ti: Ti
    ) -> None:
        faults.add({"wait": 0}, **REFRESHES)
        context = context_of(ti)
        deferred = deferred_by(make_task(), context)
        triggerer.kill(deferred.trigger)
        make_task().on_kill()  # before any request: no effect
        result = triggerer.run(make_task, context_of(ti.retried()))
        assert result == {"refresh": ti.xcoms["remote_run_id"], "status": "Completed"}

    def test_in_the_worker_cancels_the_refresh(self, dataset: PowerBI, faults: Faults, ti: Ti) -> None:
        faults.add({"run": {"how": "never ends"}}, **REFRESHES)
        operator = make_task(body=FULL)
        deferred_by(operator, context_of(ti))
        operator.on_kill()
        assert ended_run(dataset, ti.xcoms["remote_run_id"]).state == "Cancelled"


def test_the_trigger_is_rebuilt_from_its_serialised_form() -> None:
    waiting = PowerBIRefreshTrigger("r1", "powerbi_default", 1893456000.5, GROUP, DATASET, ours=False)
    path, arguments = waiting.serialize()
    assert path == "mlops.services.power_bi.PowerBIRefreshTrigger"
    assert PowerBIRefreshTrigger(**arguments).serialize() == (path, arguments)
    assert arguments["ours"] is False
