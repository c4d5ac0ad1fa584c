"""Landing and a lake in Azurite, with the stand-ins' Data Factory between them: days as they really arrive."""

from __future__ import annotations

import argparse
import json
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ml.errors import StageError
from ml.landing.listing import save_listing
from ml.stages import ingest
from tests.support.cloud import FACTORY, GROUP, KEY, SUBSCRIPTION, Account, Standins

JSON = Path(__file__).resolve().parents[2] / "include" / "datafactory"
WHERE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.DataFactory/factories/{FACTORY}"
COPIES = 6  # pipeline runs at once


class CopiedDays:
    """One storage account and the stand-ins that copy in it. The pipeline is the project's own."""

    def __init__(self, cloud: Standins) -> None:
        self.account: Account = cloud.account
        self.http = cloud.http()
        self.http.headers["Authorization"] = f"Bearer {cloud.token()}"
        self._copies = 0
        self._logs: dict[date, str] = {}
        self._landing = self.account.container("landing")
        self.account.container("lake")
        self._ask("PUT", "", {"location": "westeurope"})
        for folder, kind in (("linkedService", "linkedservices"), ("dataset", "datasets"), ("pipeline", "pipelines")):
            for file in sorted((JSON / folder).glob("*.json")):
                self._ask("PUT", f"/{kind}/{file.stem}", json.loads(file.read_text()))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self.http.request(method, f"{WHERE}{path}?api-version=2018-06-01", json=body)
        return answer.raise_for_status().json()

    def connect(self, patch: pytest.MonkeyPatch) -> None:
        """Make this process work in the account."""
        patch.setenv("AZURE_STORAGE_ACCOUNT_NAME", self.account.name)
        patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
        patch.setenv("AZURE_STORAGE_ENDPOINT", self.account.blob_endpoint)
        for name in ("LANDING", "LAKE", "REPORTS"):
            patch.setenv(f"{name}_URI", f"az://{name.lower()}")

    def land(self, name: str, content: bytes, day: date, md5: bytes = b"") -> str:
        """Put a file into landing; its path there. `md5` is what upstream says its content has."""
        from azure.storage.blob import BlobBlock, ContentSettings

        path = f"transactions/{day}/{name}"
        if not md5:
            self._landing.upload_blob(path, content, overwrite=True)
            return path
        blob = self._landing.get_blob_client(path)
        blob.stage_block("one", content)
        blob.commit_block_list([BlobBlock("one")], content_settings=ContentSettings(content_md5=bytearray(md5)))
        return path

    def delete(self, *paths: str) -> None:
        for path in paths:
            self._landing.delete_blob(path)

    def copy(self, *days: date, seconds: float = 120) -> None:
        """Copy each day by a pipeline run of its own, however that ends."""
        with pytest.MonkeyPatch.context() as patch:
            self.connect(patch)
            going: list[str] = []
            for day in days:
                self._copies += 1
                key = f"copy-{self._copies}"
                listing = save_listing("transactions", [day], key)
                self._logs[day] = f"bronze/_log/{key}"
                parameters = {"table": "transactions", "folder": str(day), "copy_log": self._logs[day]}
                asked = self._ask(
                    "POST", "/pipelines/ingest/createRun", parameters | {"run_key": key, "listing": listing}
                )
                going.append(asked["runId"])
                while len(going) >= COPIES:
                    self._wait(going.pop(0), seconds)
            for run_id in going:
                self._wait(run_id, seconds)

    def _wait(self, run_id: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._ask("GET", f"/pipelineruns/{run_id}")["status"] not in ("Succeeded", "Failed"):
            assert time.monotonic() < end, f"pipeline run {run_id} does not end"
            time.sleep(0.05)

    def try_ingest(self, *days: date, run_key: str = "k") -> str | None:
        """Run the stage; what it said when it refused."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--model", default="churn")
        ingest.add_arguments(parser)
        asked = ["--days", ",".join(map(str, days)), "--run-key", run_key]
        log = self._logs.get(days[0], "") if len(days) == 1 else "bronze/_log"
        try:
            ingest.run(parser.parse_args([*asked, "--copy-log", log]))
        except StageError as error:
            return str(error)
        return None
