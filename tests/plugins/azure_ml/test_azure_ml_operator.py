"""Azure ML jobs: submitted once with the run key, waited for without a worker, each with its own outcome."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException

from azure_ml.hook import AzureMLHook
from azure_ml.operators import LAST_LINES
from azure_ml.operators.command import AzureMLCommandJobOperator
from remote.run_keys import run_key
from remote.runs import RemoteRunFailed, RemoteRunRefused
from tests.support.cloud.standins import Standins
from tests.support.components.task_contexts import Ti, context_of
from tests.support.components.triggers import Triggerer, deferred_by

CHALLENGER = Asset("tests.challenger")
FACTS = """echo '{"version": 7, "roc_auc": 0.75}'"""
CRASH = "seq 1 40; echo 'ValueError: no such column' >&2; exit 3"
REFUSE = """echo 'too few rows' >&2; echo '{"refused": "9 rows; 1000 are needed"}'; exit 1"""
SLOW = "sleep 60"


@pytest.fixture(autouse=True)
def _environment(connected: Standins) -> None:
    """The environment that jobs name is registered, as a deployment does it."""
    from azure.ai.ml.entities import Environment

    environments = AzureMLHook().get_conn().environments
    environments.create_or_update(Environment(name="ml", version="1", image="mcr.microsoft.com/azureml/base:latest"))


def make_task(command: str, **options: Any) -> AzureMLCommandJobOperator:
    defaults: dict[str, Any] = {
        "task_id": "t",
        "command": command,
        "environment": "ml@latest",
        "compute": "cpu-cluster",
        "experiment": "/Shared/churn-prediction",
        "timeout": 60,
        "outlets": [CHALLENGER],
    }
    return AzureMLCommandJobOperator(**defaults | options)


def context_with_events(ti: Ti, **options: Any) -> Any:
    return context_of(ti, **options) | {"outlet_events": defaultdict(SimpleNamespace)}


def jobs_of(cloud: Standins, ti: Ti) -> list[int]:
    """The generations of a task's jobs that were really started."""
    entries = [entry for entry in cloud.ledger(service="azure_ml") if entry["first"] is None]
    of_task = [e["run_key"] for e in entries if (e["run_key"] or "").startswith(f"{ti.dag_id}-{ti.task_id}-")]
    return [int(key.rpartition("-g")[2]) for key in of_task]


class TestATaskThatEnds:
    def test_returns_the_facts_and_emits_them(self, triggerer: Triggerer, connected: Standins, ti: Ti) -> None:
        context = context_with_events(ti)
        facts = triggerer.run(lambda: make_task(f"echo started; {FACTS}"), context)
        assert facts == {"version": 7, "roc_auc": 0.75}
        assert context["outlet_events"][CHALLENGER].extra == facts
        (entry,) = connected.ledger(run_key=run_key(context))
        assert (entry["service"], entry["outcome"]) == ("azure_ml", "Completed")

    def test_is_a_job_named_by_its_run_key(self, connected: Standins, ti: Ti) -> None:
        context = context_with_events(ti)
        deferred_by(make_task("echo {run_key}"), context)
        key = run_key(context)
        job = AzureMLHook().get_conn().jobs.get(key)
        assert (job.name, job.display_name, job.tags["run_key"]) == (key, key, key)
        assert job.command == f"echo {key}"
        assert job.experiment_name == "Shared-churn-prediction"
        assert job.limits.timeout == 60

    def test_links_to_the_studio_before_it_waits(self, connected: Standins, ti: Ti) -> None:
        context = context_with_events(ti)
        deferred_by(make_task(FACTS), context)
        assert run_key(context) in ti.xcoms["remote_run_url"]
        assert ti.xcoms["remote_run_id"] == run_key(context)

    def test_is_not_retried_when_the_stage_refused(self, triggerer: Triggerer, ti: Ti) -> None:
        with pytest.raises(RemoteRunRefused, match=r"9 rows; 1000 are needed \(Azure ML run") as caught:
            triggerer.run(lambda: make_task(REFUSE), context_with_events(ti))
        assert isinstance(caught.value, AirflowFailException)

    def test_reports_the_end_of_the_log_when_it_crashed(self, triggerer: Triggerer, ti: Ti) -> None:
        context = context_with_events(ti)
        with pytest.raises(RemoteRunFailed) as caught:
            triggerer.run(lambda: make_task(CRASH), context)
        message = str(caught.value)
        assert not isinstance(caught.value, AirflowFailException), "a crash is retryable"
        assert message.startswith(f"Azure ML run {run_key(context)} ended Failed: Execution failed.")
        assert "exited with status code 3" in message
        assert " The end of its log:\n27\n28\n" in message
        assert "\n40\nValueError: no such column. Look at: https://" in message
        assert len(message.splitlines()) == LAST_LINES + 1
        assert not context["outlet_events"], "a crash emits nothing"

    def test_reports_that_azure_ml_ended_it(self, triggerer: Triggerer, ti: Ti) -> None:
        with pytest.raises(RemoteRunFailed, match=r"ended Canceled: .*limit of 1 seconds.*\. Look at"):
            triggerer.run(lambda: make_task(SLOW, timeout=1), context_with_events(ti))

    def test_without_facts_returns_none_of_them(self, triggerer: Triggerer, ti: Ti) -> None:
        assert triggerer.run(lambda: make_task("true"), context_with_events(ti)) == {}

    def test_names_a_compute_that_is_not_there(self, connected: Standins, ti: Ti) -> None:
        with pytest.raises(Exception, match="gpu-cluster"):
            make_task(FACTS, compute="gpu-cluster").execute(context_with_events(ti))


