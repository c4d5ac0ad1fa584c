"""Data Factory's definitions: what is accepted, what is refused, and what is not implemented."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from standins.data_factory import expressions
from standins.data_factory.expressions import ExpressionError, Scope, evaluate

SUBSCRIPTION = "72f988bf-0000-4000-8000-000000000003"
FACTORY = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.DataFactory/factories/adf"
JSON = Path(__file__).resolve().parents[3] / "include" / "datafactory"
Json = dict[str, Any]


def definition(path: str) -> Json:
    loaded: Json = json.loads((JSON / path).read_text())
    return loaded


@pytest.fixture
def call(bare_cloud: Any) -> Callable[..., Any]:
    """Calls the management API of a factory that has all definitions of include/datafactory."""
    headers = {"Authorization": f"Bearer {bare_cloud.token()}"}

    def request(method: str, path: str, body: Json | None = None, version: str = "2018-06-01", **more: str) -> Any:
        with bare_cloud.http() as http:
            url = path if path.startswith("/subscriptions") else f"{FACTORY}{path}"
            return http.request(method, f"{url}?api-version={version}", json=body, headers=headers | more)

    request("PUT", "", {"location": "westeurope"})
    for folder, collection in (("linkedService", "linkedservices"), ("dataset", "datasets"), ("pipeline", "pipelines")):
        for file in sorted((JSON / folder).glob("*.json")):
            response = request("PUT", f"/{collection}/{file.stem}", json.loads(file.read_text()))
            assert response.status_code == 200, response.text
    return request


def changed(path: str, keys: list[str | int], value: Any) -> Json:
    """A definition of include/datafactory with one value set."""
    body = copy.deepcopy(definition(path))
    inner: Any = body["properties"]
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return body


FIRST: list[str | int] = ["activities", 0]
COPY: list[str | int] = [*FIRST, "typeProperties"]


@pytest.mark.parametrize(
    ("path", "keys", "value", "feature"),
    [
        pytest.param("pipeline/ingest", [*FIRST, "type"], "ForEach", "activity type 'ForEach'", id="activity-type"),
        pytest.param("pipeline/ingest", ["concurrency"], 1, "property 'concurrency'", id="pipeline-property"),
        pytest.param("pipeline/ingest", [*FIRST, "policy", "retry"], 3, "policy retry=3", id="retry"),
        pytest.param("pipeline/ingest", [*COPY, "enableStaging"], True, "'enableStaging'", id="staging"),
        pytest.param("pipeline/ingest", [*COPY, "validateDataConsistency"], True, "Consistency'", id="copy-property"),
        pytest.param("pipeline/ingest", [*COPY, "sink", "type"], "SqlSink", "sink type 'SqlSink'", id="sink"),
        pytest.param("pipeline/ingest", [*COPY, "source", "type"], "XmlSource", "'XmlSource'", id="source"),
        pytest.param(
            "pipeline/ingest",
            [*COPY, "sink", "storeSettings", "copyBehavior"],
            "MergeFiles",
            "copyBehavior 'MergeFiles'",
            id="merge-files",
        ),
        pytest.param(
            "pipeline/ingest",
            [*COPY, "source", "storeSettings", "fileListPath"],
            "x",
            "store setting 'fileListPath'",
            id="file-list",
        ),
        pytest.param(
            "pipeline/ingest",
            [*COPY, "source", "storeSettings", "wildcardFileName"],
            "@toUpper('x')",
            "function 'toupper'",
            id="expression-function",
        ),
        pytest.param("dataset/csv_files", ["type"], "Avro", "dataset type 'Avro'", id="dataset-type"),
        pytest.param(
            "dataset/csv_files",
            ["typeProperties", "compressionCodec"],
            "gzip",
            "DelimitedText property 'compressionCodec'",
            id="compression",
        ),
        pytest.param("linkedService/storage", ["type"], "Sftp", "linked service type 'Sftp'", id="linked-service"),
    ],
)
def test_an_unsupported_definition_is_not_implemented(
    call: Callable[..., Any], path: str, keys: list[str | int], value: Any, feature: str
) -> None:
    collection = {"pipeline": "pipelines", "dataset": "datasets", "linkedService": "linkedservices"}
    response = call("PUT", f"/{collection[path.partition('/')[0]]}/x", changed(f"{path}.json", keys, value))
    assert response.status_code == 501
    assert response.json()["error"]["code"] == "NotImplemented"
    assert feature in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        pytest.param(
            [*FIRST, "inputs", 0, "referenceName"], "nothing", "invalid reference 'nothing'", id="unknown-dataset"
        ),
        pytest.param(
            [*FIRST, "dependsOn"],
            [{"activity": "x", "dependencyConditions": ["Succeeded"]}],
            "depends on 'x', which the pipeline does not have",
            id="unknown-dependency",
        ),
        pytest.param(
            [*FIRST, "dependsOn"],
            [{"activity": "copy_csv", "dependencyConditions": ["Succeeded"]}],
            "wait for each other: copy_csv",
            id="circle",
        ),
        pytest.param([*FIRST, "name"], "copy_tsv", "must be given and unique", id="same-name-twice"),
        pytest.param(
            [*COPY, "source", "storeSettings", "wildcardFileName"],
            "@pipeline().parameters.day",
            "'pipeline().parameters.day' refers to nothing",
            id="undeclared-parameter",
        ),
        pytest.param(
            [*COPY, "source", "storeSettings", "wildcardFileName"],
            "@concat('a'",
            "where ',' is needed",
            id="unfinished-expression",
        ),
    ],
)
def test_an_invalid_definition_is_refused_as_by_the_service(
    call: Callable[..., Any], keys: list[str | int], value: Any, message: str
) -> None:
    response = call("PUT", "/pipelines/x", changed("pipeline/ingest.json", keys, value))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "BadRequest")
    assert message in response.json()["error"]["message"]


class TestResources:
    def test_an_unknown_factory(self, call: Callable[..., Any]) -> None:
        response = call("GET", FACTORY.replace("/adf", "/other"))
        assert (response.status_code, response.json()["error"]["code"]) == (404, "ResourceNotFound")

    def test_another_subscription(self, call: Callable[..., Any]) -> None:
        response = call("GET", FACTORY.replace(SUBSCRIPTION, "0000"))
        assert (response.status_code, response.json()["error"]["code"]) == (404, "SubscriptionNotFound")

    @pytest.mark.parametrize(
        ("version", "code"),
        [
            pytest.param("2015-10-01", "InvalidApiVersionParameter", id="old"),
            pytest.param("", "MissingApiVersionParameter", id="none"),
        ],
    )
    def test_api_version(self, call: Callable[..., Any], version: str, code: str) -> None:
        response = call("GET", "/pipelines", version=version)
        assert (response.status_code, response.json()["error"]["code"]) == (400, code)

    def test_get_returns_the_stored_definition(self, call: Callable[..., Any]) -> None:
        doc = call("GET", "/pipelines/ingest").json()
        assert doc["properties"] == definition("pipeline/ingest.json")["properties"]
        assert doc["id"] == f"{FACTORY}/pipelines/ingest"
        assert doc["type"] == "Microsoft.DataFactory/factories/pipelines"

    def test_an_etag_stays_until_the_definition_changes(self, call: Callable[..., Any]) -> None:
        etag = call("GET", "/datasets/csv_files").json()["etag"]
        assert call("PUT", "/datasets/csv_files", definition("dataset/csv_files.json")).json()["etag"] == etag
        assert call("GET", "/datasets/csv_files", **{"If-None-Match": etag}).status_code == 304
        other = changed("dataset/csv_files.json", ["description"], "another")
        assert call("PUT", "/datasets/csv_files", other, **{"If-Match": "wrong"}).status_code == 412

    def test_a_referenced_resource_cannot_be_deleted(self, call: Callable[..., Any]) -> None:
        response = call("DELETE", "/datasets/csv_files")
        assert response.status_code == 400
        assert "referenced by ingest" in response.json()["error"]["message"]

    def test_deleting_twice_is_no_error(self, call: Callable[..., Any]) -> None:
        call("PUT", "/pipelines/gone", definition("pipeline/ingest.json"))
        assert [call("DELETE", "/pipelines/gone").status_code for _ in range(2)] == [200, 204]
        assert call("GET", "/pipelines/gone").status_code == 404


class TestExpressions:
    SCOPE = Scope(pipeline={"parameters": {"day": "1998-06-28", "n": 3}, "RunId": "r1"})

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("plain", "plain"),
            ("", ""),
            ("@@literal", "@literal"),
            ("@pipeline().parameters.day", "1998-06-28"),
            ("@pipeline().parameters.n", 3),
            ("@{pipeline().parameters.n}", "3"),
            ("a/@{pipeline().parameters.day}/@{pipeline().RunId}", "a/1998-06-28/r1"),
            ("@concat('it''s ', pipeline().RunId, '}')", "it's r1}"),
            ("x@{concat('}', 'y')}z", "x}yz"),
            ("@if(equals(pipeline().parameters.n, 3), 'three', 'other')", "three"),
            ("@if(equals('a', 'b'), 1, null)", None),
        ],
    )
    def test_value(self, text: str, value: Any) -> None:
        assert evaluate({"value": text, "type": "Expression"}, self.SCOPE) == value
        assert evaluate([text], self.SCOPE) == [value]

    @pytest.mark.parametrize(
        "text", ["@concat('a'", "@{concat('a')", "@concat('a') b", "@#", "@if('a')", "@pipeline().parameters.x", "@x"]
    )
    def test_refused(self, text: str) -> None:
        with pytest.raises(ExpressionError):
            evaluate(text, self.SCOPE)

    def test_names(self) -> None:
        names = list(expressions.names({"a": ["@concat(dataset().x, 'y')", "@{pipeline().RunId}"]}))
        assert names == [("dataset", "x"), ("pipeline", "RunId")]
