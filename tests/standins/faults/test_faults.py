"""Faults on demand: each of them, before and after the work, as real clients see them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from airflow.providers.databricks.hooks.databricks import DatabricksHook
from azure.ai.ml import MLClient
from azure.core.exceptions import ResourceNotFoundError

from tests.faults.faults import Faults, is_alive, kill_holder, wait_for
from tests.support.azure_ml_client import WORKSPACE, connect, job, ready
from tests.support.cloud import DATABRICKS_TOKEN, GROUP, SUBSCRIPTION, Standins
from tests.support.power_bi_client import AUDIENCE, PATH

SUBMIT = r"/api/2\.\d/jobs/runs/submit"


@pytest.fixture
def faults(bare_cloud: Standins) -> Iterator[Faults]:
    switches = Faults(bare_cloud.url, bare_cloud.ca)
    yield switches
    switches.clear()


@pytest.fixture
def ask(bare_cloud: Standins) -> Iterator[Callable[..., httpx.Response]]:
    """Ask the Databricks stand-in for a run that is over at once; a connection for each request."""
    headers = {"Authorization": f"Bearer {DATABRICKS_TOKEN}", "Connection": "close"}
    asked: list[int] = []

    def submit(token: str, **more: Any) -> httpx.Response:
        task = {
            "task_key": "main",
            "existing_cluster_id": "churn-jobs",
            "spark_python_task": {"python_file": "none.py"},
        }
        body = {"run_name": token, "idempotency_token": token, "tasks": [task], **more}
        answer = http.post("/api/2.2/jobs/runs/submit", json=body, headers=headers)
        if answer.status_code == 200:
            asked.append(answer.json()["run_id"])
        return answer

    with bare_cloud.http() as http:
        yield submit
        for run_id in asked:
            http.post("/api/2.2/jobs/runs/cancel", json={"run_id": run_id}, headers=headers)


def effects(cloud: Standins, key: str) -> int:
    return len([entry for entry in cloud.ledger(run_key=key) if entry["first"] is None])


class TestRules:
    @pytest.mark.parametrize(
        ("rule", "told"),
        [
            pytest.param({"match": {}, "do": {}}, "exactly one of answer", id="nothing-to-do"),
            pytest.param({"match": {}, "do": {"reset": True, "wait": 1}}, "exactly one of answer", id="two-things"),
            pytest.param({"match": {}, "do": {"explode": True}}, "body.do.explode: Extra inputs", id="unknown-thing"),
            pytest.param({"match": {"host": "x"}, "do": {"reset": True}}, "body.match.host", id="unknown-match"),
            pytest.param({"match": {"path": "("}, "do": {"reset": True}}, "no regular expression", id="bad-pattern"),
            pytest.param({"match": {}, "do": {"answer": {"status": 42}}}, "greater than or equal", id="no-status"),
            pytest.param({"match": {}, "when": "later", "do": {"reset": True}}, "body.when", id="no-such-time"),
            pytest.param(
                {"match": {}, "when": "after", "do": {"run": {"how": "fails"}}}, "before it is asked", id="run-after"
            ),
        ],
    )
    def test_a_rule_that_is_none_is_refused(self, bare_cloud: Standins, rule: dict[str, Any], told: str) -> None:
        with bare_cloud.http() as http:
            answer = http.post("/faults", json=rule)
            assert http.get("/faults").json() == {"value": []}
        assert answer.status_code == 400
        assert told in answer.json()["error"]["message"]

    def test_a_rule_counts_skips_and_is_used_up_but_goes_on_recording(
        self, faults: Faults, ask: Callable[..., httpx.Response]
    ) -> None:
        rule = faults.add({"answer": {"status": 503}}, path=SUBMIT, skip=1, times=2)
        assert [ask("counted").status_code for _ in range(4)] == [200, 503, 503, 200]
        assert [hit["did"] for hit in faults.seen(rule)] == [None, "answer 503", "answer 503", None]
        times = [hit["time"] for hit in faults.seen(rule)]
        assert times == sorted(times)

    def test_a_rule_that_only_records_does_nothing(self, faults: Faults, ask: Callable[..., httpx.Response]) -> None:
        rule = faults.add({"reset": True}, method="POST", times=0)
        assert ask("recorded").status_code == 200
        assert [hit["path"] for hit in faults.seen(rule)] == ["/api/2.2/jobs/runs/submit"]
        assert faults.hits(rule) == []

    def test_a_rule_can_look_into_the_body(self, faults: Faults, ask: Callable[..., httpx.Response]) -> None:
        faults.add({"answer": {"status": 500}}, path=SUBMIT, body='"run_name": ?"unlucky"', times=None)
        assert [ask(name).status_code for name in ("lucky", "unlucky", "lucky")] == [200, 500, 200]

    def test_health_ledger_and_the_switches_themselves_have_no_faults(
        self, bare_cloud: Standins, faults: Faults
    ) -> None:
        faults.add({"answer": {"status": 500}}, times=None)
        with bare_cloud.http() as http:
            assert [http.get(path).status_code for path in ("/health", "/ledger", "/ledger.json", "/faults")] == [
                200
            ] * 4
            assert http.get("/anything").status_code == 500

    def test_token_routes_have_faults_too(self, bare_cloud: Standins, faults: Faults) -> None:
        faults.add({"answer": {"status": 429, "headers": {"Retry-After": "1"}}}, path="/[^/]+/oauth2/v2.0/token")
        with pytest.raises(httpx.HTTPStatusError, match="429"):
            bare_cloud.token()
        assert bare_cloud.token()


class TestBeforeAndAfter:
    def test_an_answer_is_given_as_it_is_told(
        self, bare_cloud: Standins, faults: Faults, ask: Callable[..., httpx.Response]
    ) -> None:
        told = {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow down"}
        faults.add({"answer": {"status": 429, "headers": {"Retry-After": "3"}, "json": told}}, path=SUBMIT)
        answer = ask("throttled")
        assert (answer.status_code, answer.headers["Retry-After"], answer.json()) == (429, "3", told)
        assert effects(bare_cloud, "throttled") == 0

    def test_after_the_work_the_ledger_has_it_and_the_client_does_not_know(
        self, bare_cloud: Standins, faults: Faults, ask: Callable[..., httpx.Response]
    ) -> None:
        faults.add({"answer": {"status": 502}}, path=SUBMIT, when="after")
        assert ask("lost-reply").status_code == 502
        assert effects(bare_cloud, "lost-reply") == 1

    @pytest.mark.parametrize(("when", "done"), [("before", 0), ("after", 1)])
    def test_a_reset_is_a_connection_error_and_no_answer(
        self, bare_cloud: Standins, faults: Faults, ask: Callable[..., httpx.Response], when: str, done: int
    ) -> None:
        rule = faults.add({"reset": True}, path=SUBMIT, when=when)
        with pytest.raises(httpx.TransportError, match=r"reset|closed|disconnected|ECONNRESET|Connection"):
            ask(f"reset-{when}")
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
    def test_a_slow_reply_comes_in_the_end(
        self, bare_cloud: Standins, faults: Faults, ask: Callable[..., httpx.Response], when: str
    ) -> None:
        faults.add({"wait": 0.5}, path=SUBMIT, when=when)
        began = time.monotonic()
        assert ask(f"slow-{when}").status_code == 200
        assert time.monotonic() - began >= 0.5
        assert effects(bare_cloud, f"slow-{when}") == 1

    @pytest.mark.parametrize(("when", "done"), [("before", 0), ("after", 1)])
    def test_a_held_request_goes_on_when_its_rule_is_deleted(
        self, bare_cloud: Standins, faults: Faults, ask: Callable[..., httpx.Response], when: str, done: int
    ) -> None:
        rule = faults.add({"hold": 60}, path=SUBMIT, when=when)
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(ask, f"held-{when}")
            faults.wait_for_hit(rule, state="held")
            assert effects(bare_cloud, f"held-{when}") == done
            faults.delete(rule)
            assert asked.result().status_code == 200
        assert effects(bare_cloud, f"held-{when}") == 1

    def test_airflows_hook_meets_a_lost_reply_and_finds_its_run_again(
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
        assert len(faults.seen(rule)) == 2
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
        killed = kill_holder(faults.wait_for_hit(rule, state="held"))
        assert killed.pid == call.pid
        assert call.wait(10) == -9
        assert not is_alive(killed)
        assert faults.wait_for_hit(rule, state="client gone")

    def test_what_was_held_before_the_work_is_not_done_once_nobody_asks_for_it(
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


class TestRunsThatMeetTheirFate:
    def test_databricks(self, bare_cloud: Standins, faults: Faults, ask: Callable[..., httpx.Response]) -> None:
        headers = {"Authorization": f"Bearer {DATABRICKS_TOKEN}"}
        with bare_cloud.http() as http:

            def run_of(how: str, **more: Any) -> int:
                faults.add({"run": {"how": how, **more}}, path=SUBMIT)
                return int(ask(f"databricks-{how}").raise_for_status().json()["run_id"])

            def look(run_id: int) -> httpx.Response:
                return http.get("/api/2.2/jobs/runs/get", params={"run_id": run_id}, headers=headers)

            def result(run_id: int) -> str | None:
                found: str | None = look(run_id).json()["state"].get("result_state")
                return found

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
            assert "has been deleted" in ask("databricks-vanishes").json()["message"]
            assert result(endless) is None
            http.post("/api/2.2/jobs/runs/cancel", json={"run_id": endless}, headers=headers).raise_for_status()
            assert wait_for(lambda: result(endless), "the cancellation", 10) == "CANCELED"
        outcomes = {how: bare_cloud.ledger(run_key=f"databricks-{how}")[0]["outcome"] for how in ("fails", "vanishes")}
        assert outcomes == {"fails": "FAILED", "vanishes": "VANISHED"}

    def test_azure_ml(self, cloud: Standins, monkeypatch: pytest.MonkeyPatch) -> None:
        faults, client = Faults(cloud.url, cloud.ca), connect(cloud, monkeypatch)
        ready(client)

        def start(how: str, **more: Any) -> None:
            faults.add({"run": {"how": how, **more}}, method="PUT", path=f".*/workspaces/{WORKSPACE}/jobs/.*")
            client.jobs.create_or_update(job("echo never", how.replace(" ", "-")))

        start("never ends")
        start("fails", seconds=0.5)
        start("vanishes", seconds=0.5)
        assert client.jobs.get("vanishes").status == "Running"
        assert wait_for(lambda: client.jobs.get("fails").status == "Failed", "the failure", 20)
        wait_for(lambda: not there(client, "vanishes"), "the end of the job", 20)
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
                asked = http.post(f"{factory}/pipelines/p/createRun", params=version, headers=headers)
                return str(asked.raise_for_status().json()["runId"])

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

    def test_a_run_that_never_ends_does_so_after_a_restart_too(
        self, standins_of: Callable[..., Standins], nowhere: Any
    ) -> None:
        cloud = standins_of(nowhere, STANDINS_WARM="never")
        switches = Faults(cloud.url, cloud.ca)
        switches.add({"run": {"how": "never ends"}}, path=SUBMIT)
        headers = {"Authorization": f"Bearer {DATABRICKS_TOKEN}"}
        task = {"task_key": "a", "existing_cluster_id": "churn-jobs", "spark_python_task": {"python_file": "none.py"}}
        with cloud.http() as http:
            asked = http.post("/api/2.2/jobs/runs/submit", json={"tasks": [task]}, headers=headers).raise_for_status()
        cloud.stop()
        cloud.start()
        with cloud.http() as http:
            assert http.get("/faults").json() == {"value": []}, "rules live in memory"
            run = http.get("/api/2.2/jobs/runs/get", params=asked.json(), headers=headers).json()
        assert run["state"]["life_cycle_state"] == "RUNNING"


def there(client: MLClient, name: str) -> bool:
    try:
        client.jobs.get(name)
    except ResourceNotFoundError:
        return False
    return True
