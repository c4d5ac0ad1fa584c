"""Data Factory pipeline runs that are submitted once.

The provider's operator starts a second pipeline run whenever its worker dies after createRun, and its trigger cancels
the pipeline on any polling error and has no on_kill. Data Factory accepts no run id from its client, but keeps a run's
parameters: the run key is the parameter `run_key`, and is looked up before each submission. This operator uses the
provider's hook, and can be removed when the provider's operator does the same. The hook is imported only when needed:
its import takes 1.4 s, and each start of any task reads the Dag's file again.

createRun is not idempotent, so nothing below may repeat it. By itself, azure-core repeats a POST after a 500, 503 or
504, although the run may exist (`retry_total=0` prevents that). Each submission is noted in Airflow's task state store
before it is sent. While that note is young and the run is not found, the operator searches again, because the list of
runs may lag behind the runs; only then it submits again. One gap remains: two workers of one task that both find no run
and submit within the same second. Airflow does not start two workers of one task.
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
from remote.responses import read_response
from remote.runs import VANISHED, RemoteRun, succeed_or_raise
from remote.triggers import RemoteRunTrigger

if TYPE_CHECKING:
    from airflow.providers.microsoft.azure.hooks.data_factory import AzureDataFactoryHook
    from airflow.sdk import Context
    from azure.mgmt.datafactory.aio import DataFactoryManagementClient as AsyncClient
    from azure.mgmt.datafactory.models import ActivityRun, RunFilterParameters

RETENTION = timedelta(days=45)  # how long Data Factory keeps pipeline runs
PORTAL = "https://adf.azure.com"  # the Connection's extra `monitor_url` names another
DONE = ("Succeeded", "Failed", "Cancelled")
LISTED_WITHIN = 30.0  # seconds after createRun in which the list of runs may not show the run yet
ONCE: dict[str, Any] = {"retry_total": 0}  # azure-core must not repeat: this operator does, and it honours Retry-After
SERVICE = "Data Factory"
COUNTS = ("filesRead", "rowsRead", "rowsCopied", "rowsSkipped")


def _run_of(run_id: str, status: str | None, message: str | None) -> RemoteRun:
    return RemoteRun(
        service=SERVICE,
        run_id=run_id,
        state=status or "unknown",
        done=status in DONE,
        succeeded=status == "Succeeded",
        detail=message or "",
    )


def _window(since: datetime | None = None) -> RunFilterParameters:
    """A filter for the runs active since that time; by default for all runs that Data Factory keeps."""
    from azure.mgmt.datafactory.models import RunFilterParameters

    now = datetime.now(UTC)
    first = max(
        now - RETENTION, since - timedelta(hours=1) if since else now - RETENTION
    )  # an hour for clocks that differ
    return RunFilterParameters(last_updated_after=first, last_updated_before=now + timedelta(days=1))


class NotListedYet(ConnectionError):  # noqa: N818 (a state, not an error)
    """A submission has an unknown outcome, and the list of runs may not show its run yet."""


@dataclass
class Factory:
    """A client, and the factory that its Connection names."""

    client: AsyncClient
    name: tuple[str, str]  # resource group and factory


class DataFactoryPipelineTrigger(RemoteRunTrigger):
    """Polls one pipeline run; resource group and factory come from the Connection."""

    service = SERVICE

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Factory]:  # type: ignore[override]
        from airflow.providers.common.compat.connection import get_async_connection
        from airflow.providers.microsoft.azure.hooks.data_factory import AzureDataFactoryAsyncHook

        extra = json.loads((await get_async_connection(self.conn_id)).extra or "{}")
        async with AzureDataFactoryAsyncHook(azure_data_factory_conn_id=self.conn_id) as hook:
            yield Factory(await hook.get_async_conn(), (extra["resource_group_name"], extra["factory_name"]))

    async def poll(self, client: Factory) -> RemoteRun:
        run = await client.client.pipeline_runs.get(*client.name, self.run_id, **ONCE)
        return _run_of(self.run_id, run.status, run.message)

    async def cancel(self, client: Factory) -> str:
        from azure.core.exceptions import HttpResponseError

        try:
            await client.client.pipeline_runs.cancel(*client.name, self.run_id, **ONCE)
        except HttpResponseError:  # such as a run that has ended meanwhile
            if not (await self.poll(client)).done:
                raise
        return ""


class DataFactoryPipelineOperator(RemoteRunOperator, BaseOperator):
    """Runs a pipeline once per run key, waits without a worker, and names failed activities.

    Returns the sums over its Copy activities: `{"filesRead", "rowsRead", "rowsCopied", "rowsSkipped"}`.
    The run key is the XCom `run_key`. Resource group and factory come from the Connection.

    :param pipeline: name of the pipeline
    :param parameters: pipeline parameters; `run_key` is added; `{run_key}` in a value is replaced by it
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

    def poll(self, run: RemoteRun) -> RemoteRun:
        latest = self.hook.get_conn().pipeline_runs.get(*self._factory, run.run_id, **ONCE)
        return _run_of(run.run_id, latest.status, latest.message)

    def trigger(self, run: RemoteRun) -> DataFactoryPipelineTrigger:
        return DataFactoryPipelineTrigger(run.run_id, self.conn_id, time.time() + self.timeout)

    def cancel_run(self) -> None:
        from azure.core.exceptions import HttpResponseError

        if not self.run_id:
            return
        runs = self.hook.get_conn().pipeline_runs
        try:
            runs.cancel(*self._factory, self.run_id, **ONCE)
        except HttpResponseError:  # such as a run that has ended meanwhile
            if runs.get(*self._factory, self.run_id, **ONCE).status not in DONE:
                raise

    @cached_property
    def _extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = self.hook.get_connection(self.conn_id).extra_dejson
        return extra

    @property
    def _factory(self) -> tuple[str, str]:
        return self._extra["resource_group_name"], self._extra["factory_name"]

    def find_or_submit(self, key: str) -> RemoteRun:
        existing = self._find(key)
        if existing:
            self.log.info("Attached to pipeline run %s (%s) with run key %s", existing.run_id, existing.state, key)
            return existing
        now, note = time.time(), f"{key}/asked"
        submitted_at = self._notes.get(note)
        if submitted_at is not None and now - submitted_at < LISTED_WITHIN:
            raise NotListedYet(
                f"pipeline {self.pipeline} was submitted {now - submitted_at:.0f} s ago with run key {key}, and the "
                f"response was lost; the list of runs does not show it. It is searched for until {LISTED_WITHIN:.0f} s "
                "have passed, and then submitted again"
            )
        self._notes.set(note, now)
        parameters = {name: value.replace("{run_key}", key) for name, value in self.parameters.items()} | {
            "run_key": key
        }
        try:
            created = self.hook.get_conn().pipelines.create_run(
                *self._factory, self.pipeline, parameters=parameters, **ONCE
            )
        except Exception as error:
            response = read_response(error)
            if response and response.not_done:
                self._notes.delete(note)
            raise
        self.log.info("Started pipeline run %s with run key %s", created.run_id, key)
        return _run_of(created.run_id, "Queued", None)

    def _find(self, key: str) -> RemoteRun | None:
        from azure.mgmt.datafactory.models import RunQueryFilter, RunQueryOrderBy

        query = _window(self._since)
        query.filters = [RunQueryFilter(operand="PipelineName", operator="Equals", values_property=[self.pipeline])]
        query.order_by = [RunQueryOrderBy(order_by="RunStart", order="DESC")]
        runs = self.hook.get_conn().pipeline_runs
        while True:
            page = runs.query_by_factory(*self._factory, query, **ONCE)
            for run in page.value:
                if (run.parameters or {}).get("run_key") == key:
                    return _run_of(run.run_id, run.status, run.message)
            if not page.continuation_token:
                return None
            query.continuation_token = page.continuation_token

    def _activities(self, run_id: str) -> list[ActivityRun]:
        activity_runs = self.hook.get_conn().activity_runs
        return list(activity_runs.query_by_pipeline_run(*self._factory, run_id, _window(), **ONCE).value)

    def finish(self, context: Context, run: RemoteRun) -> dict[str, int]:  # noqa: ARG002 (other operators use it)
        activities = [] if run.state == VANISHED else self._activities(run.run_id)
        errors = [
            f"activity {activity.activity_name} failed: {(activity.error or {}).get('message') or 'no message'}"
            for activity in activities
            if activity.status == "Failed"
        ]
        if errors and run.state == "Failed":  # the run's own message names one activity only
            run = replace(run, detail="; ".join(errors))
        outputs = [activity.output or {} for activity in activities]
        return succeed_or_raise(run, {name: sum(int(output.get(name) or 0) for output in outputs) for name in COUNTS})

    def url(self, run_id: str) -> str:
        factory = "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.DataFactory/factories/{}".format(
            self._extra["subscriptionId"], *self._factory
        )
        base = self._extra.get("monitor_url", PORTAL).rstrip("/")
        return f"{base}/en/monitoring/pipelineruns/{run_id}?factory={factory}"
