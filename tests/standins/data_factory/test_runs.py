"""Data Factory through azure-mgmt-datafactory: the ingest pipeline of include/datafactory really copies."""

from __future__ import annotations

import io
import json
import signal
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.datafactory import DataFactoryManagementClient
from azure.mgmt.datafactory.models import RunQueryFilter

from tests.support.cloud.data_factory_client import DAY, JSON, WHERE, DataFactory, activities, connect, deploy, window
from tests.support.cloud.standins import CLIENT

pytest_plugins = ["tests.support.cloud.data_factory_client"]


class TestBadFiles:
    def test_ragged_rows_are_skipped_and_logged(self, factory: DataFactory) -> None:
        factory.land("a.csv", b"id,amount\n1,10\n2\n3,30,3\n4,40\n")
        run, ended = factory.run()
        output = ended["copy_csv"].output
        assert run.status == "Succeeded"
        assert (output["rowsRead"], output["rowsCopied"], output["rowsSkipped"]) == (4, 2, 2)
        assert factory.bronze()[f"csv/{DAY}/a.parquet"].column("id").to_pylist() == ["1", "4"]
        log = factory.skipped()
        assert [row["OperationItem"] for row in log] == ["2", "3,30,3"]
        assert {(row["Level"], row["OperationName"]) for row in log} == {("Warning", "TabularRowSkip")}
        source = f"landing/{factory.table}/{DAY}/a.csv"
        assert f"source '{source}' with row number 3: found fewer columns" in log[0]["Message"]
        assert f"source '{source}' with row number 4: found more columns" in log[1]["Message"]

    def test_an_empty_file_has_no_rows_and_only_the_added_column(self, factory: DataFactory) -> None:
        factory.land("a.csv", b"")
        factory.land("b.jsonl", b"\n")
        run, ended = factory.run()
        assert run.status == "Succeeded"
        assert ended["copy_csv"].output["filesRead"] == 1
        written = factory.bronze()
        assert {name: (t.num_rows, t.column_names) for name, t in written.items()} == {
            f"csv/{DAY}/a.parquet": (0, ["_file"]),
            f"jsonl/{DAY}/b.parquet": (0, ["_file"]),
        }

    @pytest.mark.parametrize("content", [b"id,amount\n", b"id,amount", b"\xef\xbb\xbfid,amount\r\n"])
    def test_a_file_with_only_a_header_has_its_columns(self, factory: DataFactory, content: bytes) -> None:
        factory.land("a.csv", content)
        factory.run()
        written = factory.bronze()[f"csv/{DAY}/a.parquet"]
        assert (written.num_rows, written.column_names) == (0, ["id", "amount", "_file"])

    def test_a_truncated_parquet_file_fails_only_its_activity(self, factory: DataFactory) -> None:
        sink = io.BytesIO()
        pq.write_table(pa.table({"id": list(range(1000))}), sink)
        factory.land("a.parquet", sink.getvalue()[:-100])
        factory.land("b.csv", b"id\n1\n")
        run, ended = factory.run()
        name = f"landing/{factory.table}/{DAY}/a.parquet"
        assert run.status == "Failed"
        assert run.message.startswith("Operation on target copy_parquet failed: ErrorCode=ParquetInvalidFile,")
        assert f"File '{name}' is not a valid Parquet file" in run.message
        assert ended["copy_parquet"].error["failureType"] == "UserError"
        assert ended["copy_csv"].status == "Succeeded"
        assert list(factory.bronze()) == [f"csv/{DAY}/b.parquet"]

    @pytest.mark.parametrize(
        ("name", "content", "code", "message"),
        [
            pytest.param("a.jsonl", b'{"id": 1}\n{"id": \n', "JsonInvalidDataFormat", "row number 2", id="broken-json"),
            pytest.param("a.jsonl", b"[1, 2]\n", "JsonInvalidDataFormat", "found list", id="json-but-not-an-object"),
            pytest.param("a.jsonl", b'{"id": NaN}\n', "JsonInvalidDataFormat", "NaN", id="not-a-number"),
            pytest.param("a.csv", b"id,,x\n1,2,3\n", "DelimitedTextColumnNameNotAllowNull", "index 1", id="no-name"),
            pytest.param("a.csv", b"id,id\n1,2\n", "UserErrorDuplicateColumnName", "'id'", id="same-name-twice"),
            pytest.param(
                "a.csv", b"id;x\n1;2\n", "ParquetInvalidColumnName", "another delimiter", id="wrong-delimiter"
            ),
            pytest.param("a.csv", b'id,x\n1,"2\n', "DelimitedTextBadDataDetected", "quote", id="quote-never-closed"),
            pytest.param(
                "a.csv",
                b'id\n1\n"2\n3\n',
                "DelimitedTextBadDataDetected",
                "quote",
                id="quote-never-closed-in-one-column",
            ),
            pytest.param("a.csv", b'"id,x\n1,2\n', "DelimitedTextBadDataDetected", "quote", id="quote-in-the-header"),
            pytest.param("a.parquet", b"", "ParquetInvalidFile", "not a valid Parquet file", id="empty-parquet"),
        ],
    )
    def test_a_file_that_cannot_be_read_fails_with_its_name(
        self, factory: DataFactory, name: str, content: bytes, code: str, message: str
    ) -> None:
        factory.land(name, content)
        run, _ = factory.run()
        assert run.status == "Failed"
        assert f"ErrorCode={code}," in run.message
        assert f"landing/{factory.table}/{DAY}/{name}" in run.message
        assert message in run.message


