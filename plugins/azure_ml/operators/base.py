"""What the operators of all Azure ML job types have in common."""

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

if TYPE_CHECKING:
    from airflow.sdk import Context
    from azure.ai.ml.entities import Job

LAST_LINES = 15  # of a failed job's log, told with its failure

Definition = dict[str, Any]


class AzureMLJobOperator(RemoteRunOperator, BaseOperator):
    """Runs a job once per run key and waits without a worker; what it returns is also the extra of its outlets' events.

    The job's name is the run key: asking twice is one job, a live one is attached to, a finished one is
    taken as it is, and only after a failed one is the next generation asked for.

    A job type says how a job is written (`definition`, in the words of Azure ML's YAML, which the SDK checks) and
    what a task returns of one that succeeded (`result`). In all texts of a definition `{run_key}` becomes the run key.

    :param compute: name of the compute that runs it
    :param experiment: experiment the job belongs to
    :param timeout: seconds after which the job is ended
    :param follow_log: whether the task's log tells what the job prints while it waits
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
        """The job as a dictionary, without what is the same for all: name, experiment, tags, compute."""

    def result(self, hook: AzureMLHook, run: RemoteRun, log: str) -> dict[str, Any]:  # noqa: ARG002 (for the others)
        """What a job that succeeded hands on: the facts that it printed last."""
        return facts_of(log)

    def load(self, definition: Definition) -> Job:
        """The SDK's job of a whole definition."""
        from io import StringIO

        from azure.ai.ml import load_job

        return load_job(StringIO(json.dumps(definition)))

    def attach(self, context: Context) -> RemoteRun:
        run = super().attach(context)
        self.job_name = run.run_id
        return run

    def trigger(self, run: RemoteRun) -> AzureMLJobTrigger:
        # Azure ML itself ends most jobs in time; the trigger's own limit is for a service that does not
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
            "compute": named(self.compute),
            "tags": {"run_key": key},
        }
        job = self.load(common | filled(self.definition(), key))
        run = AzureMLHook(self.conn_id).find_or_submit(job)
        self.log.info("Azure ML job %s is %s", run.run_id, run.state)
        return run

    def finish(self, context: Context, run: RemoteRun) -> dict[str, Any]:
        hook = AzureMLHook(self.conn_id)
        error, log = ("", "") if run.state == VANISHED else hook.read_history(run.run_id)
        if run.succeeded:
            facts = self.result(hook, run, log)
        else:
            log = log if run.state == VANISHED else self._log_of_the_failure(hook, run, log)
            tail = "\n".join(log.splitlines()[-LAST_LINES:])
            why = [run.detail, error, f"The end of its log:\n{tail}" if tail else ""]
            run = replace(run, detail=" ".join(part for part in why if part))
            facts = facts_of(log)
        facts = succeed_or_raise(run, facts)
        for asset in self.outlets:
            context["outlet_events"][asset].extra = facts
        return facts

    def _log_of_the_failure(self, hook: AzureMLHook, run: RemoteRun, log: str) -> str:
        """A job that is made of others tells little itself: the log of the first one that failed, if there is one."""
        for child in hook.children(run.run_id):
            if child.status == "Failed" and (found := hook.read_history(str(child.name))[1]):
                return found
        return log


def named(asset: str) -> str:
    """A reference as Azure ML's YAML writes it: `azureml:ml@latest`."""
    return asset if asset.startswith("azureml:") else f"azureml:{asset}"


def filled(value: Any, key: str) -> Any:
    """A definition with the run key in it, and without what is None: that is left to the service."""
    if isinstance(value, str):
        return value.replace("{run_key}", key)
    if isinstance(value, Mapping):
        return {name: filled(each, key) for name, each in value.items() if each is not None}
    if isinstance(value, Sequence):
        return [filled(each, key) for each in value]
    return value


def line(command: str | Sequence[str]) -> str:
    """A shell's line; of words, each one quoted."""
    return command if isinstance(command, str) else shlex.join(command)


def outcomes(jobs: Any) -> dict[str, int]:
    """How many jobs ended how."""
    return dict(Counter(status_of(job) for job in jobs))


def status_of(job: Job) -> str:
    return str(getattr(job.status, "value", job.status))
