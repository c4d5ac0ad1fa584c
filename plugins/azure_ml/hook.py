"""Azure ML through its own SDK, `azure-ai-ml`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from azure_ml.history import RunHistory
from remote.runs import RemoteRun

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Job

SERVICE = "Azure ML"
DONE = ("Completed", "Failed", "Canceled")
CANCEL_TIMEOUT = 20  # seconds to wait for the confirmation of a cancel request, which takes effect without it too


def make_client(conn: Connection) -> MLClient:
    """The SDK's client for the workspace that a Connection names.

    The Connection has login and password = client id and secret (neither: the machine's identity) and the
    extra `{"tenantId", "subscriptionId", "resource_group", "workspace"}`.
    """
    from azure.ai.ml import MLClient
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    extra: dict[str, Any] = json.loads(conn.extra or "{}")
    credential: Any = DefaultAzureCredential()
    if conn.login and conn.password:
        credential = ClientSecretCredential(extra["tenantId"], conn.login, conn.password)
    return MLClient(
        credential,
        extra["subscriptionId"],
        extra["resource_group"],
        extra["workspace"],
        enable_telemetry=False,
        retry_total=0,  # azure-core must not repeat: the operator and the trigger do
    )


def run_of(job: Job) -> RemoteRun:
    """The state of a job as a RemoteRun."""
    studio = (job.services or {}).get("Studio")
    state = getattr(job.status, "value", job.status)  # an enumeration for the states that the SDK knows, else text
    return RemoteRun(
        service=SERVICE,
        run_id=str(job.name),
        state=str(state),
        done=state in DONE,
        succeeded=state == "Completed",
        url=getattr(studio, "endpoint", None) or "",
    )


class AzureMLHook(BaseHook):
    """Jobs of one Azure ML workspace.

    :param conn_id: a Connection as `make_client` expects it
    """

    conn_name_attr = "azure_ml_conn_id"
    default_conn_name = "azure_ml_default"
    conn_type = "azure_ml"
    hook_name = "Azure ML"

    def __init__(self, conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.conn_id = conn_id
        self._client: MLClient | None = None
        self._history: RunHistory | None = None

    def get_conn(self) -> MLClient:
        if self._client is None:
            self._client = make_client(self.get_connection(self.conn_id))
        return self._client

    def find_or_submit(self, job: Job) -> RemoteRun:
        """The job of that name; submitted when there is none. Names are unique in Azure ML, so a race gives one job."""
        from azure.core.exceptions import ResourceNotFoundError

        jobs = self.get_conn().jobs
        try:
            return run_of(jobs.get(job.name))
        except ResourceNotFoundError:
            return run_of(jobs.create_or_update(job))

    def get(self, name: str) -> RemoteRun:
        return run_of(self.get_conn().jobs.get(name))

    def cancel(self, name: str) -> None:
        """Cancel a job; one that is over stays as it is."""
        if not self.get(name).done:
            self.get_conn().jobs.begin_cancel(name).wait(CANCEL_TIMEOUT)

    def children(self, name: str) -> list[Job]:
        """The child jobs of a sweep, an AutoML job or a pipeline that the run history lists."""
        return list(self.get_conn().jobs.list(parent_job_name=name))

    def read_history(self, name: str) -> tuple[str, str]:
        """Why the job failed, and its whole log; "" for what does not exist."""
        if self._history is None:
            self._history = RunHistory(self.get_conn())
        return self._history.read(name)
