"""A Databricks run of the `ml` wheel that is asked for once.

The provider's deferrable operator submits again on every retry unless it is given an idempotency
token, and with a fixed token a retry after a failed run gets that failed run back. Here the token is
the run key, whose generation moves on only after a failure. The provider's hook repeats a request after
429 and 5xx within a second or two, whatever Retry-After says; here it asks once (`ONCE`), and patience is
ours. This subclass can go when the provider chooses tokens so and waits as it is told.
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
from remote.responses import read_answer
from remote.runs import TIMED_OUT, VANISHED, RemoteRun, RemoteRunGone, facts_of, succeed_or_raise
from remote.triggers import RemoteRunTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

SERVICE = "Databricks"
ONCE: dict[str, Any] = {"stop": tenacity.stop_after_attempt(1), "reraise": True}  # the hook's own patience
OVER = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")


def _seen(info: Mapping[str, Any]) -> RemoteRun:
    state = info["state"]
    return RemoteRun(
        service=SERVICE,
        run_id=str(info["run_id"]),
        state=state.get("result_state") or state["life_cycle_state"],
        done=state["life_cycle_state"] in OVER,
        succeeded=state.get("result_state") == "SUCCESS",
        detail=state.get("state_message") or "",
        url=info.get("run_page_url") or "",
    )


class DatabricksStageTrigger(RemoteRunTrigger):
    """Looks at one Databricks run."""

    service = SERVICE

    def connect(self) -> DatabricksHook:
        return DatabricksHook(self.conn_id, retry_args=ONCE)

    async def look(self, client: DatabricksHook) -> RemoteRun:
        try:
            return _seen(await client.a_get_run(int(self.run_id)))
        except DatabricksApiError as error:
            answer = read_answer(error)
            if answer and answer.status == 400:  # all that was asked is one number, and Databricks does not know it
                raise RemoteRunGone(str(answer)) from error
            raise

    async def cancel(self, client: DatabricksHook) -> str:
        from asgiref.sync import sync_to_async

        await sync_to_async(client.cancel_run)(int(self.run_id))
        return ""


class DatabricksStageOperator(RemoteRunOperator, DatabricksSubmitRunOperator):
    """Runs stages of the `ml` wheel one after the other in one Databricks run; returns their facts by stage.

    :param stages: stage name → its command line after `python -m ml`; `{run_key}` in an argument becomes the run key
    :param cluster: id of the cluster that runs them
    :param per_day: the run has a day; started without one (a trigger without partition key) the task fails
    :param libraries: Databricks libraries to install; none when the cluster brings the wheel
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

    def look(self, run: RemoteRun) -> RemoteRun:
        return _seen(self._hook.get_run(int(run.run_id)))

    def trigger(self, run: RemoteRun) -> DatabricksStageTrigger:
        # Databricks itself ends the run in time; the trigger's own limit is for a service that does not
        deadline = time.time() + 1.5 * int(self.timeout_seconds or 0) + 60
        return DatabricksStageTrigger(run.run_id, self.databricks_conn_id, deadline)

    def cancel_run(self) -> None:
        if self.run_id:
            self._hook.cancel_run(self.run_id)

    def find_or_submit(self, key: str) -> RemoteRun:
        # the token makes asking and finding one step on Databricks' side
        submitted = {
            "run_name": key,
            "idempotency_token": key,
            "timeout_seconds": self.timeout_seconds,
            "tasks": self._tasks(key),
        }
        run = _seen(self._hook.get_run(self._hook.submit_run(submitted)))
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

    def finish(self, context: Context, run: RemoteRun) -> dict[str, Any]:  # noqa: ARG002 (others hand facts on)
        facts: dict[str, Any] = {}
        if run.state in (VANISHED, TIMED_OUT):  # its stages have no more to tell
            return succeed_or_raise(run, facts)
        for task in self._hook.get_run(int(run.run_id)).get("tasks", []):
            seen = _seen(task)
            if not seen.done or task["state"].get("result_state") == "UPSTREAM_FAILED":
                continue
            output = self._hook.get_run_output(task["run_id"])
            facts[task["task_key"]] = facts_of(output.get("logs") or "")
            if seen.failed:
                why = output.get("error") or seen.detail
                failed = replace(run, detail=f"stage {task['task_key']}: {why}", succeeded=False)
                return succeed_or_raise(failed, facts[task["task_key"]])
        facts = succeed_or_raise(run, facts)
        for stage, told in facts.items():
            if why := told.get("skipped"):
                raise AirflowSkipException(f"{stage}: {why}")
        return facts
