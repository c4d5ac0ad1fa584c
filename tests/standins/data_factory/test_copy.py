"""The Copy activity beyond the ingest pipeline: Delta tables, dependencies, constant memory, storage that fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from deltalake import DeltaTable

from standins.core.cloud import Settings
from standins.data_factory.copy.activity import run as run_copy
from standins.data_factory.copy.definition import Copy

SUBSCRIPTION = "72f988bf-0000-4000-8000-000000000003"
FACTORY = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.DataFactory/factories/adf"
JSON = Path(__file__).resolve().parents[3] / "include" / "datafactory"
Json = dict[str, Any]

DELTA_SERVICE: Json = {
    "properties": {
        "type": "AzureDatabricksDeltaLake",
        "typeProperties": {"domain": "https://adb-1.1.azuredatabricks.net", "clusterId": "c"},
    }
}
GOOD: Json = {"waitTimeInSeconds": "@pipeline().parameters.zero"}
BAD: Json = {"waitTimeInSeconds": "@pipeline().parameters.bad"}


class Api:
    def __init__(self, cloud: Any) -> None:
        self.cloud = cloud
        self.http = cloud.http()
        self.http.headers["Authorization"] = f"Bearer {cloud.token()}"

    def __call__(self, method: str, path: str, body: Json | None = None) -> Json:
        response = self.http.request(method, f"{FACTORY}{path}?api-version=2018-06-01", json=body)
        assert response.status_code == 200, response.text
        body: Json = response.json() if response.content else {}
        return body

    def start(self, pipeline: str, parameters: Json | None = None) -> str:
        return str(self("POST", f"/pipelines/{pipeline}/createRun", parameters or {})["runId"])

    def wait(self, run_id: str) -> tuple[Json, dict[str, Json]]:
        deadline = time.monotonic() + 60
        while (run := self("GET", f"/pipelineruns/{run_id}"))["status"] not in ("Succeeded", "Failed", "Cancelled"):
            assert time.monotonic() < deadline, run
            time.sleep(0.1)
        window = {"lastUpdatedAfter": "2000-01-01T00:00:00Z", "lastUpdatedBefore": "2100-01-01T00:00:00Z"}
        records = self("POST", f"/pipelineruns/{run_id}/queryActivityruns", window)["value"]
        return run, {record["activityName"]: record for record in records}

    def run(self, pipeline: str, parameters: Json | None = None) -> tuple[Json, dict[str, Json]]:
        return self.wait(self.start(pipeline, parameters))


@pytest.fixture
def api(cloud: Any) -> Iterator[Api]:
    api = Api(cloud)
    api("PUT", "", {"location": "westeurope"})
    for folder, collection in (("linkedService", "linkedservices"), ("dataset", "datasets"), ("pipeline", "pipelines")):
        for file in sorted((JSON / folder).glob("*.json")):
            api("PUT", f"/{collection}/{file.stem}", json.loads(file.read_text()))
    yield api
    api.http.close()


def ingest(table: str) -> Json:
    return {"table": table, "folder": "*", "copy_log": f"bronze/_log/{table}", "run_key": table}


class TestDelta:
    @pytest.fixture
    def pipeline(self, api: Api, table: str) -> str:
        """A pipeline that copies the table's csv files to the Delta table `raw.<table>`."""
        properties: Json = json.loads((JSON / "pipeline" / "ingest.json").read_text())["properties"]
        (activity,) = [a for a in properties["activities"] if a["name"] == "copy_csv"]
        activity["typeProperties"]["sink"] = {"type": "AzureDatabricksDeltaLakeSink"}
        activity["outputs"] = [{"referenceName": "delta", "type": "DatasetReference", "parameters": {"table": table}}]
        dataset = {
            "type": "AzureDatabricksDeltaLakeDataset",
            "linkedServiceName": {"referenceName": "databricks", "type": "LinkedServiceReference"},
            "parameters": {"table": {"type": "String"}},
            "typeProperties": {"database": "raw", "table": "@dataset().table"},
        }
        api("PUT", "/linkedservices/databricks", DELTA_SERVICE)
        api("PUT", "/datasets/delta", {"properties": dataset})
        api("PUT", f"/pipelines/{table}", {"properties": {**properties, "activities": [activity]}})
        return table

    def rows(self, api: Api, table: str) -> list[Json]:
        delta_table = DeltaTable(f"az://lake/raw/{table}", storage_options=api.cloud.account.delta_options())
        rows: list[Json] = delta_table.to_pyarrow_table().sort_by("id").to_pylist()
        return rows

    def test_files_of_different_columns_become_one_table(self, api: Api, pipeline: str) -> None:
        landing = api.cloud.account.container("landing")
        landing.upload_blob(f"{pipeline}/d1/a.csv", b"id,x\n1,a\n")
        landing.upload_blob(f"{pipeline}/d2/b.csv", b"y,id\nb,2\n")
        run, _ = api.run(pipeline, {**ingest(pipeline), "listing": "l1"})
        assert run["status"] == "Succeeded", run
        assert self.rows(api, pipeline) == [
            {"id": "1", "x": "a", "y": None, "_file": f"landing/{pipeline}/d1/a.csv", "_listing": "l1"},
            {"id": "2", "x": None, "y": "b", "_file": f"landing/{pipeline}/d2/b.csv", "_listing": "l1"},
        ]

    def test_a_second_run_adds_its_rows(self, api: Api, pipeline: str) -> None:
        api.cloud.account.container("landing").upload_blob(f"{pipeline}/d1/a.csv", b"id\n1\n")
        for _ in range(2):
            api.run(pipeline, ingest(pipeline))
        assert [row["id"] for row in self.rows(api, pipeline)] == ["1", "1"]

    def test_a_resumed_copy_adds_no_rows(self, account: Any, tmp_path: Path) -> None:
        for name in ("landing", "lake"):
            account.container(name)
        account.container("landing").upload_blob("t/a.csv", b"id\n1\n2\n")
        location = {"type": "AzureBlobStorageLocation", "container": "landing", "folderPath": "t"}
        copy = Copy(
            name="copy",
            run_id="the same activity run",
            source={"type": "DelimitedTextSource"},
            source_dataset={
                "type": "DelimitedText",
                "typeProperties": {"location": location, "firstRowAsHeader": True},
            },
            sink={"type": "AzureDatabricksDeltaLakeSink"},
            sink_dataset={"typeProperties": {"database": "raw", "table": "t"}},
            type_properties={},
        )
        key = account.delta_options()["account_key"]
        endpoints = (account.blob_endpoint, account.queue_endpoint)
        settings = Settings(tmp_path, 0, 0, "tenant", "client", "secret", "sub", "token", account.name, key, *endpoints)
        for _ in range(2):
            run_copy(copy, settings, tmp_path / "copying", lambda: None)
        table = DeltaTable("az://lake/raw/t", storage_options=account.delta_options())
        assert table.to_pyarrow_table().num_rows == 2


