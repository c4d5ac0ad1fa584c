"""Stages on Databricks: submitted once, waited for without a worker, each with its own outcome."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from ml.config import load_platform
from mlops.services.databricks import DatabricksStageOperator
from mlops.tasks.stages import stage_task
from remote.run_keys import run_key
from remote.runs import RemoteRunFailed, RemoteRunRefused
from tests.support.cloud.empty_registry import EmptyRegistry
from tests.support.cloud.standins import Standins
from tests.support.components.task_contexts import Ti, context_of
from tests.support.components.triggers import Triggerer, deferred_by

DAYS = ["--data", "cdnow", "--from", "1998-06-01", "--to", "1998-06-03"]
LIST = ["land", *DAYS, "--list"]  # succeeds, and writes nothing
WRITE = ["land", *DAYS]  # crashes: the cluster's landing container does not exist
REFUSED = ["land", "--data", "nowhere"]
SKIPPED = ["score", "--day", "1998-06-28", "--run-key", "{run_key}"]  # there is no champion
SLOW = ["promote", "--version", "1", "--run-key", "{run_key}"]  # as long as the registry does not answer; then refused


def make_task(*stages: list[str], **options: Any) -> DatabricksStageOperator:
    stages_by_name = {f"stage_{n}": stage for n, stage in enumerate(stages, 1)}
    defaults: dict[str, Any] = {"task_id": "t", "stages": stages_by_name, "cluster": "churn-jobs", "timeout": 60}
    return DatabricksStageOperator(**defaults | options)


def runs_of(cloud: Standins, ti: Ti) -> list[int]:
    """The generations of a task's runs that were really started."""
    entries = [entry for entry in cloud.ledger(service="databricks") if entry["first"] is None]
    of_task = [entry["run_key"] for entry in entries if entry["run_key"].startswith(f"{ti.dag_id}-{ti.task_id}-")]
    return [int(key.rpartition("-g")[2]) for key in of_task]


class TestATaskThatEnds:
    def test_returns_the_facts_of_each_stage(self, connected: Standins, triggerer: Triggerer, ti: Ti) -> None:
        facts = triggerer.run(lambda: make_task(LIST, [*LIST[:-1], "--list"]), context_of(ti))
        days = ["1998-06-01", "1998-06-02", "1998-06-03"]
        listed = {"data": "cdnow", "days": days, "sources": {"transactions": days}}
        assert facts == dict.fromkeys(("stage_1", "stage_2"), listed)
        assert runs_of(connected, ti) == [1]
        (entry,) = [e for e in connected.ledger(service="databricks") if e["run_key"] == run_key(context_of(ti))]
        assert entry["outcome"] == "SUCCESS"

    def test_links_to_the_run_before_it_waits(self, connected: Standins, ti: Ti) -> None:
        deferred_by(make_task(LIST), context_of(ti))
        assert ti.xcoms["remote_run_url"].startswith("https://127.0.0.1")
        assert ti.xcoms["remote_run_id"] in ti.xcoms["remote_run_url"]

    def test_skips_when_a_stage_skipped(self, connected: Standins, triggerer: Triggerer, ti: Ti) -> None:
        with pytest.raises(AirflowSkipException, match="stage_2: no champion yet"):
            triggerer.run(lambda: make_task(LIST, SKIPPED), context_of(ti))

    def test_is_not_retried_when_a_stage_refused(self, connected: Standins, triggerer: Triggerer, ti: Ti) -> None:
        with pytest.raises(RemoteRunRefused, match=r"no data set 'nowhere'.*Databricks run \d+: https://") as caught:
            triggerer.run(lambda: make_task(REFUSED, LIST), context_of(ti))
        assert isinstance(caught.value, AirflowFailException)

    def test_reports_which_stage_crashed_and_why(self, connected: Standins, triggerer: Triggerer, ti: Ti) -> None:
        with pytest.raises(RemoteRunFailed) as caught:
            triggerer.run(lambda: make_task(LIST, WRITE, LIST), context_of(ti))
        message = str(caught.value)
        assert not isinstance(caught.value, AirflowFailException), "a crash may be tried again"
        for part in ("Databricks run", "stage stage_2:", "ContainerNotFound", "Look at: https://127.0.0.1"):
            assert part in message

    def test_reports_that_databricks_ended_it(
        self, connected: Standins, triggerer: Triggerer, ti: Ti, registry: EmptyRegistry
    ) -> None:
        registry.answering.clear()
        with pytest.raises(RemoteRunFailed, match="TIMEDOUT"):
            triggerer.run(lambda: make_task(SLOW, timeout=1), context_of(ti))

    def test_names_a_cluster_that_is_not_there(self, connected: Standins, triggerer: Triggerer, ti: Ti) -> None:
        with pytest.raises(Exception, match="no-such-cluster"):
            triggerer.run(lambda: make_task(LIST, cluster="no-such-cluster"), context_of(ti))


