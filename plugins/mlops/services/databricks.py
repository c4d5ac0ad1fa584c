"""Databricks runs of the `ml` wheel that are submitted once.

The provider's deferrable operator submits again on every retry unless it has an idempotency token, and with a fixed
token a retry after a failed run gets that failed run back. Here the token is the run key, whose generation changes only
after a failure. The provider's hook repeats a request after 429 and 5xx within a second or two, whatever Retry-After
says. Here it sends each request once, and `RemoteRunOperator` repeats it. This operator uses the provider's hook, and
can be removed when the provider's operator chooses its tokens like this and honours Retry-After. The hook is imported
only when needed: its import takes 0.3 s, and each start of any task reads the Dag's file again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from mlops.partitions import day_of
from remote.operators import RemoteRunOperator
from remote.responses import read_response
from remote.runs import TIMED_OUT, VANISHED, RemoteRun, RemoteRunGone, facts_of, succeed_or_raise
from remote.triggers import RemoteRunTrigger

if TYPE_CHECKING:
    from airflow.providers.databricks.hooks.databricks import DatabricksHook
    from airflow.sdk import Context

SERVICE = "Databricks"
DONE = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")


def _hook(conn_id: str) -> DatabricksHook:
    """The provider's hook, which sends each request once."""
    import tenacity
    from airflow.providers.databricks.hooks.databricks import DatabricksHook

    return DatabricksHook(conn_id, retry_args={"stop": tenacity.stop_after_attempt(1), "reraise": True})


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
        return _hook(self.conn_id)

    async def poll(self, client: DatabricksHook) -> RemoteRun:
        from airflow.providers.databricks.exceptions import DatabricksApiError

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


class DatabricksStageOperator(RemoteRunOperator, BaseOperator):
    """Runs stages of the `ml` wheel one after the other in one Databricks run; returns their facts by stage.

    :param stages: stage name → its command line after `python -m ml`; `{run_key}` in an argument is replaced by the run
        key, and an argument that is empty once its template is filled in is left out
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
    template_fields: Sequence[str] = ("stages", "cluster", "libraries", "conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"stages": "json"}
    ui_color = "#1cb1c2"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        stages: dict[str, list[str]],
        cluster: str,
        timeout: int,
        per_day: bool = True,
        libraries: list[dict[str, Any]] | None = None,
        conn_id: str = "databricks_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stages = stages
        self.cluster = cluster
        self.timeout = timeout
        self.per_day = per_day
        self.libraries = libraries
        self.conn_id = conn_id
        self.run_id: int | None = None

    @cached_property
    def hook(self) -> DatabricksHook:
        return _hook(self.conn_id)

    def attach(self, context: Context) -> RemoteRun:
        if self.per_day:
            day_of(context)
        run = super().attach(context)
        self.run_id = int(run.run_id)
        return run

    def poll(self, run: RemoteRun) -> RemoteRun:
        return _run_of(self.hook.get_run(int(run.run_id)))

    def trigger(self, run: RemoteRun) -> DatabricksStageTrigger:
        # Databricks itself enforces the timeout; the trigger's longer deadline is for the case that it does not
        deadline = time.time() + 1.5 * self.timeout + 60
        return DatabricksStageTrigger(run.run_id, self.conn_id, deadline)

    def cancel_run(self) -> None:
        if self.run_id:
            self.hook.cancel_run(self.run_id)

    def find_or_submit(self, key: str) -> RemoteRun:
        # with the token, Databricks finds the run or submits it in one step
        request = {
            "run_name": key,
            "idempotency_token": key,
            "timeout_seconds": self.timeout,
            "tasks": self._tasks(key),
        }
        run = _run_of(self.hook.get_run(self.hook.submit_run(request)))
        self.log.info("Databricks run %s (%s) has run key %s", run.run_id, run.state, key)
        return run

    def _tasks(self, key: str) -> list[dict[str, Any]]:
        tasks: list[dict[str, Any]] = []
        for name, arguments in self.stages.items():
            task: dict[str, Any] = {
                "task_key": name,
                "existing_cluster_id": self.cluster,
                "python_wheel_task": {
                    "package_name": "ml",
                    "entry_point": "ml",
                    "parameters": [argument.replace("{run_key}", key) for argument in arguments if argument],
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
        for task in self.hook.get_run(int(run.run_id)).get("tasks", []):
            task_run = _run_of(task)
            if not task_run.done or task["state"].get("result_state") == "UPSTREAM_FAILED":
                continue
            output = self.hook.get_run_output(task["run_id"])
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
