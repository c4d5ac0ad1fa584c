"""Airflow's own components are killed, frozen and restarted while tasks wait: every run goes on, and is requested once."""

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
from tests.faults.remote_tasks import KINDS, Task, newest, paused
from tests.support.cloud.faults import Faults, wait_for
from tests.support.machines.machine import Machine

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def _alone(machine: Machine, demo: Demo) -> Iterator[None]:
    with paused(machine, "churn_promote", "arrivals"):
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


def wait_for_restart(machine: Machine, unit: str, killed: int) -> None:
    """Wait until the machine's supervisor has restarted a unit."""

    def restarted() -> bool:
        status = load(machine.settings.run_dir)
        return status is not None and status.units[unit].state == "ready" and status.units[unit].pid != killed

    wait_for(restarted, f"the restart of {unit}", 180)


def defer_all(tasks: dict[str, Task], faults: Faults) -> None:
    """Let every task submit its work and wait without a worker; polls that fail for ten seconds keep short runs there."""
    for name, polls in (("data-factory", 0), ("databricks", 1)):  # polls that are part of the submission
        look = tasks[name].kind.look
        faults.add({"answer": {"status": 503}}, method=look.method, path=look.path, skip=polls, times=6)
    for task in tasks.values():
        task.again()
    for task in tasks.values():
        wait_for(task.effects, f"the submission of {task.path}")
    for task in tasks.values():
        task.wait("deferred", "success")


def assert_all_succeed_once(tasks: dict[str, Task]) -> None:
    for task in tasks.values():
        task.wait("success", timeout=400)
    for name, task in tasks.items():
        effects = [(entry["run_key"], entry["outcome"]) for entry in task.ended()]
        assert [outcome for _, outcome in effects] == [task.kind.done], f"{name}: {effects}"


@pytest.mark.parametrize("unit", ["airflow-triggerer", "airflow-scheduler"])
def test_a_component_is_killed_while_tasks_wait(
    machine: Machine, tasks: dict[str, Task], faults: Faults, unit: str
) -> None:
    defer_all(tasks, faults)
    killed = process(machine, unit)
    for member in family(killed):
        member.kill()
    wait_for_restart(machine, unit, killed.pid)
    assert_all_succeed_once(tasks)


def test_the_metadata_database_is_restarted(machine: Machine, tasks: dict[str, Task], faults: Faults) -> None:
    defer_all(tasks, faults)
    control.restart(machine.settings, "postgres", Console(quiet=True))
    assert_all_succeed_once(tasks)


def test_the_api_server_does_not_respond_for_a_minute(machine: Machine, tasks: dict[str, Task], faults: Faults) -> None:
    defer_all(tasks, faults)
    frozen = family(process(machine, "airflow-api"))
    for member in frozen:
        member.send_signal(signal.SIGSTOP)
    try:
        time.sleep(60)
    finally:
        for member in frozen:
            member.send_signal(signal.SIGCONT)
    assert_all_succeed_once(tasks)


def test_a_frozen_triggerer_that_was_replaced_cancels_nothing_when_it_continues(
    machine: Machine, tasks: dict[str, Task], faults: Faults
) -> None:
    """Airflow 3.3 tells the replaced trigger that its task was killed; the trigger must ignore that."""
    task = tasks["databricks"]
    faults.add({"run": {"how": "never ends"}}, method=task.kind.submit.method, path=task.kind.submit.path)
    task.again()
    task.wait_in_triggerer(faults)
    first = task.look()["trigger"]["triggerer_id"]
    frozen = family(process(machine, "airflow-triggerer"))
    for member in frozen:
        member.send_signal(signal.SIGSTOP)
    command = [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"]
    second = subprocess.Popen(
        command, env=machine.environment, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: (task.look()["trigger"] or {}).get("triggerer_id") not in (None, first), "the takeover", 180)
        for member in frozen:
            member.send_signal(signal.SIGCONT)
        time.sleep(15)  # it would have cancelled within a second or two
        assert [entry["outcome"] for entry in task.effects()] == [None]
        assert task.look()["state"] == "deferred"
    finally:
        for member in frozen:
            member.send_signal(signal.SIGCONT)
        children = psutil.Process(second.pid).children(recursive=True)
        second.terminate()
        second.wait(60)
        for child in children:
            wait_for(lambda child=child: not child.is_running(), "the second triggerer's end", 30)
    task.mark("failed")
    assert str(task.ended()[0]["outcome"]).lower().startswith("cancel")
    task.again()
    task.wait("success")
