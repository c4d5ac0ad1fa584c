"""One day through the loop while something is done to the machine, and what must be true afterwards."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Any

import psutil
import requests

from local import control, processes
from local.airflow_api import OVER, DagRun
from local.state import load
from tests.faults.faults import command
from tests.support.day_content import STAGES, TABLES, content
from tests.support.machine import Machine


def forget(machine: Machine, day: date) -> None:
    """Take a day out of every table, so that what is there afterwards was made afterwards."""
    code = (
        "import sys, json, datetime; from ml import lake\n"
        "day = datetime.date.fromisoformat(sys.argv[1])\n"
        "for name, column in json.loads(sys.argv[2]).items():\n"
        "    schema = lake.dataset(name).schema\n"
        "    lake.replace(name, schema.empty_table(), lake.day_predicate(column, [day]))\n"
    )
    machine.python("-c", code, str(day), json.dumps(TABLES))
    assert not any(content(machine, day).values())


def patiently(ask: Callable[[], Any], timeout: float = 180) -> Any:
    """The answer of an Airflow that may be starting again."""
    end = time.monotonic() + timeout
    while True:
        try:
            return ask()
        except requests.RequestException:
            if time.monotonic() > end:
                raise
            time.sleep(1)


QUIET = 15  # seconds without a run: an event's run is there within ten


def quiet(machine: Machine, timeout: float = 600) -> None:
    """Wait until nothing moves days or champions any more: what a test before has set off may still be on its way."""
    stages = (*STAGES, "train", "promote", "on_champion")
    end, still = time.monotonic() + timeout, time.monotonic()
    while time.monotonic() < still + QUIET:
        busy = [
            run
            for stage in stages
            for run in patiently(lambda dag_id=f"churn_{stage}": machine.airflow.runs(dag_id))
            if run.state not in OVER
        ]
        assert not busy or time.monotonic() < end, f"still on its way: {busy}"
        still = time.monotonic() if busy else still
        time.sleep(1)


def runs(machine: Machine, stage: str, day: date) -> list[DagRun]:
    found: list[DagRun] = patiently(lambda: machine.airflow.runs(f"churn_{stage}", partition_key=str(day)))
    return found


def known(machine: Machine, day: date) -> set[str]:
    return {run.run_id for stage in STAGES for run in runs(machine, stage, day)}


def newest(machine: Machine, stage: str, day: date, before: set[str]) -> DagRun | None:
    new = [run for run in runs(machine, stage, day) if run.run_id not in before]
    return new[0] if new else None


def at_work(machine: Machine, run: DagRun, task_id: str) -> bool:
    """Whether a task has begun, or is over already."""
    tasks = patiently(lambda: machine.airflow.tasks(run))
    return any(one["task_id"] == task_id and one["state"] in ("running", "deferred", "success") for one in tasks)


def begun(machine: Machine, stage: str, task_id: str, day: date, before: set[str], timeout: float = 420) -> DagRun:
    """The day's new run of a stage once that task of it is at work, or over. Raises AssertionError when the run failed."""
    end = time.monotonic() + timeout
    while True:
        run = newest(machine, stage, day, before)
        if run is not None:
            if at_work(machine, run, task_id):
                return run
            assert run.state != "failed", machine.airflow.explain(run)
        assert time.monotonic() < end, f"{task_id} of {stage} for {day} has not begun within {timeout:.0f} s"
        time.sleep(0.2)


def ended(machine: Machine, stage: str, day: date, before: set[str], timeout: float = 600) -> DagRun:
    """The day's new run of a stage when it has succeeded. Raises AssertionError when it has not."""
    end = time.monotonic() + timeout
    while True:
        run = newest(machine, stage, day, before)
        if run is not None and run.state in OVER:
            assert run.state == "success", machine.airflow.explain(run)
            return run
        assert time.monotonic() < end, f"{stage} of {day} is {run and run.state} after {timeout:.0f} s"
        time.sleep(0.5)


def service(machine: Machine, name: str) -> psutil.Process:
    """The process of a service that is up."""
    end = time.monotonic() + 180
    while True:
        status = load(machine.settings.run_dir)
        assert status is not None
        unit = status.units[name]
        if unit.pid is not None and unit.state == "ready":
            return psutil.Process(unit.pid)
        assert time.monotonic() < end, f"{name} is {unit.state}: {unit.detail}"
        time.sleep(0.1)


def all_ready(machine: Machine) -> None:
    status = load(machine.settings.run_dir)
    assert status is not None
    for name, unit in status.units.items():
        if not unit.once:
            service(machine, name)


def orphans(machine: Machine) -> list[str]:
    """Processes of this machine that do not descend from its guard, and runs of the cluster that nobody follows."""
    status = load(machine.settings.run_dir)
    assert status is not None
    ours = {status.guard.pid, *(one.pid for one in processes.descendants(status.guard.pid))}
    strays = [one for one in control.leftovers(machine.settings.run_dir) if one.pid not in ours]
    return [f"{one.pid} {' '.join(words)}" for one in strays if (words := command(one.pid))]


def leftover_files(machine: Machine) -> list[str]:
    """Files in passing that nobody needs any more: of runs, of copies, of services."""
    state = machine.settings.run_dir
    found = [*state.glob("tmp/*"), *state.glob("standins/runs/*/tmp"), *state.glob("standins/copying/*")]
    found += [*state.glob(".*.json.*"), *state.glob("standins/.*.*[0-9]"), *state.glob("standins/wheels/.tmp-*")]
    return sorted(str(path.relative_to(state)) for path in found)


def held_leases(machine: Machine) -> list[str]:
    """Blobs of the lake that somebody still holds, after the time that a dead holder's lease has."""
    code = (
        "from ml import store\n"
        "held = [b.name for b in store.lake().client.list_blobs() if b.lease.state == 'leased']\n"
        "print(*held, sep='\\n')"
    )
    end = time.monotonic() + 20
    while held := machine.python("-c", code).stdout.split():
        if time.monotonic() > end:
            return held
        time.sleep(1)
    return []


def repeated(machine: Machine, since: int) -> dict[tuple[str, str], int]:
    """Run keys for which a service was made to work more than once, among the entries after `since`."""
    effects = Counter(
        (entry["service"], entry["run_key"])
        for entry in machine.ledger()
        if entry["id"] > since and entry["run_key"] and entry["first"] is None
    )
    return {key: count for key, count in effects.items() if count > 1}


def last_entry(machine: Machine) -> int:
    return max((entry["id"] for entry in machine.ledger()), default=0)


def settled(machine: Machine, since: int) -> None:
    """Nothing was lost, done twice or left behind."""
    all_ready(machine)
    assert repeated(machine, since) == {}
    end = time.monotonic() + 60  # what was done may still be about to end, or have set off something that runs by now
    while left := [*orphans(machine), *leftover_files(machine)]:
        assert time.monotonic() < end, f"processes or files are left: {left}"
        time.sleep(0.5)
    assert held_leases(machine) == []
