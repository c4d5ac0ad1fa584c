"""Pipeline runs on Data Factory: submitted once, found by their run key, waited for, cancelled."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.sdk.exceptions import AirflowFailException

from mlops.services import data_factory
from mlops.services.data_factory import DataFactoryPipelineOperator
from remote import responses
from remote.run_keys import run_key
from remote.runs import RemoteRunFailed
from tests.support.cloud.faults import Faults
from tests.support.cloud.standins import FACTORY, GROUP, ROOT, SUBSCRIPTION, Standins
from tests.support.components.task_contexts import Ti, context_of
from tests.support.components.triggers import Triggerer, deferred_by

DEFINITIONS = ROOT / "include" / "datafactory"
ADDRESS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.DataFactory/factories/{FACTORY}"
FOLDERS = {"linkedService": "linkedservices", "dataset": "datasets", "pipeline": "pipelines"}
SLOW = {
    "activities": [{"name": "hold", "type": "Wait", "typeProperties": {"waitTimeInSeconds": 40}}],
    "parameters": {"run_key": {"type": "String"}},
}
QUICK = SLOW | {"activities": [{"name": "hold", "type": "Wait", "typeProperties": {"waitTimeInSeconds": 1}}]}
BROKEN = {
    "activities": [
        {"name": "hold", "type": "Wait", "typeProperties": {"waitTimeInSeconds": "@concat('no ', 'number')"}}
    ],
    "parameters": {"run_key": {"type": "String"}},
}


class Factory:
    """The factory's management API, by plain HTTP."""

    def __init__(self, cloud: Standins) -> None:
        self._cloud = cloud
        self._headers = {"Authorization": f"Bearer {cloud.token()}"}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        with self._cloud.http() as http:
            address = f"{ADDRESS}{path}?api-version=2018-06-01"
            response = http.request(method, address, json=body, headers=self._headers).raise_for_status()
            return response.json() if response.content else None

    def deploy(self, kind: str, name: str, properties: Any) -> None:
        self.call("PUT", f"/{FOLDERS[kind]}/{name}", {"properties": properties})

    def state(self, run_id: str) -> str:
        return str(self.call("GET", f"/pipelineruns/{run_id}")["status"])

    def ended(self, run_id: str) -> str:
        deadline = time.monotonic() + 20
        while (state := self.state(run_id)) not in ("Succeeded", "Failed", "Cancelled"):
            assert time.monotonic() < deadline, state
            time.sleep(0.05)
        return state


@pytest.fixture
def factory(connected: Standins) -> Factory:
    """The project's own pipeline as deployed, and two pipelines of the tests."""
    factory = Factory(connected)
    factory.call("PUT", "", {"location": "westeurope"})
    for kind in FOLDERS:
        for file in sorted((DEFINITIONS / kind).glob("*.json")):
            factory.deploy(kind, file.stem, json.loads(file.read_text(encoding="utf-8"))["properties"])
    factory.deploy("pipeline", "slow", SLOW)
    factory.deploy("pipeline", "broken", BROKEN)
    return factory


@pytest.fixture
def landed(connected: Standins, table: str) -> str:
    """A table with one day of two files, three rows."""
    container = connected.account.container("landing")
    container.upload_blob(f"{table}/1998-06-28/a.csv", b"customer_id,quantity\n1,2\n2,3\n")
    container.upload_blob(f"{table}/1998-06-28/b.jsonl", b'{"customer_id": "3", "quantity": 1}\n')
    return table


def ingest(table: str, day: str = "1998-06-28", **options: Any) -> DataFactoryPipelineOperator:
    parameters = {"table": table, "folder": day, "copy_log": "bronze/_log/{run_key}"}
    return make_task("ingest", parameters=parameters, **options)


def make_task(pipeline: str, **options: Any) -> DataFactoryPipelineOperator:
    defaults: dict[str, Any] = {"task_id": "t", "pipeline": pipeline, "parameters": {}, "timeout": 60}
    return DataFactoryPipelineOperator(**defaults | options)


def runs_of(cloud: Standins, ti: Ti) -> list[int]:
    """The generations of a task's pipeline runs."""
    keys = [str(entry["run_key"]) for entry in cloud.ledger(service="data_factory")]
    return [int(key.rpartition("-g")[2]) for key in keys if key.startswith(f"{ti.dag_id}-{ti.task_id}-")]


