"""Airflow's own parts die, freeze and come back while tasks wait: every run goes on, and is asked for once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
from rich.console import Console

from local import control
from local.demo import Demo
from local.settings import REPOSITORY
from local.state import load
from tests.faults.faults import Faults, wait_for
from tests.faults.remote_tasks import KINDS, Task, newest, paused
from tests.support.machine import Machine

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def _alone(machine: Machine, demo: Demo) -> Iterator[None]:
    with paused(machine, "churn_promote", "churn_arrivals"):
        yield


@pytest.fixture
def tasks(machine: Machine, demo: Demo, _alone: None) -> dict[str, Task]:
    return {name: newest(machine, name) for name in KINDS}


def process(machine: Machine, unit: str) -> psutil.Process:
    status = load(machine.settings.run_dir)
    assert status is not None
    pid = status.units[unit].pid
    assert pid is not None
    return psutil.Process(pid)


def family(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]


def back(machine: Machine, unit: str, gone: int) -> None:
    """Until the machine's supervisor has started a unit again."""

    def there() -> bool:
        status = load(machine.settings.run_dir)
        return status is not None and status.units[unit].state == "ready" and status.units[unit].pid != gone

    wait_for(there, f"{unit} to be back", 180)


def all_wait(tasks: dict[str, Task], faults: Faults) -> None:
    """Every task has asked, and waits without a worker: looks that fail for some ten seconds keep short runs there."""
    for name, looks in (("data-factory", 0), ("databricks", 1)):  # made while asking
        look = tasks[name].kind.look
        faults.add({"answer": {"status": 503}}, method=look.method, path=look.path, skip=looks, times=6)
    for task in tasks.values():
        task.again()
    for task in tasks.values():
        wait_for(task.effects, f"{task.path} to ask")
    for task in tasks.values():
        task.wait("deferred", "success")


def all_succeed_once(tasks: dict[str, Task]) -> None:
    for task in tasks.values():
        task.wait("success", timeout=400)
    for name, task in tasks.items():
        told = [(entry["run_key"], entry["outcome"]) for entry in task.ended()]
        assert [outcome for _, outcome in told] == [task.kind.done], f"{name}: {told}"


@pytest.mark.parametrize("unit", ["airflow-triggerer", "airflow-scheduler"])
def test_killed_while_tasks_wait(machine: Machine, tasks: dict[str, Task], faults: Faults, unit: str) -> None:
    all_wait(tasks, faults)
    killed = process(machine, unit)
    for each in family(killed):
        each.kill()
    back(machine, unit, killed.pid)
    all_succeed_once(tasks)


def test_the_metadata_database_is_restarted(machine: Machine, tasks: dict[str, Task], faults: Faults) -> None:
    all_wait(tasks, faults)
    control.restart(machine.settings, "postgres", Console(quiet=True))
    all_succeed_once(tasks)


def test_the_api_server_is_away_for_a_minute(machine: Machine, tasks: dict[str, Task], faults: Faults) -> None:
    all_wait(tasks, faults)
    frozen = family(process(machine, "airflow-api"))
    for each in frozen:
        each.send_signal(signal.SIGSTOP)
    try:
        time.sleep(60)  # what the case is about
    finally:
        for each in frozen:
            each.send_signal(signal.SIGCONT)
    all_succeed_once(tasks)


def test_a_triggerer_that_froze_finds_another_in_its_place_and_cancels_nothing(
    machine: Machine, tasks: dict[str, Task], faults: Faults
) -> None:
    """Airflow 3.3 tells the trigger that was taken over that its task was killed; it must not believe that."""
    task = tasks["databricks"]
    faults.add({"run": {"how": "never ends"}}, method=task.kind.submit.method, path=task.kind.submit.path)
    task.again()
    task.wait_in_triggerer(faults)
    first = task.look()["trigger"]["triggerer_id"]
    frozen = family(process(machine, "airflow-triggerer"))
    for each in frozen:
        each.send_signal(signal.SIGSTOP)
    command = [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"]
    second = subprocess.Popen(
        command, env=machine.environment, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: (task.look()["trigger"] or {}).get("triggerer_id") not in (None, first), "the take-over", 180)
        for each in frozen:
            each.send_signal(signal.SIGCONT)
        time.sleep(15)  # it would have cancelled within a second or two
        assert [entry["outcome"] for entry in task.effects()] == [None]
        assert task.look()["state"] == "deferred"
    finally:
        for each in frozen:
            each.send_signal(signal.SIGCONT)
        children = psutil.Process(second.pid).children(recursive=True)
        second.terminate()
        second.wait(60)
        for child in children:
            wait_for(lambda child=child: not child.is_running(), "the second triggerer's end", 30)
    task.mark("failed")
    assert str(task.ended()[0]["outcome"]).lower().startswith("cancel")
    task.again()
    task.wait("success")
