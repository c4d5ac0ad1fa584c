"""A Data Factory pipeline run that is asked for once.

The provider's operator starts a second pipeline run whenever its worker dies after createRun, and
its trigger cancels the pipeline on any polling error and has no on_kill. Data Factory takes no id
from its client, but keeps a run's parameters: the run key goes in as the parameter `run_key` and is
looked for first. This operator works through the provider's hook and can go when the provider's
operator does the same. The hook is imported when needed: it costs 1.4 s, and each start of any task
reads the Dag's file again.

createRun is not idempotent, so nothing below may repeat it: azure-core by itself sends a POST again after
a 500, 503 or 504, though the run may be there (`retry_total=0`). Before it is sent, that is noted down in
Airflow's task state store; while the note is young, a run that is not found is looked for again, because
the list of runs may lag behind the runs, and only then asked for again. What remains: two workers of one
task that both find nothing and ask within the same second, which Airflow does not start.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from remote.operators import RemoteRunOperator
from remote.responses import read_answer
from remote.runs import VANISHED, RemoteRun, succeed_or_raise
from remote.triggers import RemoteRunTrigger

if TYPE_CHECKING:
    from airflow.providers.microsoft.azure.hooks.data_factory import AzureDataFactoryHook
    from airflow.sdk import Context
    from azure.mgmt.datafactory.aio import DataFactoryManagementClient as AsyncClient
    from azure.mgmt.datafactory.models import ActivityRun, RunFilterParameters

MEMORY = timedelta(days=45)  # how long Data Factory keeps pipeline runs
PORTAL = "https://adf.azure.com"  # the Connection's extra `monitor_url` names another
OVER = ("Succeeded", "Failed", "Cancelled")
LISTED_WITHIN = 30.0  # seconds after createRun in which the list of runs may not show the run yet
ONCE: dict[str, Any] = {"retry_total": 0}  # azure-core is not to repeat: patience is ours, and so is Retry-After
SERVICE = "Data Factory"
COUNTS = ("filesRead", "rowsRead", "rowsCopied", "rowsSkipped")


def _seen(run_id: str, status: str | None, message: str | None) -> RemoteRun:
    return RemoteRun(
        service=SERVICE,
        run_id=run_id,
        state=status or "unknown",
        done=status in OVER,
        succeeded=status == "Succeeded",
        detail=message or "",
    )


def _window(since: datetime | None = None) -> RunFilterParameters:
    """The runs that were going on since then; all that Data Factory keeps when no time is given."""
    from azure.mgmt.datafactory.models import RunFilterParameters

    now = datetime.now(UTC)
    first = max(now - MEMORY, since - timedelta(hours=1) if since else now - MEMORY)  # an hour for wrong clocks
    return RunFilterParameters(last_updated_after=first, last_updated_before=now + timedelta(days=1))


class NotListedYet(ConnectionError):  # noqa: N818 (it says what is so)
    """A run was asked for with an outcome that is unknown, and the list of runs may not show it yet."""


@dataclass
class Factory:
    """A client and the factory that its Connection names."""

    client: AsyncClient
    place: tuple[str, str]


class DataFactoryPipelineTrigger(RemoteRunTrigger):
    """Looks at one pipeline run; resource group and factory are the Connection's."""

    service = SERVICE

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Factory]:  # type: ignore[override]
        from airflow.providers.common.compat.connection import get_async_connection
        from airflow.providers.microsoft.azure.hooks.data_factory import AzureDataFactoryAsyncHook

        extra = json.loads((await get_async_connection(self.conn_id)).extra or "{}")
        async with AzureDataFactoryAsyncHook(azure_data_factory_conn_id=self.conn_id) as hook:
            yield Factory(await hook.get_async_conn(), (extra["resource_group_name"], extra["factory_name"]))

    async def look(self, client: Factory) -> RemoteRun:
        run = await client.client.pipeline_runs.get(*client.place, self.run_id, **ONCE)
        return _seen(self.run_id, run.status, run.message)

    async def cancel(self, client: Factory) -> str:
        from azure.core.exceptions import HttpResponseError

        try:
            await client.client.pipeline_runs.cancel(*client.place, self.run_id, **ONCE)
        except HttpResponseError:  # as for a run that has ended meanwhile
            if not (await self.look(client)).done:
                raise
        return ""


