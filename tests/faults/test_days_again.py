"""Days are requested again: by several callers, repeatedly, and while Dags are paused. The tables end as in an undisturbed run."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import date, timedelta
from functools import partial

import pytest

from local.nodes import dag_ids
from local.settings import REPOSITORY
from ml.config import load_project
from tests.support.cloud.faults import Faults, wait_for
from tests.support.machines.day_content import DAGS, STAGES, content, follow, runs, settle, written
from tests.support.machines.machine import Machine
from tests.support.machines.new_days import new_day, purchases

pytestmark = pytest.mark.timeout(1500)

NO_RUNS: dict[str, set[str]] = {stage: set() for stage in STAGES}  # of a new day


def pause(machine: Machine, dag_id: str, paused: bool) -> None:
    machine.airflow.call("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})


@pytest.mark.parametrize("stage", STAGES)
def test_a_paused_dag_that_is_unpaused_catches_up(machine: Machine, shop_days: list[date], stage: str) -> None:
    """Two days arrive while it is paused; Airflow loses their keys, and the next arrivals run, started by hand, finds them."""
    first = new_day(machine)
    days = [first, first + timedelta(days=1)]
    pause(machine, DAGS[stage], paused=True)
    try:
        for day in days:
            machine.land_file(str(day), "x.csv", purchases(day, 3))
        ahead = STAGES[: STAGES.index(stage)]
        for day in days:
            follow(machine, day, NO_RUNS, ahead)
        if not ahead:  # wait until arrivals has requested them
            known = {run.run_id for run in machine.airflow.runs("arrivals")}
            machine.airflow.wait_for_new("arrivals", known)
        time.sleep(5)  # the event is stored with the task's success, and would have started a run by now
        for day in days:
            assert runs(machine, day)[stage] == set()
    finally:
        pause(machine, DAGS[stage], paused=False)
    settle(machine)
    for day in days:
        assert len(machine.rows("silver.transactions", "day", str(day))) == 3
        follow(machine, day, NO_RUNS)


def test_a_paused_dag_that_is_unpaused_catches_up_by_itself(machine: Machine, shop_days: list[date]) -> None:
    day = new_day(machine)
    pause(machine, "customers_features", paused=True)
    try:
        machine.land_file(str(day), "x.csv", purchases(day, 3))
        follow(machine, day, NO_RUNS, ("ingest",))
        time.sleep(5)
    finally:
        pause(machine, "customers_features", paused=False)
    settle(machine, by_hand=False)
    assert len(runs(machine, day)["features"]) == 1


def test_days_that_arrived_while_arrivals_was_paused_are_found(machine: Machine, shop_days: list[date]) -> None:
    day = new_day(machine)
    pause(machine, "arrivals", paused=True)
    try:
        machine.land_file(str(day), "x.csv", purchases(day, 3))
        time.sleep(10)
        assert runs(machine, day)["ingest"] == set()
    finally:
        pause(machine, "arrivals", paused=False)
    settle(machine, by_hand=False)
    follow(machine, day, NO_RUNS)


def is_built(machine: Machine, node: str, day: date) -> bool:
    return node in [row["node"] for row in machine.rows("ops.built_days", "day", str(day))]


def test_arrivals_started_by_hand_while_a_day_is_on_its_way_request_nothing_twice(
    machine: Machine, shop_days: list[date], faults: Faults
) -> None:
    """The tables show a stage's work before its run has ended and its event has started the next one."""
    day = new_day(machine)
    settle(machine)
    # delays by seconds the moment at which Airflow sees the end of a run
    faults.add({"wait": 8}, method="GET", path=r"/api/2\.\d/jobs/runs/get", times=None)
    machine.land_file(str(day), "x.csv", purchases(day, 3))
    for node in ("silver.transactions", "features.customers", "churn.score"):
        wait_for(partial(is_built, machine, node, day), f"{node} of {day} in the journal", 300)
        machine.airflow.wait(machine.airflow.trigger("arrivals"))
    follow(machine, day, NO_RUNS)
    wait_for_runs(machine)
    assert {stage: len(run_ids) for stage, run_ids in runs(machine, day).items()} == dict.fromkeys(STAGES, 1)


def test_several_callers_at_once_give_the_result_of_one(machine: Machine, shop_days: list[date]) -> None:
    """A backfill, an arrival reported three times, two people at shells and a history load, all of one day."""
    day = shop_days[-2]
    settle(machine)
    before = {each: content(machine, each) for each in shop_days[-3:]}
    versions = {each: len(written(machine, "features.customers", each)) for each in (shop_days[-3], shop_days[-1])}
    known = runs(machine, day)
    history = {"first": str(day), "last": str(day)}
    machine.airflow.trigger("transactions_load_history", conf=history)
    for _ in range(3):
        machine.airflow.trigger("transactions_ingest", partition_key=str(day))
    commands = [
        ["airflow", "backfill", "create", "--dag-id", "transactions_calendar", "--from-date", str(day),
         "--to-date", str(day + timedelta(days=1)), "--reprocess-behavior", "completed"],
        *(["ml", "ingest", "--source", "transactions", "--days", str(day), "--run-key", f"person-{n}"] for n in (1, 2)),
        *(["ml", "features", "--table", "customers", "--as-of", str(day), "--run-key", f"person-{n}"] for n in (1, 2)),
        *(["ml", "score", "--model", "churn", "--day", str(day), "--run-key", f"person-{n}"] for n in (1, 2)),
    ]  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *command], env=machine.environment, cwd=REPOSITORY, stdout=subprocess.DEVNULL
        )
        for command in commands
    ]
    assert [process.wait(600) for process in processes] == [0] * len(processes)
    for stage in STAGES:
        machine.airflow.wait_for_new(DAGS[stage], known[stage], partition_key=str(day))
    wait_for_runs(machine)
    settle(machine)
    assert {each: content(machine, each) for each in shop_days[-3:]} == before
    assert versions == {each: len(written(machine, "features.customers", each)) for each in versions}, (
        "days that look back on it were rebuilt, though its content has not changed"
    )


def wait_for_runs(machine: Machine, timeout: float = 900) -> None:
    """Wait until no Dag but the sweep's has a run that is queued or running."""
    end = time.monotonic() + timeout
    ids = [dag_id for dag_id in dag_ids(load_project()) if dag_id != "arrivals"]
    while any(run.state in ("queued", "running") for dag_id in ids for run in machine.airflow.runs(dag_id)):
        assert time.monotonic() < end, f"runs are still going on after {timeout:.0f} s"
        time.sleep(2)


def test_a_day_whose_run_is_cleared_is_rebuilt_row_for_row(machine: Machine, shop_days: list[date]) -> None:
    """Every task of the day's newest run runs again, though nothing has failed or changed."""
    day = shop_days[-1]
    settle(machine)
    before, known = content(machine, day), runs(machine, day)
    newest = machine.airflow.runs("transactions_ingest", partition_key=str(day))[0]
    request = {"dry_run": False, "only_failed": False}
    machine.airflow.call("POST", f"/dags/transactions_ingest/dagRuns/{newest.run_id}/clear", json=request)
    follow(machine, day, known, ("features", "score", "monitor"))
    assert content(machine, day) == before
    assert machine.ingested(str(day))["run_key"].startswith("transactions_ingest-clean_day")


def test_no_partition_waits_for_a_run(machine: Machine, shop_days: list[date]) -> None:
    """After all other tests. A partition that waits for a second asset would wait for ever, and 500 of them stop all scheduling."""
    wait_for_runs(machine)
    output = machine.python("-m", "local.pending").stdout
    assert output.splitlines()[-1] == "0 of 500: nothing waits"
