"""What a workspace's run history tells of a job: why it failed, and what it printed.

The SDK streams logs to the terminal only, so this asks the same addresses it does.
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
        self._read: dict[str, int] = {}  # job → bytes of its log that `news` has given

    def read(self, job: str) -> tuple[str, str]:
        """Why the job failed and all that it printed; "" where there is nothing."""
        told = self._details(job)
        error = ((told.get("error") or {}).get("error") or {}).get("message") or ""
        return error, self._log(told, 0).decode(errors="replace")

    def news(self, job: str) -> list[str]:
        """The lines that the job has printed since the last call, whole ones."""
        start = self._read.get(job, 0)
        new = self._log(self._details(job), start)
        whole = new[: new.rfind(b"\n") + 1]
        self._read[job] = start + len(whole)
        return whole.decode(errors="replace").splitlines()

    def _log(self, told: dict[str, Any], start: int) -> bytes:
        import requests

        address = (told.get("logFiles") or {}).get(LOG)
        if not address:
            return b""
        asked = {"Range": f"bytes={start}-"} if start else {}
        answer = requests.get(address, headers=asked, timeout=60)
        if answer.status_code == requests.codes.requested_range_not_satisfiable:  # nothing new
            return b""
        answer.raise_for_status()
        return answer.content if not start or answer.status_code == requests.codes.partial else answer.content[start:]

    def _details(self, job: str) -> dict[str, Any]:
        import requests

        token = self._client._credential.get_token(SCOPE).token  # the SDK has no public way to its credential
        headers = {"Authorization": f"Bearer {token}"}
        if not self._address:
            workspace = self._client.workspaces.get(self._client.workspace_name)
            found = requests.get(str(workspace.discovery_url), headers=headers, timeout=30)
            found.raise_for_status()
            self._address = f"{found.json()['history']}/history/v1.0{workspace.id}"
        answer = requests.get(f"{self._address}/runs/{job}/details", headers=headers, timeout=30)
        answer.raise_for_status()
        details: dict[str, Any] = answer.json()
        return details
