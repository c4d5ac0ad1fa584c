"""Databricks runs of the `ml` wheel that are submitted once.

The provider's deferrable operator submits again on every retry unless it has an idempotency token, and with a fixed
token a retry after a failed run gets that failed run back. Here the token is the run key, whose generation changes only
after a failure. The provider's hook repeats a request after 429 and 5xx within a second or two, whatever Retry-After
says. Here it sends each request once (`ONCE`), and `RemoteRunOperator` repeats it. This subclass can be removed when
the provider chooses its tokens like this and honours Retry-After.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import tenacity
from airflow.providers.databricks.exceptions import DatabricksApiError
from airflow.providers.databricks.hooks.databricks import DatabricksHook
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from airflow.sdk.exceptions import AirflowSkipException

from mlops.partitions import day_of
from remote.operators import RemoteRunOperator
from remote.responses import read_response
from remote.runs import TIMED_OUT, VANISHED, RemoteRun, RemoteRunGone, facts_of, succeed_or_raise
from remote.triggers import RemoteRunTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

SERVICE = "Databricks"
ONCE: dict[str, Any] = {"stop": tenacity.stop_after_attempt(1), "reraise": True}  # no retries by the hook
DONE = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")


def _run_of(info: Mapping[str, Any]) -> RemoteRun:
    state = info["state"]
    return RemoteRun(
        service=SERVICE,
        run_id=str(info["run_id"]),
        state=state.get("result_state") or state["life_cycle_state"],
        done=state["life_cycle_state"] in DONE,
        succeeded=state.get("result_state") == "SUCCESS",
        detail=state.get("state_message") or "",
        url=info.get("run_page_url") or "",
    )


class DatabricksStageTrigger(RemoteRunTrigger):
    """Polls one Databricks run."""

    service = SERVICE

    def connect(self) -> DatabricksHook:
        return DatabricksHook(self.conn_id, retry_args=ONCE)

    async def poll(self, client: DatabricksHook) -> RemoteRun:
        try:
            return _run_of(await client.a_get_run(int(self.run_id)))
        except DatabricksApiError as error:
            response = read_response(error)
            if response and response.status == 400:  # the run id is the only parameter: Databricks does not know it
                raise RemoteRunGone(str(response)) from error
            raise

    async def cancel(self, client: DatabricksHook) -> str:
        from asgiref.sync import sync_to_async

        await sync_to_async(client.cancel_run)(int(self.run_id))
        return ""


class DatabricksStageOperator(RemoteRunOperator, DatabricksSubmitRunOperator):
    """Runs stages of the `ml` wheel one after the other in one Databricks run; returns their facts by stage.

    :param stages: stage name → its command line after `python -m ml`; `{run_key}` in an argument is replaced by the run key
    :param cluster: id of the cluster
    :param per_day: the run must have a day; without a partition key the task fails
    :param libraries: Databricks libraries to install; none when the wheel is part of the cluster
    :param timeout: seconds after which Databricks ends the run
    """

    service = SERVICE
    needs = (
        "check the Connection's token, and give its owner the permission Can Restart on the cluster (Compute > the "
        "cluster > Permissions)"
    )
    template_fields: Sequence[str] = ("stages", "existing_cluster_id", "libraries", "databricks_conn_id")
    operator_extra_links = RemoteRunOperator.operator_extra_links

    def __init__(
        self, *, stages: dict[str, list[str]], cluster: str, timeout: int, per_day: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(
            existing_cluster_id=cluster,
            timeout_seconds=timeout,
            deferrable=True,
            databricks_retry_args=ONCE,
            **kwargs,
        )
        self.stages = stages
        self.per_day = per_day

    def attach(self, context: Context) -> RemoteRun:
        if self.per_day:
            day_of(context)
        run = super().attach(context)
        self.run_id = int(run.run_id)
        return run

    def poll(self, run: RemoteRun) -> RemoteRun:
        return _run_of(self._hook.get_run(int(run.run_id)))

    def trigger(self, run: RemoteRun) -> DatabricksStageTrigger:
        # Databricks itself enforces the timeout; the trigger's longer deadline is for the case that it does not
        deadline = time.time() + 1.5 * int(self.timeout_seconds or 0) + 60
        return DatabricksStageTrigger(run.run_id, self.databricks_conn_id, deadline)

    def cancel_run(self) -> None:
        if self.run_id:
            self._hook.cancel_run(self.run_id)

    def find_or_submit(self, key: str) -> RemoteRun:
        # with the token, Databricks finds the run or submits it in one step
        request = {
            "run_name": key,
            "idempotency_token": key,
            "timeout_seconds": self.timeout_seconds,
            "tasks": self._tasks(key),
        }
        run = _run_of(self._hook.get_run(self._hook.submit_run(request)))
        self.log.info("Databricks run %s (%s) has run key %s", run.run_id, run.state, key)
        return run

    def _tasks(self, key: str) -> list[dict[str, Any]]:
        tasks: list[dict[str, Any]] = []
        for name, arguments in self.stages.items():
            task: dict[str, Any] = {
                "task_key": name,
                "existing_cluster_id": self.existing_cluster_id,
                "python_wheel_task": {
                    "package_name": "ml",
                    "entry_point": "ml",
                    "parameters": [argument.replace("{run_key}", key) for argument in arguments],
                },
            }
            if self.libraries:
                task["libraries"] = self.libraries
            if tasks:
                task["depends_on"] = [{"task_key": tasks[-1]["task_key"]}]
            tasks.append(task)
        return tasks

    def finish(self, context: Context, run: RemoteRun) -> dict[str, Any]:  # noqa: ARG002 (other operators use it)
        facts: dict[str, Any] = {}
        if run.state in (VANISHED, TIMED_OUT):  # its stages have no output to read
            return succeed_or_raise(run, facts)
        for task in self._hook.get_run(int(run.run_id)).get("tasks", []):
            task_run = _run_of(task)
            if not task_run.done or task["state"].get("result_state") == "UPSTREAM_FAILED":
                continue
            output = self._hook.get_run_output(task["run_id"])
            facts[task["task_key"]] = facts_of(output.get("logs") or "")
            if task_run.failed:
                why = output.get("error") or task_run.detail
                failed = replace(run, detail=f"stage {task['task_key']}: {why}", succeeded=False)
                return succeed_or_raise(failed, facts[task["task_key"]])
        facts = succeed_or_raise(run, facts)
        for stage, stage_facts in facts.items():
            if why := stage_facts.get("skipped"):
                raise AirflowSkipException(f"{stage}: {why}")
        return facts
