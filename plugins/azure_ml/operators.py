"""Azure ML jobs as Airflow tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from azure_ml.hook import SERVICE, AzureMLHook
from azure_ml.triggers import AzureMLJobTrigger
from mlops.remote_operators import RemoteRunOperator
from mlops.remote_runs import VANISHED, RemoteRun, facts_of, succeed_or_raise

if TYPE_CHECKING:
    from airflow.sdk import Context

LAST_LINES = 15  # of a failed job's log, told with its failure


class AzureMLCommandJobOperator(RemoteRunOperator, BaseOperator):
    """Runs a command job once per run key and waits without a worker; returns the facts it printed last.

    The job's name is the run key: asking twice is one job, a live one is attached to, a finished one is
    taken as it is, and only after a failed one is the next generation asked for. The facts are also the
    extra of the events on the task's outlets.

    :param command: what the job runs; `{run_key}` becomes the run key
    :param environment: name@label or name:version of the job's environment
    :param compute: name of the compute that runs it
    :param experiment: experiment the job belongs to
    :param timeout: seconds after which Azure ML ends the job
    """

    service = SERVICE
    needs = (
        "check client id and secret of the Connection, and give that client the role AzureML Data Scientist on the "
        "workspace"
    )
    template_fields: Sequence[str] = ("command", "environment", "compute", "experiment", "conn_id")
    ui_color = "#0078d4"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        command: str,
        environment: str,
        compute: str,
        experiment: str,
        timeout: int,
        conn_id: str = AzureMLHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = command
        self.environment = environment
        self.compute = compute
        self.experiment = experiment
        self.timeout = timeout
        self.conn_id = conn_id
        self.job_name: str | None = None

    def attach(self, context: Context) -> RemoteRun:
        run = super().attach(context)
        self.job_name = run.run_id
        return run

    def trigger(self, run: RemoteRun) -> AzureMLJobTrigger:
        # Azure ML itself ends the job in time; the trigger's own limit is for a service that does not
        deadline = time.time() + 1.5 * self.timeout + 60
        return AzureMLJobTrigger(run.run_id, self.conn_id, deadline)

    def cancel_run(self) -> None:
        if self.job_name:
            AzureMLHook(self.conn_id).cancel(self.job_name)

    def find_or_submit(self, key: str) -> RemoteRun:
        from azure.ai.ml import command
        from azure.ai.ml.entities import CommandJobLimits

        job = command(
            name=key,
            display_name=key,
            experiment_name=self.experiment.strip("/").replace("/", "-"),  # Azure ML allows no slash
            command=self.command.replace("{run_key}", key),
            environment=self.environment,
            compute=self.compute,
            tags={"run_key": key},
        )
        job.limits = CommandJobLimits(timeout=self.timeout)
        run = AzureMLHook(self.conn_id).find_or_submit(job)
        self.log.info("Azure ML job %s is %s", run.run_id, run.state)
        return run

    def finish(self, context: Context, run: RemoteRun) -> dict[str, Any]:
        error, log = ("", "") if run.state == VANISHED else AzureMLHook(self.conn_id).read_history(run.run_id)
        if run.failed:
            tail = "\n".join(log.splitlines()[-LAST_LINES:])
            why = [run.detail, error, f"The end of its log:\n{tail}" if tail else ""]
            run = replace(run, detail=" ".join(part for part in why if part))
        facts = succeed_or_raise(run, facts_of(log))
        for asset in self.outlets:
            context["outlet_events"][asset].extra = facts
        return facts