class TestOneEffect:
    def test_a_worker_that_dies_before_it_waits_attaches_to_the_live_run(
        self, connected: Standins, triggerer: Triggerer, ti: Ti, registry: EmptyRegistry
    ) -> None:
        registry.answering.clear()
        deferred_by(make_task(SLOW), context_of(ti))  # the worker dies: no result is stored
        again = ti.retried()
        deferred = deferred_by(make_task(SLOW), context_of(again))
        assert again.xcoms["remote_run_id"] == ti.xcoms["remote_run_id"]
        registry.answering.set()
        with pytest.raises(RemoteRunRefused, match="churn version 1 is not in the registry"):
            triggerer.finish(deferred, lambda: make_task(SLOW), context_of(again))
        assert runs_of(connected, ti) == [1]

    def test_a_run_that_ended_meanwhile_is_accepted_without_waiting(
        self, connected: Standins, triggerer: Triggerer, ti: Ti
    ) -> None:
        triggerer.run(lambda: make_task(LIST), context_of(ti))
        again = context_of(ti.retried())
        assert make_task(LIST).execute(again)["stage_1"]["data"] == "cdnow"
        assert runs_of(connected, ti) == [1]

    def test_after_a_failure_the_next_try_submits_the_next_generation(
        self, connected: Standins, triggerer: Triggerer, ti: Ti
    ) -> None:
        for number, generations in ((1, [1]), (2, [1, 2])):
            with pytest.raises(RemoteRunFailed):
                triggerer.run(lambda: make_task(WRITE), context_of(replace(ti, try_number=number)))
            assert runs_of(connected, ti) == generations

    def test_a_cleared_task_runs_again(self, connected: Standins, triggerer: Triggerer, ti: Ti) -> None:
        triggerer.run(lambda: make_task(LIST), context_of(ti))
        triggerer.run(lambda: make_task(LIST), context_of(ti.cleared()))
        assert runs_of(connected, ti) == [1, 1]


class TestADay:
    @pytest.mark.parametrize("day", [None, "", "yesterday", "1998-06-31", "1998-06-28T00:00:00"])
    def test_is_required_and_nothing_is_submitted_without_one(
        self, connected: Standins, ti: Ti, day: str | None
    ) -> None:
        before = len(connected.ledger())
        with pytest.raises(AirflowFailException, match=r"partition key .*YYYY-MM-DD is needed.*backfill"):
            make_task(LIST).execute(context_of(ti, day=day))
        assert len(connected.ledger()) == before

    def test_is_not_required_for_a_task_of_many_days(self, connected: Standins, ti: Ti) -> None:
        assert deferred_by(make_task(LIST, per_day=False), context_of(ti, day=None))


