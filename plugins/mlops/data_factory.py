"""A Data Factory pipeline run that is asked for once.

The provider's operator starts a second pipeline run whenever its worker dies after createRun, and
its trigger cancels the pipeline on any polling error and has no on_kill. Data Factory takes no id
from its client, but keeps a run's parameters: the run key goes in as the parameter `run_key` and is
looked for first. This operator works through the provider's hook and can go when the provider's
operator does the same. The hook is imported when needed: it costs 1.4 s, and each start of any task
reads the Dag's file again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from mlops.remote_runs import RemoteRun, RemoteRunLink, RemoteRunTrigger, show_link, succeed_or_raise
from mlops.run_keys import attach_or_submit

if TYPE_CHECKING:
    from airflow.providers.microsoft.azure.hooks.data_factory import AzureDataFactoryAsyncHook, AzureDataFactoryHook
    from airflow.sdk import Context
    from azure.mgmt.datafactory.models import ActivityRun, RunFilterParameters

MEMORY = timedelta(days=45)  # how long Data Factory keeps pipeline runs
PORTAL = "https://adf.azure.com"  # the Connection's extra `monitor_url` names another
OVER = ("Succeeded", "Failed", "Cancelled")
COUNTS = ("filesRead", "rowsRead", "rowsCopied", "rowsSkipped")


def _seen(run_id: str, status: str | None, message: str | None) -> RemoteRun:
    return RemoteRun(
        service="Data Factory",
        run_id=run_id,
        state=status or "unknown",
        done=status in OVER,
        succeeded=status == "Succeeded",
        detail=message or "",
    )


def _remembered() -> RunFilterParameters:
    from azure.mgmt.datafactory.models import RunFilterParameters

    now = datetime.now(UTC)
    return RunFilterParameters(last_updated_after=now - MEMORY, last_updated_before=now + timedelta(days=1))


class DataFactoryPipelineTrigger(RemoteRunTrigger):
    """Looks at one pipeline run; resource group and factory are the Connection's, which the hook takes for None."""

    def connect(self) -> AzureDataFactoryAsyncHook:
        from airflow.providers.microsoft.azure.hooks.data_factory import AzureDataFactoryAsyncHook

        return AzureDataFactoryAsyncHook(azure_data_factory_conn_id=self.conn_id)

    async def look(self, client: AzureDataFactoryAsyncHook) -> RemoteRun:
        run = await client.get_pipeline_run(self.run_id, None, None)
        return _seen(self.run_id, run.status, run.message)

    async def cancel(self, client: AzureDataFactoryAsyncHook) -> None:
        from azure.core.exceptions import HttpResponseError

        try:
            await client.cancel_pipeline_run(self.run_id, None, None)
        except HttpResponseError:  # as for a run that has ended meanwhile
            if not (await self.look(client)).done:
                raise