class TestATaskThatEnds:
    def test_returns_the_sums_of_its_copies(
        self, factory: Factory, connected: Standins, triggerer: Triggerer, ti: Ti, landed: str
    ) -> None:
        context = context_of(ti)
        facts = triggerer.run(lambda: ingest(landed), context)
        assert facts == {"filesRead": 2, "rowsRead": 3, "rowsCopied": 3, "rowsSkipped": 0}
        (entry,) = connected.ledger(run_key=run_key(context))
        assert (entry["service"], entry["outcome"]) == ("data_factory", "Succeeded")
        assert entry["request"] == {
            "table": landed,
            "folder": "1998-06-28",
            "copy_log": f"bronze/_log/{run_key(context)}",
            "run_key": run_key(context),
        }
        bronze = [blob.name for blob in connected.account.container("lake").list_blobs(f"bronze/{landed}/")]
        assert bronze == [f"bronze/{landed}/csv/1998-06-28/a.parquet", f"bronze/{landed}/jsonl/1998-06-28/b.parquet"]

    def test_stores_its_run_key_and_its_page_before_it_waits(self, factory: Factory, ti: Ti, landed: str) -> None:
        context = context_of(ti)
        deferred_by(ingest(landed), context)
        assert ti.xcoms["run_key"] == run_key(context), "where the Copy logs; the next task reads it"
        page = ti.xcoms["remote_run_url"]
        assert page.startswith(
            f"https://adf.azure.com/en/monitoring/pipelineruns/{ti.xcoms['remote_run_id']}?factory=/"
        )
        assert page.endswith(ADDRESS)

    def test_without_files_copies_nothing(self, factory: Factory, triggerer: Triggerer, ti: Ti, landed: str) -> None:
        facts = triggerer.run(lambda: ingest(landed, "1998-06-29"), context_of(ti))
        assert facts == {"filesRead": 0, "rowsRead": 0, "rowsCopied": 0, "rowsSkipped": 0}

    def test_names_the_activity_and_the_file_that_failed(
        self, factory: Factory, connected: Standins, triggerer: Triggerer, ti: Ti, landed: str
    ) -> None:
        broken = b'customer_id,quantity\n1,"never closed\n'
        connected.account.container("landing").upload_blob(f"{landed}/1998-06-28/c.csv", broken)
        with pytest.raises(RemoteRunFailed) as caught:
            triggerer.run(lambda: ingest(landed), context_of(ti))
        message = str(caught.value)
        assert not isinstance(caught.value, AirflowFailException), "it may be tried again"
        for part in ("Data Factory run", "ended Failed", "activity copy_csv failed: ", "c.csv", "Look at: https://adf"):
            assert part in message

    def test_reports_the_service_s_reason_when_an_activity_cannot_start(
        self, factory: Factory, triggerer: Triggerer, ti: Ti
    ) -> None:
        with pytest.raises(RemoteRunFailed, match=r"ended Failed: activity hold failed: .*no number"):
            triggerer.run(lambda: make_task("broken"), context_of(ti))

    def test_is_cancelled_after_its_timeout(self, factory: Factory, triggerer: Triggerer, ti: Ti) -> None:
        with pytest.raises(RemoteRunFailed, match=r"ended timed out: .*was cancelled"):
            triggerer.run(lambda: make_task("slow", timeout=0), context_of(ti))
        assert factory.ended(ti.xcoms["remote_run_id"]) == "Cancelled"

    def test_names_a_pipeline_that_is_not_there(self, factory: Factory, ti: Ti) -> None:
        with pytest.raises(Exception, match="no_such_pipeline"):
            make_task("no_such_pipeline").execute(context_of(ti))


class TestOneEffect:
    def test_a_worker_that_dies_before_it_waits_attaches_to_the_live_run(
        self, factory: Factory, connected: Standins, ti: Ti
    ) -> None:
        deferred_by(make_task("slow"), context_of(ti))  # the worker dies: no result is stored
        again = ti.retried()
        deferred_by(make_task("slow"), context_of(again))
        assert again.xcoms["remote_run_id"] == ti.xcoms["remote_run_id"]
        assert again.xcoms["run_key"] == ti.xcoms["run_key"]
        assert runs_of(connected, ti) == [1]

    def test_a_run_that_ended_meanwhile_is_accepted_without_waiting(
        self, factory: Factory, connected: Standins, triggerer: Triggerer, ti: Ti, landed: str
    ) -> None:
        triggerer.run(lambda: ingest(landed), context_of(ti))
        assert ingest(landed).execute(context_of(ti.retried()))["rowsCopied"] == 3
        assert runs_of(connected, ti) == [1]

    def test_after_a_failure_the_next_try_submits_the_next_generation(
        self, factory: Factory, connected: Standins, triggerer: Triggerer, ti: Ti
    ) -> None:
        factory.deploy("pipeline", "corrected", BROKEN)
        for each, generations in ((ti, [1]), (ti.retried(), [1, 2])):
            with pytest.raises(RemoteRunFailed):
                triggerer.run(lambda: make_task("corrected"), context_of(each))
            assert runs_of(connected, ti) == generations
        factory.deploy("pipeline", "corrected", SLOW)
        third = ti.retried().retried()
        deferred_by(make_task("corrected"), context_of(third))
        assert third.xcoms["run_key"].endswith("-g3"), "what cleaning reads is the log of the run that succeeded"

    def test_a_cleared_task_runs_again(
        self, factory: Factory, connected: Standins, triggerer: Triggerer, ti: Ti, landed: str
    ) -> None:
        first = triggerer.run(lambda: ingest(landed), context_of(ti))
        assert triggerer.run(lambda: ingest(landed), context_of(ti.cleared())) == first
        assert runs_of(connected, ti) == [1, 1]

    def test_a_run_is_found_among_more_than_a_page_of_them(self, factory: Factory, connected: Standins, ti: Ti) -> None:
        factory.deploy("pipeline", "quick", QUICK)
        deferred_by(make_task("quick"), context_of(ti))
        for n in range(101):
            factory.call("POST", "/pipelines/quick/createRun", {"run_key": f"another-{n}"})
        again = ti.retried()
        make_task("quick").execute(context_of(again))
        assert again.xcoms["remote_run_id"] == ti.xcoms["remote_run_id"]
        assert runs_of(connected, ti) == [1]


