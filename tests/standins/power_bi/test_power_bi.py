"""Power BI refreshes through plain HTTP and through Airflow's operator, trigger and hook."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.cloud.power_bi_client import AUDIENCE, DATASET, GROUP, PATH, write_scores


class Api:
    def __init__(self, cloud: Any, token: str | None = None) -> None:
        self.cloud = cloud
        self.http = cloud.http()
        self.http.headers["Authorization"] = f"Bearer {token or cloud.token(AUDIENCE)}"

    def post(self, body: Any = None, path: str = PATH) -> Any:
        return self.http.post(f"{path}/refreshes", json=body)

    def wait(self, seconds: float = 15) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            newest: dict[str, Any] = self.http.get(f"{PATH}/refreshes?$top=1").json()["value"][0]
            if newest["status"] != "Unknown":
                return newest
            time.sleep(0.1)
        raise AssertionError(f"the refresh did not end: {newest}")


@pytest.fixture
def api(cloud: Any) -> Api:
    """The shared cloud with scores in its lake and no refresh in progress."""
    write_scores(cloud.account)
    api = Api(cloud)
    if api.http.get(f"{PATH}/refreshes").json()["value"]:
        api.wait()
    return api


class TestRefused:
    @pytest.mark.parametrize(
        ("resource", "status", "code"),
        [
            pytest.param("https://management.azure.com", 403, "PowerBINotAuthorizedException", id="wrong-audience"),
            pytest.param(None, 401, "PowerBINotAuthorizedException", id="forged-token"),
        ],
    )
    def test_token(self, cloud: Any, resource: str | None, status: int, code: str) -> None:
        response = Api(cloud, cloud.token(resource) if resource else "x").post()
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)

    def test_an_expired_token_is_403_with_the_code_of_power_bi(
        self, standins_of: Callable[..., Any], nowhere: Any
    ) -> None:
        cloud = standins_of(nowhere, STANDINS_TOKEN_SECONDS="-10")
        response = Api(cloud).post()
        assert (response.status_code, response.json()["error"]["code"]) == (403, "TokenExpired")

    def test_an_unknown_dataset(self, api: Api) -> None:
        response = api.post(path=PATH.replace(DATASET, "other"))
        assert (response.status_code, response.json()["error"]["code"]) == (404, "PowerBIEntityNotFound")

    def test_an_option_that_is_not_implemented(self, api: Api) -> None:
        assert api.post({"type": "Full", "objects": [{"table": "x"}]}).status_code == 501

    def test_a_second_refresh_while_one_is_in_progress(self, api: Api) -> None:
        before = len(api.cloud.ledger(service="power_bi"))
        assert api.post().status_code == 202
        response = api.post()
        assert response.status_code == 400
        message = "Invalid dataset refresh request. Another refresh request is already executing"
        assert response.json()["error"] == {"code": "InvalidRequest", "message": message}
        assert len(api.cloud.ledger(service="power_bi")) == before + 1
        api.wait()


class TestRefresh:
    def test_imports_the_table_and_takes_the_minimum_duration(self, api: Api) -> None:
        began = time.monotonic()
        response = api.post({"notifyOption": "NoNotification"})
        assert (response.status_code, response.content) == (202, b"")
        refresh_id = response.headers["RequestId"]
        assert api.http.get(f"{PATH}/refreshes/{refresh_id}").status_code == 202
        ended = api.wait()
        assert time.monotonic() - began >= 1.5
        assert (ended["requestId"], ended["status"], ended["refreshType"]) == (refresh_id, "Completed", "ViaApi")
        imported = pq.read_table(api.cloud.state / "power_bi" / f"{DATASET}.parquet")
        assert imported.num_rows == 3
        (entry,) = [e for e in api.cloud.ledger(service="power_bi") if e["remote_id"] == refresh_id]
        assert entry["outcome"] == "Completed"
        assert entry["detail"].startswith("3 rows of version ")
        assert entry["detail"].endswith("newest score_date 1998-06-29")
        assert api.http.get(f"{PATH}/refreshes/{refresh_id}").json()["extendedStatus"] == "Completed"

    def test_fails_without_its_table(self, standins_of: Callable[..., Any], account: Any) -> None:
        account.container("lake")
        api = Api(standins_of(account))
        api.post()
        ended = api.wait()
        assert ended["status"] == "Failed"
        assert "gold/customer_churn_scores" in json.loads(ended["serviceExceptionJson"])["errorDescription"]

    def test_can_be_cancelled(self, api: Api) -> None:
        refresh_id = api.post({"type": "Full"}).headers["RequestId"]
        assert api.http.delete(f"{PATH}/refreshes/{refresh_id}").status_code == 200
        assert api.wait()["status"] == "Cancelled"
        assert api.http.delete(f"{PATH}/refreshes/{refresh_id}").status_code == 400

    def test_cannot_be_cancelled_when_it_is_not_enhanced(self, api: Api) -> None:
        refresh_id = api.post().headers["RequestId"]
        response = api.http.delete(f"{PATH}/refreshes/{refresh_id}")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "InvalidRequest")
        assert api.wait()["status"] == "Completed"

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_resumes_after_a_restart(self, standins_of: Callable[..., Any], account: Any, number: int) -> None:
        write_scores(account)
        cloud = standins_of(account)
        api = Api(cloud)
        refresh_id = api.post().headers["RequestId"]
        cloud.stop(number)
        cloud.start()
        ended = Api(cloud).wait()
        assert (ended["requestId"], ended["status"]) == (refresh_id, "Completed")
        assert len(cloud.ledger(service="power_bi")) == 1


class TestAirflow:
    def test_the_operator_submits_a_refresh(self, api: Api, airflow_probe: Callable[..., Any]) -> None:
        (event,) = airflow_probe(api.cloud, "power_bi_submit")
        assert event["status"] == "success"
        assert api.wait()["requestId"] == event["dataset_refresh_id"]

    def test_the_trigger_waits_for_its_end(self, api: Api, airflow_probe: Callable[..., Any]) -> None:
        refresh_id = api.post().headers["RequestId"]
        (event,) = airflow_probe(api.cloud, "power_bi_wait", refresh_id)
        assert (event["status"], event["dataset_refresh_status"]) == ("success", "Completed")
        assert event["dataset_refresh_id"] == refresh_id

    def test_the_hook_lists_workspace_and_dataset(self, api: Api, airflow_probe: Callable[..., Any]) -> None:
        assert airflow_probe(api.cloud, "power_bi_lists") == [[GROUP], [DATASET]]
