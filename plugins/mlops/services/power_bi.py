"""Power BI refreshes that are requested once.

The provider's operator submits inside its trigger: a triggerer that dies or is replaced submits again, and so does each
retry. Its HTTP client (kiota) repeats a POST after 429, 503 and 504, and its errors carry neither status nor
Retry-After. Here the worker reads the dataset's refreshes before it requests one, the trigger only polls, and each HTTP
request is sent once. This operator can be removed when the provider's submits in `execute` and reads first.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, BaseOperator

from remote.operators import RemoteRunOperator
from remote.responses import read_response
from remote.run_keys import run_key, tries_of
from remote.runs import TIMED_OUT, RemoteRun, RemoteRunFailed, RemoteRunGone, succeed_or_raise
from remote.triggers import RemoteRunTrigger

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context

SERVICE = "Power BI"
API = "https://api.powerbi.com/v1.0/myorg"
SCOPE = "https://analysis.windows.net/powerbi/api/.default"
IN_PROGRESS = ("Unknown", "NotStarted", "InProgress")  # Power BI reports a refresh in progress as Unknown
NO_REFRESH = "none"  # noted when the dataset had no refresh before
LISTED_WITHIN = 6.0  # seconds in which the history may not show a refresh in progress yet
TIMEOUT = (10, 60)  # seconds to connect, and between two parts of a response


class PowerBI:
    """One dataset, through Power BI's REST API; each request is sent once. Raises the exceptions of requests.

    The Connection has login and password = client id and secret (none: the machine's identity) and the
    extra `{"tenant_id"}`.
    """

    def __init__(self, conn: Connection, group_id: str, dataset_id: str) -> None:
        self._conn = conn
        self._path = f"{API}/groups/{group_id}/datasets/{dataset_id}/refreshes"
        self._page = f"https://app.powerbi.com/groups/{group_id}/datasets/{dataset_id}/details"
        self._credential = self._make_credential()

    def refreshes(self) -> list[RemoteRun]:
        """The refreshes in Power BI's history, newest first."""
        refreshes = sorted(
            self._call("GET", "").json()["value"], key=lambda refresh: refresh.get("startTime") or "", reverse=True
        )
        return [self._run_of(refresh) for refresh in refreshes]

    def refresh(self, body: Mapping[str, Any] | None) -> RemoteRun:
        """Request a new refresh."""
        response = self._call("POST", "", json=body)
        return self._run_of({"requestId": response.headers["RequestId"], "status": "Unknown"})

    def cancel(self, refresh_id: str) -> str:
        """Cancel a refresh. Returns the reason why it continues, or ""."""
        import requests

        try:
            self._call("DELETE", f"/{refresh_id}")
        except requests.HTTPError as error:
            response = read_response(error)
            if not response or response.status not in (400, 404, 405):
                raise
            if any(run.run_id == refresh_id and not run.done for run in self.refreshes()):
                return f"Power BI cancels enhanced refreshes only: {response}"
        return ""

    def _call(self, method: str, path: str, **options: Any) -> Any:
        import requests

        for new_token in (False, True):
            if new_token:
                self._credential = self._make_credential()
            headers = {"Authorization": f"Bearer {self._credential.get_token(SCOPE).token}"}
            response = requests.request(method, self._path + path, headers=headers, timeout=TIMEOUT, **options)
            # an expired token is a 403 with a code of its own; nothing was done, so repeat with a new token
            if response.status_code != 403 or _error_code(response) != "TokenExpired":
                break
        response.raise_for_status()
        return response

    def _make_credential(self) -> Any:
        from azure.identity import ClientSecretCredential, DefaultAzureCredential

        extra: dict[str, Any] = json.loads(self._conn.extra or "{}")
        if self._conn.login and self._conn.password:
            return ClientSecretCredential(extra["tenant_id"], self._conn.login, self._conn.password, retry_total=0)
        return DefaultAzureCredential()

    def _run_of(self, refresh: Mapping[str, Any]) -> RemoteRun:
        status = refresh["status"]
        exception = refresh.get("serviceExceptionJson")
        error = json.loads(exception) if exception else {}
        return RemoteRun(
            service=SERVICE,
            run_id=refresh["requestId"],
            state="In progress" if status in IN_PROGRESS else status,
            done=status not in IN_PROGRESS,
            succeeded=status == "Completed",
            detail=error.get("errorDescription") or error.get("errorCode") or "",
            url=self._page,
        )


def _error_code(response: Any) -> str:
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


class PowerBIRefreshTrigger(RemoteRunTrigger):
    """Polls one refresh. The client is synchronous: each poll runs in a thread."""

    service = SERVICE

    def __init__(
        self, run_id: str, conn_id: str, deadline: float, group_id: str, dataset_id: str, *, ours: bool = True
    ) -> None:
        super().__init__(run_id, conn_id, deadline)
        self.group_id = group_id
        self.dataset_id = dataset_id
        self.ours = ours  # a refresh that somebody else requested is never cancelled

    def serialize(self) -> tuple[str, dict[str, Any]]:
        path, arguments = super().serialize()
        return path, arguments | {"group_id": self.group_id, "dataset_id": self.dataset_id, "ours": self.ours}

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[PowerBI]:  # type: ignore[override]
        from airflow.providers.common.compat.connection import get_async_connection

        conn = await get_async_connection(self.conn_id)
        yield await asyncio.to_thread(PowerBI, conn, self.group_id, self.dataset_id)

    async def poll(self, client: PowerBI) -> RemoteRun:
        # the history has refreshes of every kind; the endpoint of one refresh is for enhanced ones only
        for run in await asyncio.to_thread(client.refreshes):
            if run.run_id == self.run_id:
                return run
        raise RemoteRunGone(f"refresh {self.run_id} is not in the dataset's history")

    async def cancel(self, client: PowerBI) -> str:
        if not self.ours:
            return "another client requested it"
        return await asyncio.to_thread(client.cancel, self.run_id)


class PowerBIRefreshOperator(RemoteRunOperator, BaseOperator):
    """Refreshes a dataset once, waits without a worker, and succeeds only when a refresh has completed.

    Returns `{"refresh", "status"}`.

    A refresh accepts no id from its client, but a dataset has only one refresh at a time and a history of the newest.
    When the task starts, and again after a person has cleared it, the newest refresh of that moment is noted. Every
    later refresh shows the data that this run must show, whoever requested it: the task attaches to one in progress,
    accepts a completed one, and after a failed one the next try requests another. A refresh that was in progress before
    may have read the table too early: the task waits for its end, then requests a new one.

    When a person clears or marks the task, and after `timeout`, the refresh is cancelled. Power BI cancels enhanced
    refreshes only (a `body` with `type`; Premium or Fabric capacity). Any other refresh continues to its end, and the
    log says so. A retry then attaches to it.

    :param group_id: the workspace
    :param dataset_id: the dataset
    :param timeout: seconds to wait for the end
    :param body: options of the refresh, as the REST API defines them
    """

    service = SERVICE
    needs = (
        "check client id and secret of the Connection, make that client a Contributor of the workspace, and let service "
        "principals use the API (Admin portal > Tenant settings > Developer settings)"
    )
    template_fields: Sequence[str] = ("group_id", "dataset_id", "conn_id")
    ui_color = "#f2c811"

    def __init__(
        self,
        *,
        group_id: str,
        dataset_id: str,
        timeout: int,
        body: dict[str, Any] | None = None,
        conn_id: str = "powerbi_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.group_id = group_id
        self.dataset_id = dataset_id
        self.timeout = timeout
        self.body = body
        self.conn_id = conn_id
        self.run_id: str | None = None

    def attach(self, context: Context) -> RemoteRun:
        client = self._client()
        refreshes = client.refreshes()
        before = self._newest_before(context, refreshes)
        later = list(takewhile(lambda run: run.run_id != before, refreshes))
        usable, failed = [run for run in later if not run.failed], [run for run in later if run.failed]
        if usable or len(failed) >= tries_of(context):
            return self._attach_to((usable or failed)[0])
        if earlier := next((run for run in refreshes if not run.done), None):
            self.log.info("Refresh %s started before this task: waiting for its end", earlier.run_id)
            self.defer(trigger=self._trigger_for(earlier, ours=False), method_name="earlier_ended")
        return self._attach_to(self._refresh(client))

    def earlier_ended(self, context: Context, event: dict[str, Any]) -> Any:
        """The refresh that was in progress before this task started is over."""
        if event["state"] == TIMED_OUT:
            raise RemoteRunFailed(RemoteRun(**event))
        return self.go_on(context, step="begin")

    def trigger(self, run: RemoteRun) -> PowerBIRefreshTrigger:
        return self._trigger_for(run, ours=True)

    def finish(self, context: Context, run: RemoteRun) -> dict[str, str]:  # noqa: ARG002 (other operators use it)
        return succeed_or_raise(run, {"refresh": run.run_id, "status": run.state})

    def cancel_run(self) -> None:
        if self.run_id and (obstacle := self._client().cancel(self.run_id)):
            self.log.warning("Refresh %s continues: %s", self.run_id, obstacle)

    def _newest_before(self, context: Context, refreshes: list[RemoteRun]) -> str:
        """The newest refresh at the task's start, or at its start after a clear; noted once and the same for each retry."""
        notes, note = context["task_state_store"], f"{run_key(context)}/before"
        before = notes.get(note)
        if before is None:
            before = refreshes[0].run_id if refreshes else NO_REFRESH
            notes.set(note, before)
        return str(before)

    def _refresh(self, client: PowerBI) -> RemoteRun:
        import requests

        try:
            run = client.refresh(self.body)
        except requests.HTTPError as error:
            response = read_response(error)
            if not response or response.status != 400:
                raise
            # Another refresh is in progress: this task's own, whose response was lost, or one of another client
            for _ in range(3):
                if in_progress := next((run for run in client.refreshes() if not run.done), None):
                    return in_progress
                time.sleep(LISTED_WITHIN / 3)
            raise
        self.log.info("Started refresh %s", run.run_id)
        return run

    def _attach_to(self, run: RemoteRun) -> RemoteRun:
        self.run_id = run.run_id
        self.log.info("Refresh %s is %s", run.run_id, run.state)
        return run

    def _trigger_for(self, run: RemoteRun, *, ours: bool) -> PowerBIRefreshTrigger:
        deadline = time.time() + self.timeout
        return PowerBIRefreshTrigger(run.run_id, self.conn_id, deadline, self.group_id, self.dataset_id, ours=ours)

    def _client(self) -> PowerBI:
        return PowerBI(BaseHook.get_connection(self.conn_id), self.group_id, self.dataset_id)
