"""Fault injection: every fault, before and after the work, as real clients see it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from airflow.providers.databricks.hooks.databricks import DatabricksHook

from tests.support.cloud.databricks_client import SUBMIT
from tests.support.cloud.faults import Faults, is_alive, kill_holder
from tests.support.cloud.standins import DATABRICKS_TOKEN, Standins


def effects(cloud: Standins, key: str) -> int:
    return len([entry for entry in cloud.ledger(run_key=key) if entry["first"] is None])


class TestRules:
    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            pytest.param({"match": {}, "do": {}}, "exactly one of answer", id="no-fault"),
            pytest.param({"match": {}, "do": {"reset": True, "wait": 1}}, "exactly one of answer", id="two-faults"),
            pytest.param({"match": {}, "do": {"explode": True}}, "body.do.explode: Extra inputs", id="unknown-fault"),
            pytest.param({"match": {"host": "x"}, "do": {"reset": True}}, "body.match.host", id="unknown-match"),
            pytest.param({"match": {"path": "("}, "do": {"reset": True}}, "not a regular expression", id="bad-pattern"),
            pytest.param({"match": {}, "do": {"answer": {"status": 42}}}, "greater than or equal", id="invalid-status"),
            pytest.param({"match": {}, "when": "later", "do": {"reset": True}}, "body.when", id="unknown-when"),
            pytest.param(
                {"match": {}, "when": "after", "do": {"run": {"how": "fails"}}},
                "before the run is created",
                id="run-after",
            ),
        ],
    )
    def test_an_invalid_rule_is_refused(self, bare_cloud: Standins, rule: dict[str, Any], message: str) -> None:
        with bare_cloud.http() as http:
            response = http.post("/faults", json=rule)
            assert http.get("/faults").json() == {"value": []}
        assert response.status_code == 400
        assert message in response.json()["error"]["message"]

    def test_a_rule_skips_requests_then_acts_then_only_records(
        self, faults: Faults, submit_run: Callable[..., httpx.Response]
    ) -> None:
        rule = faults.add({"answer": {"status": 503}}, path=SUBMIT, skip=1, times=2)
        assert [submit_run("counted").status_code for _ in range(4)] == [200, 503, 503, 200]
        assert [hit["did"] for hit in faults.matches(rule)] == [None, "answer 503", "answer 503", None]
        times = [hit["time"] for hit in faults.matches(rule)]
        assert times == sorted(times)

    def test_a_rule_that_only_records_does_nothing(
        self, faults: Faults, submit_run: Callable[..., httpx.Response]
    ) -> None:
        rule = faults.add({"reset": True}, method="POST", times=0)
        assert submit_run("recorded").status_code == 200
        assert [hit["path"] for hit in faults.matches(rule)] == ["/api/2.2/jobs/runs/submit"]
        assert faults.hits(rule) == []

    def test_a_rule_can_match_the_body(self, faults: Faults, submit_run: Callable[..., httpx.Response]) -> None:
        faults.add({"answer": {"status": 500}}, path=SUBMIT, body='"run_name": ?"unlucky"', times=None)
        assert [submit_run(name).status_code for name in ("lucky", "unlucky", "lucky")] == [200, 500, 200]

    def test_health_ledger_and_the_rules_themselves_get_no_faults(self, bare_cloud: Standins, faults: Faults) -> None:
        faults.add({"answer": {"status": 500}}, times=None)
        with bare_cloud.http() as http:
            assert [http.get(path).status_code for path in ("/health", "/ledger", "/ledger.json", "/faults")] == [
                200
            ] * 4
            assert http.get("/anything").status_code == 500

    def test_token_routes_get_faults_too(self, bare_cloud: Standins, faults: Faults) -> None:
        faults.add({"answer": {"status": 429, "headers": {"Retry-After": "1"}}}, path="/[^/]+/oauth2/v2.0/token")
        with pytest.raises(httpx.HTTPStatusError, match="429"):
            bare_cloud.token()
        assert bare_cloud.token()


class TestBeforeAndAfter:
    def test_an_answer_is_returned_as_in_the_rule(
        self, bare_cloud: Standins, faults: Faults, submit_run: Callable[..., httpx.Response]
    ) -> None:
        body = {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow down"}
        faults.add({"answer": {"status": 429, "headers": {"Retry-After": "3"}, "json": body}}, path=SUBMIT)
        response = submit_run("throttled")
        assert (response.status_code, response.headers["Retry-After"], response.json()) == (429, "3", body)
        assert effects(bare_cloud, "throttled") == 0

    def test_after_the_work_is_recorded_the_client_gets_the_fault(
        self, bare_cloud: Standins, faults: Faults, submit_run: Callable[..., httpx.Response]
    ) -> None:
        faults.add({"answer": {"status": 502}}, path=SUBMIT, when="after")
        assert submit_run("lost-reply").status_code == 502
        assert effects(bare_cloud, "lost-reply") == 1

    @pytest.mark.parametrize(("when", "done"), [("before", 0), ("after", 1)])
    def test_a_reset_is_a_connection_error_without_a_response(
        self, bare_cloud: Standins, faults: Faults, submit_run: Callable[..., httpx.Response], when: str, done: int
    ) -> None:
        rule = faults.add({"reset": True}, path=SUBMIT, when=when)
        with pytest.raises(httpx.TransportError, match=r"reset|closed|disconnected|ECONNRESET|Connection"):
            submit_run(f"reset-{when}")
        assert effects(bare_cloud, f"reset-{when}") == done
        assert faults.hits(rule)[0]["state"] == "done"

    def test_a_reset_reaches_a_client_behind_the_proxy(self, bare_cloud: Standins, faults: Faults) -> None:
        faults.add({"reset": True}, path="/subscriptions")
        proxy = f"http://127.0.0.1:{bare_cloud.proxy_port}"
        with (
            httpx.Client(proxy=proxy, verify=str(bare_cloud.ca), trust_env=False) as http,
            pytest.raises(httpx.TransportError),
        ):
            http.get("https://management.azure.com/subscriptions?api-version=2022-12-01")

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_delayed_response_arrives(
        self, bare_cloud: Standins, faults: Faults, submit_run: Callable[..., httpx.Response], when: str
    ) -> None:
        faults.add({"wait": 0.5}, path=SUBMIT, when=when)
        began = time.monotonic()
        assert submit_run(f"slow-{when}").status_code == 200
        assert time.monotonic() - began >= 0.5
        assert effects(bare_cloud, f"slow-{when}") == 1

    @pytest.mark.parametrize(("when", "done"), [("before", 0), ("after", 1)])
    def test_a_held_request_continues_when_its_rule_is_deleted(
        self, bare_cloud: Standins, faults: Faults, submit_run: Callable[..., httpx.Response], when: str, done: int
    ) -> None:
        rule = faults.add({"hold": 60}, path=SUBMIT, when=when)
        with ThreadPoolExecutor() as pool:
            response = pool.submit(submit_run, f"held-{when}")
            faults.wait_for_hit(rule, state="held")
            assert effects(bare_cloud, f"held-{when}") == done
            faults.delete(rule)
            assert response.result().status_code == 200
        assert effects(bare_cloud, f"held-{when}") == 1

    def test_airflows_hook_attaches_to_its_run_after_a_lost_response(
        self, bare_cloud: Standins, faults: Faults, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in bare_cloud.client_variables().items():
            monkeypatch.setenv(name, value)
        conn = f"databricks://:{DATABRICKS_TOKEN}@127.0.0.1:{bare_cloud.port}/?host=127.0.0.1&schema=https"
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", conn.replace("/?host=127.0.0.1&schema=https", "/https"))
        rule = faults.add({"reset": True}, path=SUBMIT, when="after")
        hook = DatabricksHook(retry_limit=3, retry_delay=0)
        task = {"task_key": "a", "existing_cluster_id": "churn-jobs", "spark_python_task": {"python_file": "none.py"}}
        run_id = hook.submit_run({"run_name": "again", "idempotency_token": "again", "tasks": [task]})
        assert len(faults.matches(rule)) == 2
        entries = bare_cloud.ledger(run_key="again")
        assert [(entry["remote_id"], entry["first"] is None) for entry in entries] == [
            (str(run_id), True),
            (str(run_id), False),
        ]


class TestKillingTheCaller:
    CALL = "import sys, httpx; httpx.Client(verify=sys.argv[2], trust_env=False, timeout=60, proxy=sys.argv[3] or None)"

    @pytest.mark.parametrize("through_proxy", [False, True], ids=["directly", "through-the-proxy"])
    def test_the_process_whose_request_is_held_is_found_and_killed(
        self, bare_cloud: Standins, faults: Faults, through_proxy: bool
    ) -> None:
        rule = faults.add({"hold": 60}, path="/subscriptions", when="before")
        host = "https://management.azure.com" if through_proxy else bare_cloud.url
        proxy = f"http://127.0.0.1:{bare_cloud.proxy_port}" if through_proxy else ""
        code = f"{self.CALL}.get(sys.argv[1])"
        call = subprocess.Popen([sys.executable, "-c", code, f"{host}/subscriptions", str(bare_cloud.ca), proxy])
        hit = faults.wait_for_hit(rule, state="held")
        assert hit["server_port"] == (bare_cloud.proxy_port if through_proxy else bare_cloud.port)
        killed = kill_holder(hit)
        assert killed.pid == call.pid
        assert call.wait(10) == -9
        assert not is_alive(killed)
        assert faults.wait_for_hit(rule, state="client gone")

    def test_a_request_held_before_the_work_is_dropped_when_its_client_disconnects(
        self, bare_cloud: Standins, faults: Faults
    ) -> None:
        rule = faults.add({"hold": 60}, path=SUBMIT)
        task = '[{"task_key": "a", "existing_cluster_id": "churn-jobs", "spark_python_task": {"python_file": "no.py"}}]'
        body = f'{{"idempotency_token": "nobody", "tasks": {task}}}'
        asks = f"headers={{'Authorization': 'Bearer {DATABRICKS_TOKEN}'}}, content={body!r}"
        code = f"{self.CALL}.post(sys.argv[1], {asks})"
        url = f"{bare_cloud.url}/api/2.2/jobs/runs/submit"
        call = subprocess.Popen([sys.executable, "-c", code, url, str(bare_cloud.ca), ""])
        kill_holder(faults.wait_for_hit(rule, state="held"))
        call.wait(10)
        faults.wait_for_hit(rule, state="client gone")
        assert effects(bare_cloud, "nobody") == 0