class DataFactoryPipelineOperator(RemoteRunOperator, BaseOperator):
    """Runs a pipeline once per run key, waits without a worker, and names the activities that failed.

    Returns the sums over its Copy activities: `{"filesRead", "rowsRead", "rowsCopied", "rowsSkipped"}`;
    the run key is the XCom `run_key`. Resource group and factory are those of the Connection.

    :param pipeline: name of the pipeline
    :param parameters: pipeline parameters; `run_key` is added, and `{run_key}` in a value becomes it
    :param timeout: seconds after which the pipeline run is cancelled
    """

    service = SERVICE
    needs = (
        "check client id and secret of the Connection, and give that client the role Data Factory Contributor on the "
        "factory"
    )
    template_fields: Sequence[str] = ("pipeline", "parameters", "conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}
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

    @cached_property
    def hook(self) -> AzureDataFactoryHook:
        from airflow.providers.microsoft.azure.hooks.data_factory import AzureDataFactoryHook

        return AzureDataFactoryHook(azure_data_factory_conn_id=self.conn_id)

    def attach(self, context: Context) -> RemoteRun:
        self._since = context["dag_run"].start_date
        self._notes = context["task_state_store"]
        run = super().attach(context)
        self.run_id = run.run_id
        context["ti"].xcom_push(key="run_key", value=self.run_key)
        return replace(run, url=self.url(run.run_id))

    def look(self, run: RemoteRun) -> RemoteRun:
        now = self.hook.get_conn().pipeline_runs.get(*self._place, run.run_id, **ONCE)
        return _seen(run.run_id, now.status, now.message)

    def trigger(self, run: RemoteRun) -> DataFactoryPipelineTrigger:
        return DataFactoryPipelineTrigger(run.run_id, self.conn_id, time.time() + self.timeout)

    def cancel_run(self) -> None:
        from azure.core.exceptions import HttpResponseError

        if not self.run_id:
            return
        runs = self.hook.get_conn().pipeline_runs
        try:
            runs.cancel(*self._place, self.run_id, **ONCE)
        except HttpResponseError:  # as for a run that has ended meanwhile
            if runs.get(*self._place, self.run_id, **ONCE).status not in OVER:
                raise

    @cached_property
    def _extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = self.hook.get_connection(self.conn_id).extra_dejson
        return extra

    @property
    def _place(self) -> tuple[str, str]:
        return self._extra["resource_group_name"], self._extra["factory_name"]

    def find_or_submit(self, key: str) -> RemoteRun:
        found = self._find(key)
        if found:
            self.log.info("Attached to pipeline run %s (%s), which has run key %s", found.run_id, found.state, key)
            return found
        asked_at, note = time.time(), f"{key}/asked"
        before = self._notes.get(note)
        if before is not None and asked_at - before < LISTED_WITHIN:
            raise NotListedYet(
                f"pipeline {self.pipeline} was asked for {asked_at - before:.0f} s ago with run key {key}, and the "
                f"answer was lost; the list of runs does not show it. It is looked for until {LISTED_WITHIN:.0f} s "
                "are over, and then asked for again"
            )
        self._notes.set(note, asked_at)
        parameters = {name: value.replace("{run_key}", key) for name, value in self.parameters.items()} | {
            "run_key": key
        }
        try:
            created = self.hook.get_conn().pipelines.create_run(
                *self._place, self.pipeline, parameters=parameters, **ONCE
            )
        except Exception as error:
            answer = read_answer(error)
            if answer and answer.not_done:
                self._notes.delete(note)
            raise
        self.log.info("Started pipeline run %s with run key %s", created.run_id, key)
        return _seen(created.run_id, "Queued", None)

    def _find(self, key: str) -> RemoteRun | None:
        from azure.mgmt.datafactory.models import RunQueryFilter, RunQueryOrderBy

        wanted = _window(self._since)
        wanted.filters = [RunQueryFilter(operand="PipelineName", operator="Equals", values_property=[self.pipeline])]
        wanted.order_by = [RunQueryOrderBy(order_by="RunStart", order="DESC")]
        runs = self.hook.get_conn().pipeline_runs
        while True:
            page = runs.query_by_factory(*self._place, wanted, **ONCE)
            for run in page.value:
                if (run.parameters or {}).get("run_key") == key:
                    return _seen(run.run_id, run.status, run.message)
            if not page.continuation_token:
                return None
            wanted.continuation_token = page.continuation_token

    def _activities(self, run_id: str) -> list[ActivityRun]:
        query = self.hook.get_conn().activity_runs.query_by_pipeline_run
        return list(query(*self._place, run_id, _window(), **ONCE).value)

    def finish(self, context: Context, run: RemoteRun) -> dict[str, int]:  # noqa: ARG002 (others hand facts on)
        activities = [] if run.state == VANISHED else self._activities(run.run_id)
        broken = [
            f"activity {activity.activity_name} failed: {(activity.error or {}).get('message') or 'no message'}"
            for activity in activities
            if activity.status == "Failed"
        ]
        if broken and run.state == "Failed":  # the run's own message tells of one activity only
            run = replace(run, detail="; ".join(broken))
        outputs = [activity.output or {} for activity in activities]
        return succeed_or_raise(run, {name: sum(int(out.get(name) or 0) for out in outputs) for name in COUNTS})

    def url(self, run_id: str) -> str:
        factory = "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.DataFactory/factories/{}".format(
            self._extra["subscriptionId"], *self._place
        )
        base = self._extra.get("monitor_url", PORTAL).rstrip("/")
        return f"{base}/en/monitoring/pipelineruns/{run_id}?factory={factory}"