class TestOneEffect:
    @pytest.fixture
    def gate(self, tmp_path: Any) -> Iterator[tuple[str, Any]]:
        """A command that waits for a file, and the file."""
        file = tmp_path / "go"
        yield f"while [ ! -e {file} ]; do sleep 0.1; done; {FACTS}", file
        file.touch()

    def test_a_worker_that_dies_before_it_waits_attaches_to_the_live_job(
        self, triggerer: Triggerer, connected: Standins, ti: Ti, gate: tuple[str, Any]
    ) -> None:
        command, file = gate
        deferred_by(make_task(command), context_with_events(ti))  # the worker dies: no result is stored
        context = context_with_events(ti.retried())
        deferred = deferred_by(make_task(command), context)
        file.touch()
        assert triggerer.finish(deferred, lambda: make_task(command), context)["version"] == 7
        assert jobs_of(connected, ti) == [1]

    def test_a_job_that_ended_meanwhile_is_accepted_without_waiting(
        self, triggerer: Triggerer, connected: Standins, ti: Ti
    ) -> None:
        triggerer.run(lambda: make_task(FACTS), context_with_events(ti))
        context = context_with_events(ti.retried())
        assert make_task(FACTS).execute(context)["version"] == 7
        assert context["outlet_events"][CHALLENGER].extra["version"] == 7, "the first try could not emit it"
        assert jobs_of(connected, ti) == [1]

    def test_after_a_failure_the_next_try_submits_the_next_generation(
        self, triggerer: Triggerer, connected: Standins, ti: Ti
    ) -> None:
        with pytest.raises(RemoteRunFailed):
            triggerer.run(lambda: make_task(CRASH), context_with_events(ti))
        assert triggerer.run(lambda: make_task(FACTS), context_with_events(ti.retried()))["version"] == 7
        assert jobs_of(connected, ti) == [1, 2]

    def test_a_cleared_task_runs_again(self, triggerer: Triggerer, connected: Standins, ti: Ti) -> None:
        triggerer.run(lambda: make_task(FACTS), context_with_events(ti))
        triggerer.run(lambda: make_task(FACTS), context_with_events(ti.cleared()))
        assert jobs_of(connected, ti) == [1, 1]

    def test_two_workers_at_once_are_one_job(self, connected: Standins, ti: Ti) -> None:
        """Names are unique in Azure ML: the second submission finds the first one's job."""
        from concurrent.futures import ThreadPoolExecutor

        tries = [Ti(dag_id=ti.dag_id, task_id=ti.task_id) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: deferred_by(make_task(SLOW), context_with_events(each)), tries))
        assert jobs_of(connected, ti) == [1]
        AzureMLHook().cancel(tries[0].xcoms["remote_run_id"])


class TestAKill:
    def ended(self, name: str) -> str:
        deadline = time.monotonic() + 20
        while not (run := AzureMLHook().get(name)).done:
            assert time.monotonic() < deadline, run.state
            time.sleep(0.1)
        return run.state

    def test_while_it_waits_cancels_the_job(self, triggerer: Triggerer, ti: Ti) -> None:
        deferred = deferred_by(make_task(SLOW), context_with_events(ti))
        triggerer.kill(deferred.trigger)
        assert self.ended(ti.xcoms["remote_run_id"]) == "Canceled"
        triggerer.kill(deferred.trigger)  # one that is over is no error

    def test_in_the_worker_cancels_the_job(self, ti: Ti) -> None:
        operator = make_task(SLOW)
        deferred_by(operator, context_with_events(ti))
        operator.on_kill()
        assert self.ended(ti.xcoms["remote_run_id"]) == "Canceled"
        operator.on_kill()

    def test_before_any_submission_does_nothing(self) -> None:
        make_task(SLOW).on_kill()


def test_a_log_is_empty_until_something_is_printed(ti: Ti) -> None:
    context = context_with_events(ti)
    deferred_by(make_task("sleep 5"), context)
    assert AzureMLHook().read_history(run_key(context)) == ("", "")
