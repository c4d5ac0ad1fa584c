"""What the operators of all Azure ML job types share."""

from __future__ import annotations

import json
import shlex
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from azure_ml.hook import SERVICE, AzureMLHook
from azure_ml.triggers import AzureMLJobTrigger
from remote.links import ReportLink
from remote.operators import RemoteRunOperator
from remote.runs import VANISHED, RemoteRun, facts_of, succeed_or_raise

if TYPE_CHECKING:
    from airflow.sdk import Context
    from azure.ai.ml.entities import Job

LAST_LINES = 15  # of a failed job's log, as part of the error

Definition = dict[str, Any]


class AzureMLJobOperator(RemoteRunOperator, BaseOperator):
    """Runs a job once per run key and waits without a worker. Its result is also the extra of its outlets' events.

    The job's name is the run key: two submissions are one job. The task attaches to a running job, accepts a completed
    one, and submits the next generation only after a failed one.

    A job type defines the job (`definition`, in the terms of Azure ML's YAML, which the SDK checks) and the task's
    result for a job that succeeded (`result`). In all texts of a definition `{run_key}` is replaced by the run key.

    :param compute: name of the compute
    :param experiment: the job's experiment
    :param timeout: seconds after which the job is ended
    :param follow_log: copy the job's log into the task's log while it waits
    """

    service = SERVICE
    operator_extra_links = (*RemoteRunOperator.operator_extra_links, ReportLink())
    needs = (
        "check client id and secret of the Connection, and give that client the role AzureML Data Scientist on the "
        "workspace"
    )
    ui_color = "#0078d4"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        compute: str,
        experiment: str,
        timeout: int,
        follow_log: bool = True,
        conn_id: str = AzureMLHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.compute = compute
        self.experiment = experiment
        self.timeout = timeout
        self.follow_log = follow_log
        self.conn_id = conn_id
        self.job_name: str | None = None

    @abstractmethod
    def definition(self) -> Definition:
        """The job as a dictionary, without the keys that all types share: name, experiment, tags, compute."""

    def result(self, hook: AzureMLHook, run: RemoteRun, log: str) -> dict[str, Any]:  # noqa: ARG002 (other job types use it)
        """The result of a job that succeeded: by default the facts that it printed last."""
        return facts_of(log)

    def load(self, definition: Definition) -> Job:
        """The SDK's job for a complete definition."""
        from io import StringIO

        from azure.ai.ml import load_job

        return load_job(StringIO(json.dumps(definition)))

    def attach(self, context: Context) -> RemoteRun:
        run = super().attach(context)
        self.job_name = run.run_id
        return run

    def trigger(self, run: RemoteRun) -> AzureMLJobTrigger:
        # Azure ML itself enforces most jobs' timeout; the trigger's longer deadline is for the case that it does not
        deadline = time.time() + 1.5 * self.timeout + 60
        return AzureMLJobTrigger(run.run_id, self.conn_id, deadline, self.follow_log)

    def cancel_run(self) -> None:
        if self.job_name:
            AzureMLHook(self.conn_id).cancel(self.job_name)

    def find_or_submit(self, key: str) -> RemoteRun:
        common = {
            "name": key,
            "display_name": key,
            "experiment_name": self.experiment.strip("/").replace("/", "-"),  # Azure ML allows no slash
            "compute": asset_reference(self.compute),
            "tags": {"run_key": key},
        }
        job = self.load(common | fill_run_key(self.definition(), key))
        run = AzureMLHook(self.conn_id).find_or_submit(job)
        self.log.info("Azure ML job %s is %s", run.run_id, run.state)
        return run

    def finish(self, context: Context, run: RemoteRun) -> dict[str, Any]:
        hook = AzureMLHook(self.conn_id)
        error, log = ("", "") if run.state == VANISHED else hook.read_history(run.run_id)
        if run.succeeded:
            facts = self.result(hook, run, log)
        else:
            log = log if run.state == VANISHED else self._failure_log(hook, run, log)
            tail = "\n".join(log.splitlines()[-LAST_LINES:])
            details = [run.detail, error, f"The end of its log:\n{tail}" if tail else ""]
            run = replace(run, detail=" ".join(detail for detail in details if detail))
            facts = facts_of(log)
        facts = succeed_or_raise(run, facts)
        for asset in self.outlets:
            context["outlet_events"][asset].extra = facts
        return facts

    def _failure_log(self, hook: AzureMLHook, run: RemoteRun, log: str) -> str:
        """The log of the first failed child job, which says more than its parent's; else the job's own log."""
        for child in hook.children(run.run_id):
            if child.status == "Failed" and (child_log := hook.read_history(str(child.name))[1]):
                return child_log
        return log


def asset_reference(asset: str) -> str:
    """A reference to an asset in the form of Azure ML's YAML: `azureml:ml@latest`."""
    return asset if asset.startswith("azureml:") else f"azureml:{asset}"


def fill_run_key(value: Any, key: str) -> Any:
    """A definition with `{run_key}` replaced, and without keys whose value is None: the service's defaults apply."""
    if isinstance(value, str):
        return value.replace("{run_key}", key)
    if isinstance(value, Mapping):
        return {name: fill_run_key(each, key) for name, each in value.items() if each is not None}
    if isinstance(value, Sequence):
        return [fill_run_key(each, key) for each in value]
    return value


def shell_line(command: str | Sequence[str]) -> str:
    """A command as one shell line; the words of a sequence are quoted."""
    return command if isinstance(command, str) else shlex.join(command)


def count_outcomes(jobs: Any) -> dict[str, int]:
    """The number of jobs per final status."""
    return dict(Counter(status_of(job) for job in jobs))


def status_of(job: Job) -> str:
    return str(getattr(job.status, "value", job.status))