class TestFormats:
    def test_quotes_newlines_and_nulls_of_csv(self, factory: DataFactory) -> None:
        factory.land("a.csv", b'id,note\r\n1,"two\nlines, and ""quotes"""\r\n,""\r\n0012,\xff\r\n')
        factory.run()
        written = factory.bronze()[f"csv/{DAY}/a.parquet"]
        assert written.column("id").to_pylist() == ["1", None, "0012"]
        assert written.column("note").to_pylist() == ['two\nlines, and "quotes"', "", "\ufffd"]
        assert set(written.schema.types) == {pa.string()}

    def test_a_file_of_one_column(self, factory: DataFactory) -> None:
        factory.land("a.csv", b"id\n1\n2")
        factory.run()
        assert factory.bronze()[f"csv/{DAY}/a.parquet"].column("id").to_pylist() == ["1", "2"]

    def test_each_row_has_the_path_it_came_from(self, factory: DataFactory) -> None:
        factory.land("a.tsv", b"id\tx\n1\ta,b\n")
        factory.run()
        row = factory.bronze()[f"tsv/{DAY}/a.parquet"].to_pylist()
        assert row == [{"id": "1", "x": "a,b", "_file": f"landing/{factory.table}/{DAY}/a.tsv"}]

    def test_json_keeps_types_and_widens_where_they_differ(self, factory: DataFactory) -> None:
        lines = ['{"n": 1, "f": 1, "m": 2}', '{"f": 2.5, "m": "two", "o": {"a": [1]}}', '{"n": null, "b": true}']
        factory.land("a.jsonl", "\n".join(lines).encode())
        factory.run()
        written = factory.bronze()[f"jsonl/{DAY}/a.parquet"].drop_columns("_file").to_pylist()
        assert written == [
            {"n": 1, "f": 1.0, "m": "2", "o": None, "b": None},
            {"n": None, "f": 2.5, "m": "two", "o": '{"a": [1]}', "b": None},
            {"n": None, "f": None, "m": None, "o": None, "b": True},
        ]

    def test_parquet_keeps_its_types(self, factory: DataFactory) -> None:
        at = datetime(1998, 6, 28, 12, tzinfo=UTC)
        table = pa.table({"id": [1], "at": pa.array([at], pa.timestamp("us", "UTC"))})
        sink = io.BytesIO()
        pq.write_table(table, sink)
        factory.land("a.parquet", sink.getvalue())
        factory.run()
        assert factory.bronze()[f"parquet/{DAY}/a.parquet"].drop_columns("_file").equals(table)