class TestAKill:
    def state(self, cloud: Standins, run_id: str) -> str:
        with cloud.http() as http:
            headers = {"Authorization": "Bearer dapi-of-the-tests"}
            response = http.get("/api/2.2/jobs/runs/get", params={"run_id": run_id}, headers=headers).raise_for_status()
        state = response.json()["state"]
        return str(state.get("result_state") or state["life_cycle_state"])

    def ended(self, cloud: Standins, run_id: str) -> str:
        deadline = time.monotonic() + 20
        while (state := self.state(cloud, run_id)) not in ("CANCELED", "SUCCESS", "FAILED"):
            assert time.monotonic() < deadline, state
            time.sleep(0.05)
        return state

    def test_while_it_waits_cancels_the_run(
        self, connected: Standins, triggerer: Triggerer, ti: Ti, registry: EmptyRegistry
    ) -> None:
        registry.answering.clear()
        deferred = deferred_by(make_task(SLOW), context_of(ti))
        triggerer.kill(deferred.trigger)
        assert self.ended(connected, ti.xcoms["remote_run_id"]) == "CANCELED"
        again = ti.cleared()
        deferred = deferred_by(make_task(LIST), context_of(again))
        assert triggerer.finish(deferred, lambda: make_task(LIST), context_of(again)), (
            "a cleared task submits its work again"
        )
        assert runs_of(connected, ti) == [1, 1]

    def test_in_the_worker_cancels_the_run(self, connected: Standins, ti: Ti, registry: EmptyRegistry) -> None:
        registry.answering.clear()
        operator = make_task(SLOW)
        deferred_by(operator, context_of(ti))
        operator.on_kill()
        assert self.ended(connected, ti.xcoms["remote_run_id"]) == "CANCELED"

    def test_before_any_submission_does_nothing(self, connected: Standins) -> None:
        make_task(LIST).on_kill()


class TestAnArgument:
    def test_that_its_template_leaves_empty_is_left_out(self, connected: Standins, ti: Ti) -> None:
        operator = make_task([*LIST, "{{ '' if dag_run else '--unknown' }}"])
        operator.render_template_fields(context_of(ti))
        deferred_by(operator, context_of(ti))
        (entry,) = [e for e in connected.ledger(service="databricks") if e["run_key"] == run_key(context_of(ti))]
        assert entry["request"]["tasks"][0]["python_wheel_task"]["parameters"] == LIST


class TestStagesOfANode:
    @pytest.mark.parametrize("kind", ["source", "table", "model"])
    def test_name_it_as_the_command_line_does(self, kind: str) -> None:
        task = stage_task("t", {"validate.silver": ["--days", "1998-06-28"]}, **{kind: "x"})
        words = ["validate", f"--{kind}", "x", "--days", "1998-06-28", "--run-key", "{run_key}"]
        assert task.stages == {"validate_silver": words}

    @pytest.mark.parametrize("nodes", [{}, {"source": "x", "model": "y"}], ids=["none", "two"])
    def test_name_exactly_one(self, nodes: dict[str, str]) -> None:
        with pytest.raises(TypeError, match="one of source, table and model is needed"):
            stage_task("t", {"days": []}, **nodes)

    def test_are_one_run_in_order_each_with_node_and_key(self, connected: Standins, ti: Ti) -> None:
        databricks = load_platform().compute.databricks
        task = stage_task("t", {"land.one": [*DAYS, "--list"], "land.two": [*DAYS, "--list"]}, source="transactions")
        assert list(task.stages) == ["land_one", "land_two"]
        assert task.stages["land_one"][:3] == ["land", "--source", "transactions"]
        assert task.stages["land_one"][-2:] == ["--run-key", "{run_key}"]
        assert task.cluster == databricks.cluster
        deferred_by(task, context_of(ti))
        (entry,) = [e for e in connected.ledger(service="databricks") if e["run_key"] == run_key(context_of(ti))]
        one, two = entry["request"]["tasks"]
        assert two["depends_on"] == [{"task_key": "land_one"}]
        assert one["python_wheel_task"]["parameters"][-1] == run_key(context_of(ti)) == entry["request"]["run_name"]
        assert entry["request"]["timeout_seconds"] == databricks.timeout_seconds
