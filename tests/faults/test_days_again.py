"""Days again: whoever asks, however often, and while Dags are paused, the tables end as in an undisturbed run."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import date, timedelta
from functools import partial

import pytest

from local.settings import REPOSITORY
from tests.faults.faults import Faults, wait_for
from tests.support.day_content import STAGES, content, follow, runs, settle, written
from tests.support.machine import Machine
from tests.support.new_days import new_day, purchases

pytestmark = pytest.mark.timeout(1500)

NONE: dict[str, set[str]] = {stage: set() for stage in STAGES}  # runs of a day that is new


def pause(machine: Machine, dag_id: str, paused: bool) -> None:
    machine.airflow.call("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})


@pytest.mark.parametrize("stage", STAGES)
def test_a_paused_dag_that_is_unpaused_catches_up(machine: Machine, shop_days: list[date], stage: str) -> None:
    """Two days arrive while it is paused; Airflow forgets their keys, the next arrivals run asked for by hand does not."""
    first = new_day(machine)
    days = [first, first + timedelta(days=1)]
    pause(machine, f"churn_{stage}", paused=True)
    try:
        for day in days:
            machine.land_file(str(day), "x.csv", purchases(day, 3))
        ahead = STAGES[: STAGES.index(stage)]
        for day in days:
            follow(machine, day, NONE, ahead)
        if not ahead:  # until arrivals has asked for them
            known = {run.run_id for run in machine.airflow.runs("churn_arrivals")}
            machine.airflow.wait_for_new("churn_arrivals", known)
        time.sleep(5)  # the event is stored with the task's success, and would have made a run by now
        for day in days:
            assert runs(machine, day)[stage] == set()
    finally:
        pause(machine, f"churn_{stage}", paused=False)
    settle(machine)
    for day in days:
        assert len(machine.rows("silver.transactions", "day", str(day))) == 3
        follow(machine, day, NONE)


def test_a_paused_dag_that_is_unpaused_catches_up_by_itself(machine: Machine, shop_days: list[date]) -> None:
    day = new_day(machine)
    pause(machine, "churn_features", paused=True)
    try:
        machine.land_file(str(day), "x.csv", purchases(day, 3))
        follow(machine, day, NONE, ("ingest",))
        time.sleep(5)
    finally:
        pause(machine, "churn_features", paused=False)
    settle(machine, by_hand=False)
    assert len(runs(machine, day)["features"]) == 1


def test_days_that_arrived_while_arrivals_was_paused_are_found(machine: Machine, shop_days: list[date]) -> None:
    day = new_day(machine)
    pause(machine, "churn_arrivals", paused=True)
    try:
        machine.land_file(str(day), "x.csv", purchases(day, 3))
        time.sleep(10)
        assert runs(machine, day)["ingest"] == set()
    finally:
        pause(machine, "churn_arrivals", paused=False)
    settle(machine, by_hand=False)
    follow(machine, day, NONE)


def is_built(machine: Machine, stage: str, day: date) -> bool:
    return stage in [row["stage"] for row in machine.rows("ops.built_days", "day", str(day))]


def test_a_person_who_asks_for_what_is_on_its_way_gets_it_once(
    machine: Machine, shop_days: list[date], faults: Faults
) -> None:
    """The tables tell what a stage has done before its run has ended, and its event has started the next one."""
    day = new_day(machine)
    settle(machine)
    faults.add({"wait": 8}, method="GET", path=r"/api/2\.\d/jobs/runs/get", times=None)  # so long nobody sees the end
    machine.land_file(str(day), "x.csv", purchases(day, 3))
    for stage in ("validate", "features", "score"):
        wait_for(partial(is_built, machine, stage, day), f"{stage} of {day} in the journal", 300)
        machine.airflow.wait(machine.airflow.trigger("churn_arrivals"))
    follow(machine, day, NONE)
    quiet(machine)
    assert {stage: len(found) for stage, found in runs(machine, day).items()} == dict.fromkeys(STAGES, 1)


def test_everybody_at_once_gives_what_one_gives(machine: Machine, shop_days: list[date]) -> None:
    """A backfill, an arrival told three times in seconds, two people at shells and a history that is loaded: one day."""
    day = shop_days[-2]
    settle(machine)
    before = {one: content(machine, one) for one in shop_days[-3:]}
    versions = {one: len(written(machine, "features.customers", one)) for one in (shop_days[-3], shop_days[-1])}
    known = runs(machine, day)
    history = {"first": str(day), "last": str(day)}
    machine.airflow.trigger("churn_load_history", conf=history)
    for _ in range(3):
        machine.airflow.trigger("churn_ingest", partition_key=str(day))
    asked = [
        ["airflow", "backfill", "create", "--dag-id", "churn_calendar", "--from-date", str(day),
         "--to-date", str(day + timedelta(days=1)), "--reprocess-behavior", "completed"],
        *(["ml", "ingest", "--days", str(day), "--run-key", f"person-{n}"] for n in (1, 2)),
        *(["ml", "features", "--as-of", str(day), "--run-key", f"person-{n}"] for n in (1, 2)),
        *(["ml", "score", "--day", str(day), "--run-key", f"person-{n}"] for n in (1, 2)),
    ]  # fmt: skip
    together = [
        subprocess.Popen(
            [sys.executable, "-m", *one], env=machine.environment, cwd=REPOSITORY, stdout=subprocess.DEVNULL
        )
        for one in asked
    ]
    assert [one.wait(600) for one in together] == [0] * len(together)
    for stage in STAGES:
        machine.airflow.wait_for_new(f"churn_{stage}", known[stage], partition_key=str(day))
    quiet(machine)
    settle(machine)
    assert {one: content(machine, one) for one in shop_days[-3:]} == before
    assert versions == {one: len(written(machine, "features.customers", one)) for one in versions}, (
        "days that look back on it were made again, though its content is what it was"
    )


def quiet(machine: Machine, timeout: float = 900) -> None:
    """Until no stage has a run that is queued or running."""
    end = time.monotonic() + timeout
    dag_ids = [f"churn_{stage}" for stage in (*STAGES, "load_history", "calendar")]
    while any(run.state in ("queued", "running") for dag_id in dag_ids for run in machine.airflow.runs(dag_id)):
        assert time.monotonic() < end, "there are still runs"
        time.sleep(2)


def test_a_day_that_is_cleared_whole_is_rebuilt_row_for_row(machine: Machine, shop_days: list[date]) -> None:
    """Every task of the day's newest run again, though nothing had failed and nothing has changed."""
    day = shop_days[-1]
    settle(machine)
    before, known = content(machine, day), runs(machine, day)
    newest = machine.airflow.runs("churn_ingest", partition_key=str(day))[0]
    asked = {"dry_run": False, "only_failed": False}
    machine.airflow.call("POST", f"/dags/churn_ingest/dagRuns/{newest.run_id}/clear", json=asked)
    follow(machine, day, known, ("features", "score", "monitor"))
    assert content(machine, day) == before
    assert machine.rows("ops.ingested_days", "day", str(day))[0]["run_key"].startswith("churn_ingest-clean_day")


def test_no_partition_waits_for_a_run(machine: Machine, shop_days: list[date]) -> None:
    """After all that: what waits for a second asset would wait for ever, and 500 such stop everything."""
    quiet(machine)
    told = machine.python("-m", "local.pending").stdout
    assert told.splitlines()[-1] == "0 of 500: nothing waits"