class TestFolders:
    def test_a_run_for_one_day_copies_only_that_day(self, factory: DataFactory) -> None:
        factory.land("a.csv", b"id\n1\n", "1998-06-27")
        factory.land("a.csv", b"id\n2\n", DAY)
        _, ended = factory.run(DAY)
        assert list(factory.bronze()) == [f"csv/{DAY}/a.parquet"]
        assert ended["copy_csv"].output["filesRead"] == 1

    def test_all_days_keep_their_folders(self, factory: DataFactory) -> None:
        for day in ("1998-06-27", DAY):
            factory.land("a.csv", b"id\n1\n", day)
        factory.run("*")
        assert list(factory.bronze()) == ["csv/1998-06-27/a.parquet", f"csv/{DAY}/a.parquet"]

    def test_without_files_the_run_succeeds_with_no_rows(self, factory: DataFactory) -> None:
        run, ended = factory.run()
        assert run.status == "Succeeded"
        assert {name: a.output["rowsCopied"] for name, a in ended.items()} == {
            "copy_csv": 0,
            "copy_tsv": 0,
            "copy_jsonl": 0,
            "copy_parquet": 0,
        }
        assert factory.bronze() == {}

    def test_a_repeated_day_writes_the_same_files(self, factory: DataFactory) -> None:
        factory.land("a.csv", b"id\n1\n")
        factory.run()
        before = factory.bronze()
        factory.run()
        assert factory.bronze() == before


class TestRuns:
    def test_the_ledger_has_caller_subject_run_key_and_outcome(self, factory: DataFactory) -> None:
        key = f"key-{uuid.uuid4().hex}"
        factory.land("a.csv", b"id\n1\n2\n")
        run, _ = factory.run(key=key)
        (entry,) = factory.cloud.ledger(service="data_factory", run_key=key)
        assert (entry["remote_id"], entry["subject"], entry["asked_by"]) == (run.run_id, "adf-tests/ingest", CLIENT)
        assert (entry["outcome"], entry["detail"]) == ("Succeeded", "1 files, 2 rows copied, 0 skipped")

    def test_a_run_has_an_html_page(self, factory: DataFactory) -> None:
        factory.land("a.csv", b"id\n1\n")
        run, _ = factory.run(key="<key>")
        with factory.cloud.http() as http:
            page = http.get(f"/en/monitoring/pipelineruns/{run.run_id}")
            assert http.get("/en/monitoring/pipelineruns/x").status_code == 404
        assert "Succeeded" in page.text
        assert "copy_csv" in page.text
        assert "&lt;key&gt;" in page.text

    def test_runs_are_found_by_pipeline_and_window(self, factory: DataFactory) -> None:
        key = f"key-{uuid.uuid4().hex}"
        run, _ = factory.run(key=key)
        query = window()
        query.filters = [RunQueryFilter(operand="PipelineName", operator="Equals", values_property=["ingest"])]
        runs = factory.client.pipeline_runs.query_by_factory(*WHERE, query).value
        assert [r.run_id for r in runs if r.parameters["run_key"] == key] == [run.run_id]
        query.last_updated_before = datetime.now(UTC) - timedelta(minutes=59)
        assert factory.client.pipeline_runs.query_by_factory(*WHERE, query).value == []

    def test_an_ended_run_cannot_be_cancelled(self, factory: DataFactory) -> None:
        run, _ = factory.run()
        with pytest.raises(HttpResponseError, match="already Succeeded"):
            factory.client.pipeline_runs.cancel(*WHERE, run.run_id)

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            pytest.param({"table": "t"}, "'folder' is not provided", id="missing"),
            pytest.param({"x": 1}, "do not correspond to any parameters defined in the pipeline: 'x'", id="unknown"),
            pytest.param(
                {"table": 1, "folder": "*", "copy_log": "l", "run_key": "k"},
                "'table' is not valid. Expected a value of type 'string', but received a value of type 'int'",
                id="wrong-type",
            ),
        ],
    )
    def test_bad_parameters_start_nothing(self, factory: DataFactory, parameters: dict[str, Any], message: str) -> None:
        before = len(factory.cloud.ledger())
        with pytest.raises(HttpResponseError, match=message) as refused:
            factory.client.pipelines.create_run(*WHERE, "ingest", parameters)
        assert refused.value.status_code == 400
        assert len(factory.cloud.ledger()) == before

    def test_an_unknown_run(self, factory: DataFactory) -> None:
        with pytest.raises(ResourceNotFoundError, match="pipeline run 'x' could not be found"):
            factory.client.pipeline_runs.get(*WHERE, "x")

    def test_an_unknown_pipeline(self, factory: DataFactory) -> None:
        with pytest.raises(ResourceNotFoundError, match="does not exist"):
            factory.client.pipelines.create_run(*WHERE, "x")