class TestDependencies:
    def waits(self, api: Api, name: str, activities: list[tuple[str, Json, Json]]) -> tuple[Json, dict[str, Json]]:
        definitions = [
            {
                "name": activity,
                "type": "Wait",
                "typeProperties": inner,
                "dependsOn": [
                    {"activity": on, "dependencyConditions": [condition]} for on, condition in depends_on.items()
                ],
            }
            for activity, inner, depends_on in activities
        ]
        parameters = {"zero": {"type": "Int", "defaultValue": 0}, "bad": {"type": "String", "defaultValue": "x"}}
        api("PUT", f"/pipelines/{name}", {"properties": {"activities": definitions, "parameters": parameters}})
        return api.run(name)

    def test_in_order(self, api: Api, table: str) -> None:
        run, ended = self.waits(api, table, [("b", GOOD, {"a": "Succeeded"}), ("a", GOOD, {})])
        assert run["status"] == "Succeeded"
        assert ended["a"]["activityRunEnd"] <= ended["b"]["activityRunStart"]

    def test_activities_that_need_a_success_are_skipped_after_a_failure(self, api: Api, table: str) -> None:
        chain = [("a", BAD, {}), ("b", GOOD, {"a": "Succeeded"}), ("c", GOOD, {"b": "Succeeded"})]
        run, ended = self.waits(api, table, chain)
        assert run["status"] == "Failed"
        assert run["message"].startswith("Operation on target a failed: ")
        assert {name: record["status"] for name, record in ended.items()} == {
            "a": "Failed",
            "b": "Skipped",
            "c": "Skipped",
        }

    def test_a_run_with_a_handled_failure_succeeds(self, api: Api, table: str) -> None:
        run, ended = self.waits(api, table, [("a", BAD, {}), ("b", GOOD, {"a": "Failed"})])
        assert (run["status"], ended["b"]["status"]) == ("Succeeded", "Succeeded")

    def test_completed_is_met_by_a_failure(self, api: Api, table: str) -> None:
        _, ended = self.waits(api, table, [("a", BAD, {}), ("b", GOOD, {"a": "Completed"})])
        assert ended["b"]["status"] == "Succeeded"


def test_memory_stays_constant_for_a_large_file(api: Api, table: str) -> None:
    line = b",".join(b"value of column %d" % n for n in range(10)) + b"\n"
    header = b",".join(b"c%d" % n for n in range(10)) + b"\n"
    rows = 1_000_000
    landing = api.cloud.account.container("landing")
    landing.upload_blob(f"{table}/d/big.csv", header + line * rows, max_concurrency=1)
    process = psutil.Process(api.cloud.process.pid)
    before, peak, done = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run, ended = api.run("ingest", ingest(table))
    done.set()
    watcher.join()
    assert ended["copy_csv"]["output"]["rowsCopied"] == rows, run
    assert len(line) * rows > 150e6
    assert peak - before < 150e6


def test_a_missing_container_fails_the_run_with_the_reason(
    standins_of: Callable[..., Any], account: Any, table: str
) -> None:
    api = Api(standins_of(account))
    api("PUT", "", {"location": "westeurope"})
    for kind in ("linkedService/storage", "dataset/csv_files", "dataset/parquet_files"):
        collection = {"linkedService": "linkedservices", "dataset": "datasets"}[kind.split("/")[0]]
        api("PUT", f"/{collection}/{kind.split('/')[1]}", json.loads((JSON / f"{kind}.json").read_text()))
    properties = json.loads((JSON / "pipeline" / "ingest.json").read_text())["properties"]
    properties["activities"] = properties["activities"][:1]
    api("PUT", "/pipelines/ingest", {"properties": properties})
    run, _ = api.run("ingest", ingest(table))
    assert run["status"] == "Failed"
    assert "ContainerNotFound" in run["message"]
