"""The run history of a workspace: why a job failed, and its log.

The SDK only streams logs to the terminal, so this sends the same requests itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

LOG = "user_logs/std_log.txt"
SCOPE = "https://management.azure.com/.default"


class RunHistory:
    """The run history of a client's workspace. Raises what `requests` raises."""

    def __init__(self, client: MLClient) -> None:
        self._client = client
        self._address = ""
        self._read: dict[str, int] = {}  # job → bytes of its log that `new_lines` has returned

    def read(self, job: str) -> tuple[str, str]:
        """Why the job failed, and its whole log; "" for what does not exist."""
        details = self._details(job)
        error = ((details.get("error") or {}).get("error") or {}).get("message") or ""
        return error, self._log(details, 0).decode(errors="replace")

    def new_lines(self, job: str) -> list[str]:
        """The complete lines that the job has printed since the last call."""
        start = self._read.get(job, 0)
        new = self._log(self._details(job), start)
        complete = new[: new.rfind(b"\n") + 1]
        self._read[job] = start + len(complete)
        return complete.decode(errors="replace").splitlines()

    def _log(self, details: dict[str, Any], start: int) -> bytes:
        """The job's log from byte `start` on."""
        import requests

        address = (details.get("logFiles") or {}).get(LOG)
        if not address:
            return b""
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = requests.get(address, headers=headers, timeout=60)
        if response.status_code == requests.codes.requested_range_not_satisfiable:  # nothing new
            return b""
        response.raise_for_status()
        is_part = not start or response.status_code == requests.codes.partial
        return response.content if is_part else response.content[start:]

    def _details(self, job: str) -> dict[str, Any]:
        import requests

        token = self._client._credential.get_token(SCOPE).token  # the SDK has no public access to its credential
        headers = {"Authorization": f"Bearer {token}"}
        if not self._address:
            workspace = self._client.workspaces.get(self._client.workspace_name)
            discovery = requests.get(str(workspace.discovery_url), headers=headers, timeout=30)
            discovery.raise_for_status()
            self._address = f"{discovery.json()['history']}/history/v1.0{workspace.id}"
        response = requests.get(f"{self._address}/runs/{job}/details", headers=headers, timeout=30)
        response.raise_for_status()
        details: dict[str, Any] = response.json()
        return details
