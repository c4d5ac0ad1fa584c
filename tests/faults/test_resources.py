"""A service dies, a disk is full, memory or file handles run out: afterwards the loop has built the right tables.

Each test removes one day from all tables and sends it through the loop while the fault happens in every stage. Then the
day's rows must be those of the undisturbed walk, every run key had one effect, and no process, lease or file is left.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from datetime import date
from io import StringIO

import httpx
import psutil
import pytest
from rich.console import Console

from local import control
from local.state import load, supervised
from tests.faults import walks
from tests.faults.disks import full, is_small
from tests.support.cloud.faults import command, wait_for
from tests.support.machines.day_content import Content, content
from tests.support.machines.machine import Machine

pytestmark = pytest.mark.timeout(1800)

# every task of a day that makes requests, in the order in which they run
TASKS = (
    ("ingest", "list_files"),
    ("ingest", "copy_files"),
    ("ingest", "clean_day"),
    ("features", "compute_features"),
    ("score", "score_day"),
    ("monitor", "measure_drift"),
)
SERVICES = ("standins", "azurite", "mlflow", "postgres")
Disturb = Callable[[str], None]


@pytest.fixture(scope="module")
def day(shop_days: list[date]) -> date:
    return shop_days[-2]


@pytest.fixture(scope="module")
def undisturbed(machine: Machine, day: date) -> Content:
    walks.quiet(machine)
    tables = content(machine, day)
    assert all(tables[name] for name in tables if not name.startswith("quarantine")), "the walk built this day"
    return tables


def through(machine: Machine, day: date, undisturbed: Content, disturb: Disturb) -> None:
    """Send the day through the loop; `disturb(task)` is called once each task has started."""
    walks.all_ready(machine)
    before, since = walks.known(machine, day), walks.last_entry(machine)
    walks.forget(machine, day)
    walks.retry(lambda: machine.airflow.trigger("transactions_ingest", partition_key=str(day)))
    for stage, task in TASKS:
        walks.started(machine, stage, task, day, before)
        disturb(task)
    for dag_id in walks.dags_of_a_day():
        walks.ended(machine, dag_id, day, before)
    assert content(machine, day) == undisturbed
    walks.assert_settled(machine, since)


@pytest.mark.parametrize("first", [signal.SIGKILL, signal.SIGTERM], ids=["killed-first", "terminated-first"])
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_ends_in_the_middle_of_every_stage(
    machine: Machine, day: date, undisturbed: Content, name: str, first: signal.Signals
) -> None:
    moments = random.Random(f"{name} {first}")
    signals = [first, signal.SIGTERM if first == signal.SIGKILL else signal.SIGKILL] * len(TASKS)

    def end(task: str) -> None:
        time.sleep(moments.uniform(0, 2.5))
        walks.service(machine, name).send_signal(signals.pop(0))

    through(machine, day, undisturbed, end)


@pytest.mark.parametrize("name", ["azurite", "standins", "postgres"])
def test_a_disk_that_is_full_for_a_while(machine: Machine, day: date, undisturbed: Content, name: str) -> None:
    folder = machine.settings.run_dir / name
    if not is_small(folder):
        pytest.skip(
            "no file system to fill up: this user may not mount one, or pytest lacks --unconfined (make test-faults has it)"
        )

    def fill(task: str) -> None:
        if task in ("copy_files", "compute_features"):
            with full(folder):
                time.sleep(12)  # longer than two of Azurite's saves, and than several retries of any client

    through(machine, day, undisturbed, fill)


@pytest.mark.parametrize("name", ["azurite", "standins", "mlflow"])
def test_a_service_without_file_handles_for_a_while(
    machine: Machine, day: date, undisturbed: Content, name: str
) -> None:
    def starve(task: str) -> None:
        if task in ("copy_files", "compute_features", "score_day"):
            process = walks.service(machine, name)
            soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
            process.rlimit(psutil.RLIMIT_NOFILE, (3, hard))
            time.sleep(6)
            if process.is_running():  # the fault may have ended it; then the supervisor has restarted it
                process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))

    through(machine, day, undisturbed, starve)


def test_a_stage_that_runs_out_of_memory_fails_and_is_retried(
    machine: Machine, day: date, undisturbed: Content
) -> None:
    """The warm cluster's forks inherit its limit, so the stage's own process is the one that runs out of memory."""

    def warm() -> psutil.Process:
        below = walks.service(machine, "standins").children(recursive=True)
        (zygote,) = [process for process in below if "standins.compute.zygote" in command(process)]
        return zygote

    def restrict(task: str) -> None:
        if task != "copy_files":
            return
        process, since = warm(), walks.last_entry(machine)
        limits = process.rlimit(psutil.RLIMIT_AS)
        process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + 64 * 2**20, limits[1]))
        end = time.monotonic() + 120
        while not any(entry["id"] > since and entry["outcome"] == "FAILED" for entry in machine.ledger()):
            assert time.monotonic() < end, "no stage has failed for lack of memory"
            time.sleep(0.3)
        process.rlimit(psutil.RLIMIT_AS, limits)

    through(machine, day, undisturbed, restrict)


def test_the_supervisor_and_its_guard_killed_in_the_middle_of_a_day(
    machine: Machine, day: date, undisturbed: Content
) -> None:
    def kill(task: str) -> None:
        if task != "clean_day":
            return
        status = load(machine.settings.run_dir)
        assert status is not None
        for process in (status.guard, status.supervisor):
            os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not supervised(machine.settings.run_dir), "the supervisor's death")  # a signal takes its time
        assert control.up(machine.settings, Console(file=StringIO())), "it was not up any more"

    through(machine, day, undisturbed, kill)


@pytest.mark.parametrize("name", SERVICES)
def test_training_and_promotion_through_the_death_of_a_service(
    machine: Machine, undisturbed: Content, name: str
) -> None:
    """One version is registered per run key; its gate decision, and its promotion if any, are recorded once."""
    since = walks.last_entry(machine)
    moments = random.Random(name)
    versions = _versions(machine)
    run = machine.airflow.trigger("churn_train")
    for task in ("build_training_set", "validate_training_set", "train_model"):
        _wait_until_started(machine, run.dag_id, run.run_id, task)
        time.sleep(moments.uniform(0, 3))
        walks.service(machine, name).send_signal(signal.SIGKILL)
    known = {promotion.run_id for promotion in walks.retry(lambda: machine.airflow.runs("churn_promote"))}
    _wait_for_success(machine, "churn_train", run.run_id)
    end = time.monotonic() + 300
    while not (
        new := [promotion for promotion in machine.airflow.runs("churn_promote") if promotion.run_id not in known]
    ):
        assert time.monotonic() < end, "no promotion has started"
        time.sleep(0.5)
    walks.service(machine, name).send_signal(signal.SIGKILL)
    _wait_for_success(machine, "churn_promote", new[-1].run_id)
    (version,) = _versions(machine) - versions
    decided = [row for row in machine.storage("read_table", "ops.decisions") if str(row["version"]) == version]
    assert [row["event"] for row in decided if row["event"] != "promotion"] == ["gate"]
    assert len({row["event"] for row in decided}) == len(decided)
    walks.assert_settled(machine, since)


def _wait_until_started(machine: Machine, dag_id: str, run_id: str, task_id: str) -> None:
    end = time.monotonic() + 420
    while True:
        (run,) = [run for run in walks.retry(lambda: machine.airflow.runs(dag_id)) if run.run_id == run_id]
        if walks.at_work(machine, run, task_id):
            return
        assert run.state != "failed", machine.airflow.explain(run)
        assert time.monotonic() < end, f"{task_id} has not started"
        time.sleep(0.2)


def _wait_for_success(machine: Machine, dag_id: str, run_id: str) -> None:
    end = time.monotonic() + 600
    while True:
        (run,) = [run for run in walks.retry(lambda: machine.airflow.runs(dag_id)) if run.run_id == run_id]
        if run.state in ("success", "failed"):
            assert run.state == "success", machine.airflow.explain(run)
            return
        assert time.monotonic() < end, f"{run_id} is {run.state}"
        time.sleep(0.5)


def _versions(machine: Machine) -> set[str]:
    """By MLflow's HTTP API: its client in a `python -c` imports PySpark's client, which ends such programs."""
    url = f"{machine.settings.url('mlflow')}/api/2.0/mlflow/model-versions/search"
    response = httpx.get(url, params={"filter": "name='churn'"}, trust_env=False, timeout=60).raise_for_status()
    return {version["version"] for version in response.json()["model_versions"]}
