"""Landing and a lake in Azurite with the stand-in's Data Factory between them, so that days arrive as in production."""

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
from tests.support.cloud.standins import FACTORY, GROUP, KEY, SUBSCRIPTION, Account, Standins

JSON = Path(__file__).resolve().parents[3] / "include" / "datafactory"
WHERE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.DataFactory/factories/{FACTORY}"
CONCURRENT_COPIES = 6  # pipeline runs
SOURCE = "transactions"


class CopiedDays:
    """A storage account and the stand-ins that copy in it. The pipeline is the project's own."""

    def __init__(self, cloud: Standins) -> None:
        self.account: Account = cloud.account
        self.http = cloud.http()
        self.http.headers["Authorization"] = f"Bearer {cloud.token()}"
        self._copies = 0
        self._logs: dict[date, str] = {}
        self._landing = self.account.container("landing")
        self.account.container("lake")
        self._request("PUT", "", {"location": "westeurope"})
        for folder, kind in (("linkedService", "linkedservices"), ("dataset", "datasets"), ("pipeline", "pipelines")):
            for file in sorted((JSON / folder).glob("*.json")):
                self._request("PUT", f"/{kind}/{file.stem}", json.loads(file.read_text()))

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        response = self.http.request(method, f"{WHERE}{path}?api-version=2018-06-01", json=body)
        return response.raise_for_status().json()

    def connect(self, patch: pytest.MonkeyPatch) -> None:
        """Connect this process to the account."""
        patch.setenv("AZURE_STORAGE_ACCOUNT_NAME", self.account.name)
        patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
        patch.setenv("AZURE_STORAGE_ENDPOINT", self.account.blob_endpoint)
        for name in ("LANDING", "LAKE", "REPORTS"):
            patch.setenv(f"{name}_URI", f"az://{name.lower()}")

    def land(self, name: str, content: bytes, day: date, md5: bytes = b"") -> str:
        """Put a file into landing. Returns its path there. `md5` is the digest that upstream declares."""
        from azure.storage.blob import BlobBlock, ContentSettings

        path = f"{SOURCE}/{day}/{name}"
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
        """Copy each day by its own pipeline run, whether or not that succeeds."""
        with pytest.MonkeyPatch.context() as patch:
            self.connect(patch)
            running: list[str] = []
            for day in days:
                self._copies += 1
                key = f"copy-{self._copies}"
                listing = save_listing(SOURCE, [day], key)
                self._logs[day] = f"bronze/_log/{key}"
                parameters = {"table": SOURCE, "folder": str(day), "copy_log": self._logs[day]}
                run = self._request(
                    "POST", "/pipelines/ingest/createRun", parameters | {"run_key": key, "listing": listing}
                )
                running.append(run["runId"])
                while len(running) >= CONCURRENT_COPIES:
                    self._wait(running.pop(0), seconds)
            for run_id in running:
                self._wait(run_id, seconds)

    def _wait(self, run_id: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._request("GET", f"/pipelineruns/{run_id}")["status"] not in ("Succeeded", "Failed"):
            assert time.monotonic() < end, f"pipeline run {run_id} did not end in {seconds} s"
            time.sleep(0.05)

    def try_ingest(self, *days: date, run_key: str = "k") -> str | None:
        """Run the stage. Returns its message when it refuses, else None."""
        parser = argparse.ArgumentParser()
        parser.set_defaults(source=SOURCE)
        ingest.add_arguments(parser)
        arguments = ["--days", ",".join(map(str, days)), "--run-key", run_key]
        log = self._logs.get(days[0], "") if len(days) == 1 else "bronze/_log"
        try:
            ingest.run(parser.parse_args([*arguments, "--copy-log", log]))
        except StageError as error:
            return str(error)
        return None