class TestAListThatLags:
    """The list of runs may not show a new run yet whose createRun response was lost."""

    EMPTY: ClassVar[dict[str, Any]] = {"answer": {"status": 200, "json": {"value": []}}}

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(responses, "MIN_PAUSE", 0.3)
        monkeypatch.setattr(data_factory, "LISTED_WITHIN", 6.0)

    @pytest.fixture
    def faults(self, connected: Standins) -> Iterator[Faults]:
        switches = Faults(connected.url, connected.ca)
        yield switches
        switches.clear()

    @pytest.mark.parametrize("do", [{"reset": True}, {"answer": {"status": 503}}], ids=["reset", "503"])
    def test_is_read_several_times_before_the_run_is_submitted_again(
        self, factory: Factory, connected: Standins, faults: Faults, ti: Ti, do: dict[str, Any]
    ) -> None:
        faults.add(do, method="POST", path=".*/createRun", when="after")
        lists = faults.add(self.EMPTY, method="POST", path=".*/queryPipelineRuns", times=4)
        deferred_by(make_task("slow"), context_of(ti))
        assert len(faults.matches(lists)) == 5
        assert runs_of(connected, ti) == [1]
        assert ti.xcoms["remote_run_id"] == connected.ledger(run_key=ti.xcoms["run_key"])[0]["remote_id"]

    def test_is_also_expected_by_the_next_worker(
        self, factory: Factory, connected: Standins, faults: Faults, ti: Ti
    ) -> None:
        """The first worker died after createRun. The second one finds no run at first, and searches again."""
        deferred_by(make_task("slow"), context_of(ti))
        faults.add(self.EMPTY, method="POST", path=".*/queryPipelineRuns", times=3)
        deferred_by(make_task("slow"), context_of(ti.retried()))
        assert runs_of(connected, ti) == [1]

    def test_that_never_shows_it_leads_to_another_request(
        self, factory: Factory, connected: Standins, faults: Faults, ti: Ti
    ) -> None:
        """createRun did not arrive: after LISTED_WITHIN seconds it is sent again."""
        faults.add({"reset": True}, method="POST", path=".*/createRun")
        began = time.monotonic()
        deferred_by(make_task("slow"), context_of(ti))
        assert time.monotonic() - began >= data_factory.LISTED_WITHIN
        assert runs_of(connected, ti) == [1]

    def test_does_not_delay_a_request_that_the_service_rejected(
        self, factory: Factory, connected: Standins, faults: Faults, ti: Ti
    ) -> None:
        faults.add({"answer": {"status": 429}}, method="POST", path=".*/createRun")
        lists = faults.add(self.EMPTY, method="POST", path=".*/queryPipelineRuns", times=0)
        deferred_by(make_task("slow"), context_of(ti))
        assert len(faults.matches(lists)) == 2


class TestAKill:
    def test_while_it_waits_cancels_the_run(self, factory: Factory, triggerer: Triggerer, ti: Ti) -> None:
        deferred = deferred_by(make_task("slow"), context_of(ti))
        triggerer.kill(deferred.trigger)
        assert factory.ended(ti.xcoms["remote_run_id"]) == "Cancelled"
        triggerer.kill(deferred.trigger)  # one that is over is no error

    def test_in_the_worker_cancels_the_run(self, factory: Factory, ti: Ti) -> None:
        operator = make_task("slow")
        deferred_by(operator, context_of(ti))
        operator.on_kill()
        assert factory.ended(ti.xcoms["remote_run_id"]) == "Cancelled"
        operator.on_kill()

    def test_before_any_submission_does_nothing(self, connected: Standins) -> None:
        make_task("slow").on_kill()


def test_every_definition_has_the_name_of_its_file() -> None:
    for file in DEFINITIONS.rglob("*.json"):
        assert json.loads(Path(file).read_text(encoding="utf-8"))["name"] == file.stem