def slow_pipeline(client: DataFactoryManagementClient, seconds: int) -> str:
    """Deploy a pipeline that waits, then copies CSV files; returns its name."""
    definition = json.loads((JSON / "pipeline" / "ingest.json").read_text())["properties"]
    copy = next(a for a in definition["activities"] if a["name"] == "copy_csv")
    copy["dependsOn"] = [{"activity": "hold", "dependencyConditions": ["Succeeded"]}]
    hold = {"name": "hold", "type": "Wait", "typeProperties": {"waitTimeInSeconds": seconds}}
    definition["activities"] = [hold, copy]
    name = f"slow-{uuid.uuid4().hex[:8]}"
    client.pipelines.create_or_update(*WHERE, name, {"properties": definition})
    return name


class TestInterruption:
    def test_cancel_during_a_wait_starts_no_further_activity(self, factory: DataFactory) -> None:
        name = slow_pipeline(factory.client, 60)
        parameters = {"table": factory.table, "folder": DAY, "copy_log": "l", "run_key": "k"}
        run_id = factory.client.pipelines.create_run(*WHERE, name, parameters).run_id
        time.sleep(0.3)
        factory.client.pipeline_runs.cancel(*WHERE, run_id)
        assert factory.wait(run_id, 5).status == "Cancelled"
        ended = activities(factory.client, run_id)
        assert {name: a.status for name, a in ended.items()} == {"hold": "Cancelled"}

    def test_cancel_during_a_copy(self, factory: DataFactory) -> None:
        row = json.dumps({f"column{n}": f"value {n}" for n in range(20)}).encode() + b"\n"
        factory.land("big.jsonl", row * 150_000)  # seconds of work
        run_id = factory.start()
        deadline = time.monotonic() + 10
        while "copy_jsonl" not in activities(factory.client, run_id) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        factory.client.pipeline_runs.cancel(*WHERE, run_id)
        run = factory.wait(run_id, 10)
        assert run.status == "Cancelled"
        assert activities(factory.client, run_id)["copy_jsonl"].status == "Cancelled"
        assert factory.bronze() == {}
        (entry,) = [e for e in factory.cloud.ledger(service="data_factory") if e["remote_id"] == run_id]
        assert entry["outcome"] == "Cancelled"

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_a_run_resumes_after_a_restart(
        self,
        standins_of: Callable[..., Any],
        account: Any,
        table: str,
        monkeypatch: pytest.MonkeyPatch,
        number: signal.Signals,
    ) -> None:
        for container in ("landing", "lake"):
            account.container(container)
        cloud = standins_of(account)
        for name, value in cloud.client_variables().items():
            monkeypatch.setenv(name, value)
        client = connect(cloud)
        deploy(client)
        factory = DataFactory(client, cloud, table)
        factory.land("a.csv", b"id\n1\n")
        name = slow_pipeline(client, 2)
        parameters = {"table": table, "folder": DAY, "copy_log": "l", "run_key": "after"}
        run_id = client.pipelines.create_run(*WHERE, name, parameters).run_id
        time.sleep(0.3)
        cloud.stop(number)
        cloud.start()
        assert client.pipeline_runs.get(*WHERE, run_id).status == "InProgress"
        assert factory.wait(run_id).status == "Succeeded"
        assert list(factory.bronze()) == [f"csv/{DAY}/a.parquet"]
        assert [e["outcome"] for e in cloud.ledger(run_key="after")] == ["Succeeded"]
