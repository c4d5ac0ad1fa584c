"""Cancels a job of Azure ML and waits until it has ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from azure_ml.hook import SERVICE, AzureMLHook
from azure_ml.operators.base import AzureMLJobOperator
from azure_ml.triggers import AzureMLJobTrigger
from remote.operators import RemoteRunOperator
from remote.runs import RemoteRun

if TYPE_CHECKING:
    from airflow.sdk import Context


class AzureMLCancelJobOperator(RemoteRunOperator, BaseOperator):
    """Cancels a job of any type and waits without a worker until it is over. Returns the job and its final state.

    A job that is over already stays as it is, whatever its outcome.

    :param job_name: the job's name; that of another task's job is `ti.xcom_pull(task_ids=…, key="remote_run_id")`
    :param timeout: seconds that the service may take to cancel it
    """

    service = SERVICE
    needs = AzureMLJobOperator.needs
    template_fields: Sequence[str] = ("job_name", "conn_id")
    ui_color = AzureMLJobOperator.ui_color
    ui_fgcolor = AzureMLJobOperator.ui_fgcolor

    def __init__(
        self, *, job_name: str, timeout: int = 600, conn_id: str = AzureMLHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.timeout = timeout
        self.conn_id = conn_id

    def attach(self, context: Context) -> RemoteRun:  # noqa: ARG002 (the job does not depend on it)
        hook = AzureMLHook(self.conn_id)
        hook.cancel(self.job_name)
        return hook.get(self.job_name)

    def trigger(self, run: RemoteRun) -> AzureMLJobTrigger:
        return AzureMLJobTrigger(run.run_id, self.conn_id, time.time() + self.timeout, follow_log=False)

    def cancel_run(self) -> None:
        """A person who kills this task still wants the job cancelled: nothing to undo."""

    def finish(self, context: Context, run: RemoteRun) -> dict[str, Any]:  # noqa: ARG002
        return {"job": run.run_id, "state": run.state}
