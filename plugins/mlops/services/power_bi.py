"""A Power BI refresh that is asked for once.

The provider's operator submits inside its trigger: a triggerer that dies, or is replaced, submits again, and so
does each retry; its HTTP client (kiota) repeats a POST after 429, 503 and 504, and its errors say neither status
nor Retry-After. Here the worker looks at the dataset's refreshes before it asks, the trigger only looks, and
requests are made once. This operator can go when the provider's submits in `execute` and looks first.
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
from remote.responses import read_answer
from remote.run_keys import run_key, tries_of
from remote.runs import TIMED_OUT, RemoteRun, RemoteRunFailed, RemoteRunGone, succeed_or_raise
from remote.triggers import RemoteRunTrigger

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context

SERVICE = "Power BI"
API = "https://api.powerbi.com/v1.0/myorg"
SCOPE = "https://analysis.windows.net/powerbi/api/.default"
GOING = ("Unknown", "NotStarted", "InProgress")  # Power BI's word for a refresh that goes on is Unknown
NONE = "none"  # there was no refresh before
LISTED_WITHIN = 6.0  # seconds in which the history may not show a refresh that goes on
TIMEOUT = (10, 60)  # seconds to connect, and between two parts of an answer


class PowerBI:
    """One dataset, through Power BI's REST API; each request is made once. Raises what requests raises.

    The Connection has login and password = client id and secret (none: the machine's identity) and the
    extra `{"tenant_id"}`.
    """

    def __init__(self, conn: Connection, group_id: str, dataset_id: str) -> None:
        self._conn = conn
        self._path = f"{API}/groups/{group_id}/datasets/{dataset_id}/refreshes"
        self._page = f"https://app.powerbi.com/groups/{group_id}/datasets/{dataset_id}/details"
        self._credential = self._make_credential()

    def refreshes(self) -> list[RemoteRun]:
        """The refreshes that Power BI remembers, newest first."""
        found = sorted(
            self._call("GET", "").json()["value"], key=lambda each: each.get("startTime") or "", reverse=True
        )
        return [self._seen(each) for each in found]

    def refresh(self, body: Mapping[str, Any] | None) -> RemoteRun:
        """A new refresh."""
        answer = self._call("POST", "", json=body)
        return self._seen({"requestId": answer.headers["RequestId"], "status": "Unknown"})

    def cancel(self, refresh_id: str) -> str:
        """Stop a refresh. Why it goes on, or "" when it does not."""
        import requests

        try:
            self._call("DELETE", f"/{refresh_id}")
        except requests.HTTPError as error:
            answer = read_answer(error)
            if not answer or answer.status not in (400, 404, 405):
                raise
            going = [run for run in self.refreshes() if run.run_id == refresh_id and not run.done]
            if going:
                return f"Power BI cancels enhanced refreshes only: {answer}"
        return ""

    def _call(self, method: str, path: str, **given: Any) -> Any:
        import requests

        for fresh in (False, True):
            if fresh:
                self._credential = self._make_credential()
            headers = {"Authorization": f"Bearer {self._credential.get_token(SCOPE).token}"}
            answer = requests.request(method, self._path + path, headers=headers, timeout=TIMEOUT, **given)
            # an expired token is 403 here, with a code of its own; nothing was done, so once more with a new one
            if answer.status_code != 403 or _code(answer) != "TokenExpired":
                break
        answer.raise_for_status()
        return answer

    def _make_credential(self) -> Any:
        from azure.identity import ClientSecretCredential, DefaultAzureCredential

        extra: dict[str, Any] = json.loads(self._conn.extra or "{}")
        if self._conn.login and self._conn.password:
            return ClientSecretCredential(extra["tenant_id"], self._conn.login, self._conn.password, retry_total=0)
        return DefaultAzureCredential()

    def _seen(self, refresh: Mapping[str, Any]) -> RemoteRun:
        status = refresh["status"]
        error = refresh.get("serviceExceptionJson")
        told = json.loads(error) if error else {}
        return RemoteRun(
            service=SERVICE,
            run_id=refresh["requestId"],
            state="In progress" if status in GOING else status,
            done=status not in GOING,
            succeeded=status == "Completed",
            detail=told.get("errorDescription") or told.get("errorCode") or "",
            url=self._page,
        )


def _code(answer: Any) -> str:
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


class PowerBIRefreshTrigger(RemoteRunTrigger):
    """Looks at one refresh. The client is synchronous: each look takes a thread for its moment."""

    service = SERVICE

    def __init__(
        self, run_id: str, conn_id: str, deadline: float, group_id: str, dataset_id: str, *, ours: bool = True
    ) -> None:
        super().__init__(run_id, conn_id, deadline)
        self.group_id = group_id
        self.dataset_id = dataset_id
        self.ours = ours  # what somebody else asked for is never cancelled

    def serialize(self) -> tuple[str, dict[str, Any]]:
        path, arguments = super().serialize()
        return path, arguments | {"group_id": self.group_id, "dataset_id": self.dataset_id, "ours": self.ours}

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[PowerBI]:  # type: ignore[override]
        from airflow.providers.common.compat.connection import get_async_connection

        conn = await get_async_connection(self.conn_id)
        yield await asyncio.to_thread(PowerBI, conn, self.group_id, self.dataset_id)

    async def look(self, client: PowerBI) -> RemoteRun:
        # the history knows refreshes of every kind; the page of one refresh is for enhanced ones only
        for run in await asyncio.to_thread(client.refreshes):
            if run.run_id == self.run_id:
                return run
        raise RemoteRunGone(f"refresh {self.run_id} is not in the dataset's history")

    async def cancel(self, client: PowerBI) -> str:
        if not self.ours:
            return "it is not this task's"
        return await asyncio.to_thread(client.cancel, self.run_id)


class PowerBIRefreshOperator(RemoteRunOperator, BaseOperator):
    """Refreshes a dataset once, waits without a worker, and is green only when a refresh has completed.

    Returns `{"refresh", "status"}`.

    A refresh takes no id from its client, but a dataset has only one refresh at a time and tells its newest ones.
    When the task begins, and when a person has cleared it, the newest refresh of that moment is noted down. Every
    refresh that is not older shows what this run is to show, whoever asked for it: one that goes on is attached to,
    one that has completed is taken, and after a failed one the next try asks again. A refresh that was going on
    already may have read the table too early: its end is waited for, then a new one is asked for.

    On a person's clear or mark, and after `timeout`, the refresh is cancelled. Power BI does that for enhanced
    refreshes only (a `body` with `type`; Premium or Fabric capacity): another one goes on to its end, and the log
    says so. A retry then attaches to it.

    :param group_id: the workspace
    :param dataset_id: the dataset
    :param timeout: seconds to wait for the end
    :param body: options of the refresh, as the REST API has them
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
        known = client.refreshes()
        before = self._newest_before(context, known)
        ours = list(takewhile(lambda run: run.run_id != before, known))
        good, failed = [run for run in ours if not run.failed], [run for run in ours if run.failed]
        if good or len(failed) >= tries_of(context):
            return self._attached((good or failed)[0])
        if earlier := next((run for run in known if not run.done), None):
            self.log.info("Refresh %s began before this task did: its end is waited for", earlier.run_id)
            self.defer(trigger=self._waiting(earlier, ours=False), method_name="earlier_ended")
        return self._attached(self._refresh(client))

    def earlier_ended(self, context: Context, event: dict[str, Any]) -> Any:
        """A refresh that was going on before this task began is over."""
        if event["state"] == TIMED_OUT:
            raise RemoteRunFailed(RemoteRun(**event))
        return self.go_on(context, step="begin")

    def trigger(self, run: RemoteRun) -> PowerBIRefreshTrigger:
        return self._waiting(run, ours=True)

    def finish(self, context: Context, run: RemoteRun) -> dict[str, str]:  # noqa: ARG002 (others hand facts on)
        return succeed_or_raise(run, {"refresh": run.run_id, "status": run.state})

    def cancel_run(self) -> None:
        if self.run_id and (kept := self._client().cancel(self.run_id)):
            self.log.warning("Refresh %s goes on: %s", self.run_id, kept)

    def _newest_before(self, context: Context, known: list[RemoteRun]) -> str:
        """The newest refresh when the task began, or began again after a clear: noted once, the same for each retry."""
        notes, note = context["task_state_store"], f"{run_key(context)}/before"
        before = notes.get(note)
        if before is None:
            before = known[0].run_id if known else NONE
            notes.set(note, before)
        return str(before)

    def _refresh(self, client: PowerBI) -> RemoteRun:
        import requests

        try:
            run = client.refresh(self.body)
        except requests.HTTPError as error:
            answer = read_answer(error)
            if not answer or answer.status != 400:
                raise
            # Another refresh is going on: one of ours whose answer was lost, or somebody asked in the same moment
            for _ in range(3):
                if going := next((run for run in client.refreshes() if not run.done), None):
                    return going
                time.sleep(LISTED_WITHIN / 3)
            raise
        self.log.info("Started refresh %s", run.run_id)
        return run

    def _attached(self, run: RemoteRun) -> RemoteRun:
        self.run_id = run.run_id
        self.log.info("Refresh %s is %s", run.run_id, run.state)
        return run

    def _waiting(self, run: RemoteRun, *, ours: bool) -> PowerBIRefreshTrigger:
        deadline = time.time() + self.timeout
        return PowerBIRefreshTrigger(run.run_id, self.conn_id, deadline, self.group_id, self.dataset_id, ours=ours)

    def _client(self) -> PowerBI:
        return PowerBI(BaseHook.get_connection(self.conn_id), self.group_id, self.dataset_id)
