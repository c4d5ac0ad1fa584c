"""Shared by the Data Factory tests: a factory with the project's own pipeline, its runs and the copied files.

A test module sets `pytest_plugins = ["tests.support.cloud.data_factory_client"]` to have the fixtures.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from azure.identity import ClientSecretCredential
from azure.mgmt.datafactory import DataFactoryManagementClient
from azure.mgmt.datafactory.models import Factory, RunFilterParameters

from tests.support.cloud.standins import CLIENT, FACTORY, GROUP, ROOT, SECRET, SUBSCRIPTION, TENANT

WHERE = (GROUP, FACTORY)
JSON = ROOT / "include" / "datafactory"
DAY = "1998-06-28"


def deploy(client: DataFactoryManagementClient) -> None:
    client.factories.create_or_update(*WHERE, Factory(location="westeurope"))
    for folder, resources in (
        ("linkedService", client.linked_services),
        ("dataset", client.datasets),
        ("pipeline", client.pipelines),
    ):
        for file in sorted((JSON / folder).glob("*.json")):
            definition = _with_json_source(json.loads(file.read_text()))
            resources.create_or_update(*WHERE, definition["name"], {"properties": definition["properties"]})


def _with_json_source(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition with Data Factory's JSON source. The project's own reads JSON lines as text; both must work."""
    if definition["name"] == "jsonl_files":
        definition["properties"]["type"] = "Json"
        location = definition["properties"]["typeProperties"]["location"]
        definition["properties"]["typeProperties"] = {"location": location}
    for activity in definition["properties"].get("activities", []):
        if activity["name"] == "copy_jsonl":
            activity["typeProperties"]["source"]["type"] = "JsonSource"
            activity["typeProperties"]["source"]["formatSettings"] = {"type": "JsonReadSettings"}
    return definition


def connect(cloud: Any) -> DataFactoryManagementClient:
    credential = ClientSecretCredential(TENANT, CLIENT, SECRET)
    return DataFactoryManagementClient(credential, SUBSCRIPTION, polling_interval=0)


def window() -> RunFilterParameters:
    now = datetime.now(UTC)
    return RunFilterParameters(
        last_updated_after=now - timedelta(hours=1), last_updated_before=now + timedelta(hours=1)
    )


@dataclass
class DataFactory:
    client: DataFactoryManagementClient
    cloud: Any
    table: str

    def land(self, name: str, content: bytes, day: str = DAY) -> None:
        landing = self.cloud.account.container("landing")
        landing.upload_blob(f"{self.table}/{day}/{name}", content, overwrite=True)

    def start(self, folder: str = DAY, key: str = "k") -> str:
        parameters = {
            "table": self.table,
            "folder": folder,
            "copy_log": f"bronze/_log/{self.table}-{key}",
            "run_key": key,
        }
        return str(self.client.pipelines.create_run(*WHERE, "ingest", parameters).run_id)

    def wait(self, run_id: str, seconds: float = 30) -> Any:
        return wait(self.client, run_id, seconds)

    def run(self, folder: str = DAY, key: str = "k") -> tuple[Any, dict[str, Any]]:
        """Run the pipeline to its end; returns the run and its activity runs by name."""
        run = self.wait(self.start(folder, key))
        return run, activities(self.client, run.run_id)

    def bronze(self) -> dict[str, pa.Table]:
        """The written tables by their path below the table's folder."""
        lake = self.cloud.account.container("lake")
        prefix = f"bronze/{self.table}/"
        return {
            blob.name.removeprefix(prefix): pq.read_table(
                io.BytesIO(lake.download_blob(blob.name).readall())
            ).drop_columns("_listing")
            for blob in lake.list_blobs(name_starts_with=prefix)
        }

    def skipped(self, key: str = "k") -> list[dict[str, str]]:
        lake = self.cloud.account.container("lake")
        rows: list[dict[str, str]] = []
        for blob in lake.list_blobs(name_starts_with=f"bronze/_log/{self.table}-{key}/"):
            rows += csv.DictReader(io.StringIO(lake.download_blob(blob.name).readall().decode()))
        return rows


def wait(client: DataFactoryManagementClient, run_id: str, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run = client.pipeline_runs.get(*WHERE, run_id)
        if run.status in ("Succeeded", "Failed", "Cancelled"):
            return run
        time.sleep(0.1)
    raise AssertionError(f"run {run_id} did not end: {run.status}")


def activities(client: DataFactoryManagementClient, run_id: str) -> dict[str, Any]:
    runs = client.activity_runs.query_by_pipeline_run(*WHERE, run_id, window()).value
    return {activity.activity_name: activity for activity in runs}


@pytest.fixture(scope="module")
def module_client(cloud: Any) -> Iterator[DataFactoryManagementClient]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.client_variables().items():
            patch.setenv(name, value)
        client = connect(cloud)
        deploy(client)
        yield client


@pytest.fixture
def factory(module_client: DataFactoryManagementClient, sdk: Any, table: str) -> DataFactory:
    return DataFactory(module_client, sdk, table)