class DataFactoryPipelineOperator(BaseOperator):
    """Runs a pipeline once per run key, waits without a worker, and names the activities that failed.

    Returns the sums over its Copy activities: `{"filesRead", "rowsRead", "rowsCopied", "rowsSkipped"}`;
    the run key is the XCom `run_key`. Resource group and factory are those of the Connection.

    :param pipeline: name of the pipeline
    :param parameters: pipeline parameters; `run_key` is added, and `{run_key}` in a value becomes it
    :param timeout: seconds after which the pipeline run is cancelled
    """

    template_fields: Sequence[str] = ("pipeline", "parameters", "conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}
    operator_extra_links = (RemoteRunLink(),)
    ui_color = "#0678d4"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        pipeline: str,
        parameters: dict[str, str],
        timeout: int,
        conn_id: str = "azure_data_factory_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.parameters = parameters
        self.timeout = timeout
        self.conn_id = conn_id
        self.run_id: str | None = None
        self.run_key = ""

    @cached_property
    def hook(self) -> AzureDataFactoryHook:
        from airflow.providers.microsoft.azure.hooks.data_factory import AzureDataFactoryHook

        return AzureDataFactoryHook(azure_data_factory_conn_id=self.conn_id)

    def execute(self, context: Context) -> Any:
        self._read_connection()
        run = attach_or_submit(context, self._find_or_create, lambda run: run.failed)
        self.run_id = run.run_id
        run = self._with_url(run)
        show_link(context, run)
        context["ti"].xcom_push(key="run_key", value=self.run_key)
        if run.done:
            return self._finish(run)
        deadline = time.time() + self.timeout
        trigger = DataFactoryPipelineTrigger(run.run_id, self.conn_id, deadline)
        return self.defer(trigger=trigger, method_name="execute_complete")

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, int]:  # noqa: ARG002 (Airflow's)
        self._read_connection()
        return self._finish(self._with_url(RemoteRun(**event)))

    def on_kill(self) -> None:
        from azure.core.exceptions import HttpResponseError

        if not self.run_id:
            return
        place = (self.resource_group_name, self.factory_name)
        try:
            self.hook.cancel_pipeline_run(self.run_id, *place)
        except HttpResponseError:  # as for a run that has ended meanwhile
            if self.hook.get_pipeline_run(self.run_id, *place).status not in OVER:
                raise

    def _read_connection(self) -> None:
        self.extra: dict[str, Any] = self.hook.get_connection(self.conn_id).extra_dejson
        self.resource_group_name = self.extra["resource_group_name"]
        self.factory_name = self.extra["factory_name"]

    def _find_or_create(self, key: str) -> RemoteRun:
        self.run_key = key
        found = self._find(key)
        if found:
            self.log.info("Attached to pipeline run %s (%s), which has run key %s", found.run_id, found.state, key)
            return found
        parameters = {name: value.replace("{run_key}", key) for name, value in self.parameters.items()}
        created = self.hook.run_pipeline(
            self.pipeline, self.resource_group_name, self.factory_name, parameters=parameters | {"run_key": key}
        )
        self.log.info("Started pipeline run %s with run key %s", created.run_id, key)
        return _seen(created.run_id, "Queued", None)

    def _find(self, key: str) -> RemoteRun | None:
        from azure.mgmt.datafactory.models import RunQueryFilter

        wanted = _remembered()
        wanted.filters = [RunQueryFilter(operand="PipelineName", operator="Equals", values_property=[self.pipeline])]
        runs = self.hook.get_conn().pipeline_runs
        while True:
            page = runs.query_by_factory(self.resource_group_name, self.factory_name, wanted)
            for run in page.value:
                if (run.parameters or {}).get("run_key") == key:
                    return _seen(run.run_id, run.status, run.message)
            if not page.continuation_token:
                return None
            wanted.continuation_token = page.continuation_token

    def _activities(self, run_id: str) -> list[ActivityRun]:
        query = self.hook.get_conn().activity_runs.query_by_pipeline_run
        return list(query(self.resource_group_name, self.factory_name, run_id, _remembered()).value)

    def _finish(self, run: RemoteRun) -> dict[str, int]:
        activities = self._activities(run.run_id)
        broken = [
            f"activity {activity.activity_name} failed: {(activity.error or {}).get('message') or 'no message'}"
            for activity in activities
            if activity.status == "Failed"
        ]
        if broken and run.state == "Failed":  # the run's own message tells of one activity only
            run = replace(run, detail="; ".join(broken))
        outputs = [activity.output or {} for activity in activities]
        return succeed_or_raise(run, {name: sum(int(out.get(name) or 0) for out in outputs) for name in COUNTS})

    def _with_url(self, run: RemoteRun) -> RemoteRun:
        factory = (
            f"/subscriptions/{self.extra['subscriptionId']}/resourceGroups/{self.resource_group_name}"
            f"/providers/Microsoft.DataFactory/factories/{self.factory_name}"
        )
        base = self.extra.get("monitor_url", PORTAL).rstrip("/")
        return replace(run, url=f"{base}/en/monitoring/pipelineruns/{run.run_id}?factory={factory}")
