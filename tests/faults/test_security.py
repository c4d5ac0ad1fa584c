"""The machine's secrets, sockets and pages, after days that succeeded and days that failed in many ways."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from datetime import date, timedelta

import psutil
import pytest
import requests

from local import environment, processes
from local.settings import REPOSITORY, load_secrets
from tests.faults import walks
from tests.faults.secrets import Search, readable_by_others
from tests.support.cloud.faults import Faults, command
from tests.support.html_pages import Page
from tests.support.machines import storage_client
from tests.support.machines.machine import Machine

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def day(shop_days: list[date]) -> date:
    return shop_days[-1] + timedelta(days=3)


HOSTILE = [
    "'; DROP TABLE transactions; --", "$(touch /tmp/owned)", "`touch /tmp/owned`", "../../../etc/passwd", "{{ conn }}",
    "<script>alert(1)</script>", "\\\"><img src=x onerror=alert(1)>", "=cmd|' /C calc'!A1", "x" * 10_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def hostile_day(machine: Machine, day: date) -> date:
    """A day with hostile rows among good ones, which has failed in other ways before it is ingested."""
    good = machine.rows("silver.transactions", "day", str(day - timedelta(days=3)))
    names = [name for name in good[0] if name not in ("day",) and not name.startswith("_")]
    lines = ["\t".join(names)]
    for row in good:
        moved = {**row, "occurred_at": f"{day}T12:00:00Z", "transaction_id": f"again-{row['transaction_id']}"}
        lines.append("\t".join("" if moved[name] is None else str(moved[name]) for name in names))
    for text in HOSTILE:
        lines += ["\t".join([*[text] * n, text, *["1"] * (len(names) - n - 1)]) for n in range(len(names))]
    machine.land_file(str(day), "a (b)=1,@+.tsv", "\n".join(lines).encode())
    return day


def test_every_socket_of_the_machine_is_on_loopback(machine: Machine) -> None:
    ours = {process.pid for process in processes.marked(str(machine.settings.run_dir))}
    listening = [
        end
        for end in psutil.net_connections("inet")
        if end.pid in ours and (end.status == psutil.CONN_LISTEN or (end.type.name == "SOCK_DGRAM" and end.laddr))
    ]
    assert {end.laddr.port for end in listening} >= set(machine.settings.ports.values())
    open_to_others = [
        f"{end.laddr.ip}:{end.laddr.port} of {' '.join(command(end.pid))[:120]}"
        for end in listening
        if not ipaddress.ip_address(end.laddr.ip).is_loopback
    ]
    assert open_to_others == []


def test_other_users_read_nothing_of_the_state_directory(machine: Machine) -> None:
    run_dir = machine.settings.run_dir
    assert list(readable_by_others(run_dir)) == []
    if os.geteuid() == 0:  # then try it as the user with the fewest rights
        for name in ("secrets.json", "airflow/passwords.json", "log/standins.log", "standins/standins.sqlite"):
            result = subprocess.run(
                ["cat", str(run_dir / name)], user=65534, group=65534, capture_output=True, check=False
            )
            assert result.returncode != 0, name


def test_no_command_line_shows_a_secret(machine: Machine) -> None:
    search = Search(machine.settings)
    shown = {
        words[0]: finds
        for process in processes.marked(str(machine.settings.run_dir))
        if (words := command(process.pid)) and (finds := search.within("\0".join(words).encode()))
    }
    assert shown == {}


def test_a_day_with_hostile_rows_is_ingested_and_its_pages_run_no_script(machine: Machine, hostile_day: date) -> None:
    before = walks.known(machine, hostile_day)
    machine.airflow.trigger("transactions_ingest", partition_key=str(hostile_day))
    walks.ended(machine, "ingest", hostile_day, before)
    account = machine.ingested(str(hostile_day))
    assert account["quarantined"] > 0
    assert account["received"] == account["silver"] + account["quarantined"] + account["duplicates"]
    assert not os.path.exists("/tmp/owned")  # noqa: PTH110 - what a shell would have made
    names = machine.storage("report_pages")
    pages = [f"{machine.settings.url('blob')}/{environment.ACCOUNT}/reports/{name}" for name in names]
    assert any(str(hostile_day) in page for page in pages)
    standins = machine.settings.url("standins", "https")
    links = {entry["remote_id"]: entry["service"] for entry in machine.ledger()}
    paths = {"data_factory": "en/monitoring/pipelineruns/", "databricks": "#job/0/run/"}
    pages += [f"{standins}/ledger"]
    pages += [f"{standins}/{paths[service]}{run}" for run, service in links.items() if service == "data_factory"][-5:]
    session = requests.Session()
    session.trust_env = False
    for page in pages:
        response = session.get(page, verify=str(machine.settings.ca_file), timeout=60)
        response.raise_for_status()
        assert Page(response.text).bad == [], page


@pytest.mark.parametrize(
    "key", ["'; DROP TABLE dag_run; --", "../../x", "20261101", "{{ conn.databricks_default.password }}"]
)
def test_a_run_without_a_valid_day_is_refused_with_a_message(machine: Machine, key: str) -> None:
    try:
        run = machine.airflow.trigger("customers_features", partition_key=key)
    except requests.HTTPError as error:  # Airflow's own check
        if error.response.status_code not in (400, 422):
            raise
        return
    with pytest.raises(Exception, match="a day as YYYY-MM-DD is needed"):
        machine.airflow.wait(run, timeout=180)


@pytest.mark.parametrize(
    ("dag", "conf"),
    [
        pytest.param("transactions_load_history", {"first": "'; DROP TABLE x", "last": "2025-01-01"}, id="sql"),
        pytest.param("transactions_load_history", {"first": "2025-01-01", "last": "$(touch /tmp/owned)"}, id="shell"),
        pytest.param("churn_train", {"through": "../../etc/passwd"}, id="path"),
        pytest.param("churn_promote", {"version": "1; touch /tmp/owned"}, id="no-number"),
    ],
)
def test_a_conf_that_no_param_allows_is_refused_with_a_message(
    machine: Machine, dag: str, conf: dict[str, str]
) -> None:
    with pytest.raises(requests.HTTPError) as refused:
        machine.airflow.trigger(dag, conf=conf)
    assert refused.value.response.status_code in (400, 422)
    assert any(str(value) in refused.value.response.text for value in conf.values())


@pytest.fixture
def failures(machine: Machine, faults: Faults, hostile_day: date) -> str:
    """The output of runs that fail in the ways that print most: refused tokens, refused calls, server errors, wrong keys."""
    output = []
    for path, response in (
        (".*/oauth2/v2.0/token", {"status": 401, "json": {"error": "invalid_client"}}),
        (
            ".*/pipelines/.*/createRun",
            {"status": 403, "json": {"error": {"code": "AuthorizationFailed", "message": "no"}}},
        ),
        (".*/jobs/runs/submit", {"status": 500, "json": {"error_code": "INTERNAL_ERROR", "message": "no"}}),
    ):
        rule = faults.add({"answer": response}, path=path, times=2)
        run = machine.airflow.trigger("transactions_ingest", partition_key=str(hostile_day))
        while run.state not in ("success", "failed"):
            run = next(r for r in machine.airflow.runs("transactions_ingest") if r.run_id == run.run_id)
        output.append(machine.airflow.explain(run))
        faults.delete(rule)
    wrong = {**machine.environment, "AZURE_STORAGE_ACCOUNT_KEY": "YSB3cm9uZyBrZXkgdGhhdCBpcyBub2JvZHkncw=="}
    command = [
        sys.executable,
        "-m",
        "ml",
        "score",
        "--model",
        "churn",
        "--day",
        str(hostile_day),
        "--run-key",
        "wrong-key",
    ]
    failed = subprocess.run(command, env=wrong, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert failed.returncode != 0
    assert "YSB3cm9uZy" not in failed.stdout + failed.stderr
    away = {**machine.environment, "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:1/devstoreaccount1"}
    command = [sys.executable, "-m", storage_client.__name__, "ask_landing_once"]
    gone = subprocess.run(command, env=away, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert gone.returncode != 0
    return "\n".join([*output, failed.stdout, failed.stderr, gone.stdout, gone.stderr])


def test_no_secret_is_stored_anywhere_it_must_not_be(machine: Machine, failures: str) -> None:
    """In logs, XComs, rendered templates, errors, pages, the ledger, tags, artifacts, or a file of another kind."""
    search = Search(machine.settings)
    sentinel = load_secrets(machine.settings)["client_secret"]
    assert search.within(f"password={sentinel}".encode()), "the search finds a secret that is present"
    assert search.within(failures.encode()) == set()
    finds = sorted({f"{where}: {what}" for where, what in [*search.files(), *search.databases()]})
    assert finds == []
