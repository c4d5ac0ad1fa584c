"""One day through the loop while the machine is disturbed, and what must be true afterwards."""

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
from local.nodes import Nodes, dag_ids
from local.state import load
from ml.config import load_project
from tests.support.cloud.faults import command
from tests.support.machines.day_content import DAGS, content, tables_of
from tests.support.machines.machine import Machine


def forget(machine: Machine, day: date) -> None:
    """Remove a day of transactions from every table, so that rows that are present afterwards were written afterwards."""
    machine.storage("empty_day", str(day), json.dumps(tables_of("transactions")))
    assert not any(content(machine, day).values())


def retry(call: Callable[[], Any], timeout: float = 180) -> Any:
    """The response of an Airflow that may be restarting."""
    end = time.monotonic() + timeout
    while True:
        try:
            return call()
        except requests.RequestException:
            if time.monotonic() > end:
                raise
            time.sleep(1)


QUIET = 15  # seconds without a run: the run of an event exists within ten


def quiet(machine: Machine, timeout: float = 600) -> None:
    """Wait until no run changes days or champions any more: runs that an earlier test started may still be going on."""
    dags = [dag_id for dag_id in dag_ids(load_project()) if not dag_id.endswith(("arrivals", "_calendar", "_report"))]
    end, quiet_since = time.monotonic() + timeout, time.monotonic()
    while time.monotonic() < quiet_since + QUIET:
        busy = [
            run
            for dag_id in dags
            for run in retry(lambda dag_id=dag_id: machine.airflow.runs(dag_id))
            if run.state not in OVER
        ]
        assert not busy or time.monotonic() < end, f"runs are still going on: {busy}"
        quiet_since = time.monotonic() if busy else quiet_since
        time.sleep(1)


def dags_of_a_day() -> list[str]:
    """The Dags of transactions and of all that is built on them, in the order in which a day passes them."""
    return Nodes.downstream(load_project(), "transactions").dags("ingest", "features", "score", "monitor")


def runs(machine: Machine, stage: str, day: date) -> list[DagRun]:
    """The day's runs of a Dag, or of the Dag of a stage."""
    dag_id = DAGS.get(stage, stage)
    day_runs: list[DagRun] = retry(lambda: machine.airflow.runs(dag_id, partition_key=str(day)))
    return day_runs


def known(machine: Machine, day: date) -> set[str]:
    return {run.run_id for dag_id in dags_of_a_day() for run in runs(machine, dag_id, day)}


def newest(machine: Machine, stage: str, day: date, before: set[str]) -> DagRun | None:
    new = [run for run in runs(machine, stage, day) if run.run_id not in before]
    return new[0] if new else None


def at_work(machine: Machine, run: DagRun, task_id: str) -> bool:
    """Whether a task has started, or has already succeeded."""
    tasks = retry(lambda: machine.airflow.tasks(run))
    return any(task["task_id"] == task_id and task["state"] in ("running", "deferred", "success") for task in tasks)


def started(machine: Machine, stage: str, task_id: str, day: date, before: set[str], timeout: float = 420) -> DagRun:
    """The day's new run of a stage once that task has started. Raises AssertionError when the run failed."""
    end = time.monotonic() + timeout
    while True:
        run = newest(machine, stage, day, before)
        if run is not None:
            if at_work(machine, run, task_id):
                return run
            assert run.state != "failed", machine.airflow.explain(run)
        assert time.monotonic() < end, f"{task_id} of {stage} for {day} has not started within {timeout:.0f} s"
        time.sleep(0.2)


def ended(machine: Machine, stage: str, day: date, before: set[str], timeout: float = 600) -> DagRun:
    """The day's new run of a stage once it has succeeded. Raises AssertionError when it failed."""
    end = time.monotonic() + timeout
    while True:
        run = newest(machine, stage, day, before)
        if run is not None and run.state in OVER:
            assert run.state == "success", machine.airflow.explain(run)
            return run
        assert time.monotonic() < end, f"{stage} of {day} is {run and run.state} after {timeout:.0f} s"
        time.sleep(0.5)


def service(machine: Machine, name: str) -> psutil.Process:
    """The process of a service, once it is ready."""
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
    """Processes of this machine that do not descend from its guard, among them orphaned runs of the cluster."""
    status = load(machine.settings.run_dir)
    assert status is not None
    ours = {status.guard.pid, *(process.pid for process in processes.descendants(status.guard.pid))}
    strays = [process for process in control.leftovers(machine.settings.run_dir) if process.pid not in ours]
    return [f"{process.pid} {' '.join(words)}" for process in strays if (words := command(process.pid))]


def leftover_files(machine: Machine) -> list[str]:
    """Temporary files that nothing needs any more: of runs, of copies, of services."""
    state = machine.settings.run_dir
    paths = [*state.glob("tmp/*"), *state.glob("standins/runs/*/tmp"), *state.glob("standins/copying/*")]
    paths += [*state.glob(".*.json.*"), *state.glob("standins/.*.*[0-9]"), *state.glob("standins/wheels/.tmp-*")]
    return sorted(str(path.relative_to(state)) for path in paths)


def held_leases(machine: Machine) -> list[str]:
    """Blobs of the lake that are still leased after the time in which a dead holder's lease expires."""
    end = time.monotonic() + 20
    held: list[str]
    while held := machine.storage("leased_blobs"):
        if time.monotonic() > end:
            return held
        time.sleep(1)
    return []


def repeated(machine: Machine, since: int) -> dict[tuple[str, str], int]:
    """Run keys for which a service started work more than once, among the ledger entries after `since`."""
    effects = Counter(
        (entry["service"], entry["run_key"])
        for entry in machine.ledger()
        if entry["id"] > since and entry["run_key"] and entry["first"] is None
    )
    return {key: count for key, count in effects.items() if count > 1}


def last_entry(machine: Machine) -> int:
    return max((entry["id"] for entry in machine.ledger()), default=0)


def assert_settled(machine: Machine, since: int) -> None:
    """Check that nothing was lost, done twice or left behind."""
    all_ready(machine)
    assert repeated(machine, since) == {}
    end = time.monotonic() + 60  # finished work may still be ending, or have started a run that goes on
    while left := [*orphans(machine), *leftover_files(machine)]:
        assert time.monotonic() < end, f"processes or files are left: {left}"
        time.sleep(0.5)
    assert held_leases(machine) == []
