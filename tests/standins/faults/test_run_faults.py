"""Faults of runs: a run that fails, vanishes or never ends, in every service that has runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from azure.ai.ml import MLClient
from azure.core.exceptions import ResourceNotFoundError

from tests.support.cloud.azure_ml_client import WORKSPACE, connect, job, register_environment
from tests.support.cloud.databricks_client import SUBMIT
from tests.support.cloud.faults import Faults, wait_for
from tests.support.cloud.power_bi_client import AUDIENCE, PATH
from tests.support.cloud.standins import DATABRICKS_TOKEN, GROUP, SUBSCRIPTION, Standins


class TestRunFaults:
    def test_databricks(self, bare_cloud: Standins, faults: Faults, submit_run: Callable[..., httpx.Response]) -> None:
        headers = {"Authorization": f"Bearer {DATABRICKS_TOKEN}"}
        with bare_cloud.http() as http:

            def run_of(how: str, **more: Any) -> int:
                faults.add({"run": {"how": how, **more}}, path=SUBMIT)
                return int(submit_run(f"databricks-{how}").raise_for_status().json()["run_id"])

            def look(run_id: int) -> httpx.Response:
                return http.get("/api/2.2/jobs/runs/get", params={"run_id": run_id}, headers=headers)

            def result(run_id: int) -> str | None:
                state: str | None = look(run_id).json()["state"].get("result_state")
                return state

            endless, fails, vanishes = (
                run_of("never ends"),
                run_of("fails", seconds=0.5),
                run_of("vanishes", seconds=0.5),
            )
            assert look(vanishes).json()["state"]["life_cycle_state"] == "RUNNING"
            assert wait_for(lambda: result(fails), "the failure", 10) == "FAILED"
            assert "fault rule" in look(fails).json()["state"]["state_message"]
            wait_for(lambda: look(vanishes).status_code == 400, "the end of the run", 10)
            assert look(vanishes).json()["error_code"] == "INVALID_PARAMETER_VALUE"
            assert "has been deleted" in submit_run("databricks-vanishes").json()["message"]
            assert result(endless) is None
            http.post("/api/2.2/jobs/runs/cancel", json={"run_id": endless}, headers=headers).raise_for_status()
            assert wait_for(lambda: result(endless), "the cancellation", 10) == "CANCELED"
        outcomes = {how: bare_cloud.ledger(run_key=f"databricks-{how}")[0]["outcome"] for how in ("fails", "vanishes")}
        assert outcomes == {"fails": "FAILED", "vanishes": "VANISHED"}

    def test_azure_ml(self, cloud: Standins, monkeypatch: pytest.MonkeyPatch) -> None:
        faults, client = Faults(cloud.url, cloud.ca), connect(cloud, monkeypatch)
        register_environment(client)

        def start(how: str, **more: Any) -> None:
            faults.add({"run": {"how": how, **more}}, method="PUT", path=f".*/workspaces/{WORKSPACE}/jobs/.*")
            client.jobs.create_or_update(job("echo never", how.replace(" ", "-")))

        start("never ends")
        start("fails", seconds=0.5)
        start("vanishes", seconds=0.5)
        assert client.jobs.get("vanishes").status == "Running"
        assert wait_for(lambda: client.jobs.get("fails").status == "Failed", "the failure", 20)
        wait_for(lambda: not exists(client, "vanishes"), "the end of the job", 20)
        assert client.jobs.get("never-ends").status == "Running"
        client.jobs.begin_cancel("never-ends").wait()
        assert client.jobs.get("never-ends").status == "Canceled"
        faults.clear()

    def test_data_factory(self, bare_cloud: Standins, faults: Faults) -> None:
        factory = (
            f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.DataFactory/factories/faults"
        )
        headers = {"Authorization": f"Bearer {bare_cloud.token()}"}
        version = {"api-version": "2018-06-01"}
        with bare_cloud.http() as http:
            wait = {"name": "wait", "type": "Wait", "typeProperties": {"waitTimeInSeconds": 0}}
            for path, body in (
                ("", {"location": "westeurope"}),
                ("/pipelines/p", {"properties": {"activities": [wait]}}),
            ):
                http.put(factory + path, json=body, params=version, headers=headers).raise_for_status()

            def run_of(how: str, **more: Any) -> str:
                faults.add({"run": {"how": how, **more}}, path=".*/createRun")
                response = http.post(f"{factory}/pipelines/p/createRun", params=version, headers=headers)
                return str(response.raise_for_status().json()["runId"])

            def look(run_id: str) -> httpx.Response:
                return http.get(f"{factory}/pipelineruns/{run_id}", params=version, headers=headers)

            endless, fails, vanishes = (
                run_of("never ends"),
                run_of("fails", seconds=0.5),
                run_of("vanishes", seconds=0.5),
            )
            assert look(vanishes).json()["status"] in ("Queued", "InProgress")
            wait_for(lambda: look(fails).json()["status"] == "Failed", "the failure", 10)
            assert "fault rule" in look(fails).json()["message"]
            wait_for(lambda: look(vanishes).status_code == 404, "the end of the run", 10)
            assert look(vanishes).json()["error"]["code"] == "NotFound"
            assert look(endless).json()["status"] == "InProgress"
            http.post(f"{factory}/pipelineruns/{endless}/cancel", params=version, headers=headers).raise_for_status()
            wait_for(lambda: look(endless).json()["status"] == "Cancelled", "the cancellation", 10)

    def test_power_bi(self, bare_cloud: Standins, faults: Faults) -> None:
        with bare_cloud.http() as http:
            http.headers["Authorization"] = f"Bearer {bare_cloud.token(AUDIENCE)}"

            def run_of(how: str, **more: Any) -> str:
                faults.add({"run": {"how": how, **more}}, path=f"{PATH}/refreshes", method="POST")
                enhanced = {"type": "Full"}  # only such a refresh can be cancelled
                return str(http.post(f"{PATH}/refreshes", json=enhanced).raise_for_status().headers["RequestId"])

            def look(refresh_id: str) -> httpx.Response:
                return http.get(f"{PATH}/refreshes/{refresh_id}")

            fails = run_of("fails", seconds=0.5)
            assert look(fails).status_code == 202
            wait_for(lambda: look(fails).json().get("extendedStatus") == "Failed", "the failure", 10)
            vanishes = run_of("vanishes", seconds=0.5)
            wait_for(lambda: look(vanishes).status_code == 404, "the end of the refresh", 10)
            endless = run_of("never ends")
            assert http.post(f"{PATH}/refreshes").status_code == 400, "one refresh at a time"
            assert http.delete(f"{PATH}/refreshes/{endless}").status_code == 200
            assert look(endless).json()["extendedStatus"] == "Cancelled"

    def test_a_run_that_never_ends_is_still_running_after_a_restart(
        self, standins_of: Callable[..., Standins], nowhere: Any
    ) -> None:
        cloud = standins_of(nowhere, STANDINS_WARM="never")
        faults = Faults(cloud.url, cloud.ca)
        faults.add({"run": {"how": "never ends"}}, path=SUBMIT)
        headers = {"Authorization": f"Bearer {DATABRICKS_TOKEN}"}
        task = {"task_key": "a", "existing_cluster_id": "churn-jobs", "spark_python_task": {"python_file": "none.py"}}
        with cloud.http() as http:
            response = http.post(
                "/api/2.2/jobs/runs/submit", json={"tasks": [task]}, headers=headers
            ).raise_for_status()
        cloud.stop()
        cloud.start()
        with cloud.http() as http:
            assert http.get("/faults").json() == {"value": []}, "rules are in memory"
            run = http.get("/api/2.2/jobs/runs/get", params=response.json(), headers=headers).json()
        assert run["state"]["life_cycle_state"] == "RUNNING"


def exists(client: MLClient, name: str) -> bool:
    try:
        client.jobs.get(name)
    except ResourceNotFoundError:
        return False
    return True
