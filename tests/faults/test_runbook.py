"""The on-call runbook (docs/runbook.md), chapter by chapter: its commands are run, and the requests of its clicks are sent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

import pytest

from local import control
from local.airflow_api import DagRun
from local.settings import REPOSITORY
from tests.support.cloud.faults import Faults, wait_for
from tests.support.machines.day_content import content, follow, runs, settle, written
from tests.support.machines.machine import Machine
from tests.support.machines.new_days import new_day, purchases

pytestmark = pytest.mark.timeout(1500)

RUNBOOK = (REPOSITORY / "docs/runbook.md").read_text(encoding="utf-8")
SCORES = "gold.customer_churn_scores"


def chapter(title: str) -> str:
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert match, f"the runbook has no chapter {title!r}"
    return match[1]


def commands(title: str, **words: date) -> list[str]:
    """The chapter's commands, with its placeholders of days filled in."""
    lines = [line.strip() for line in chapter(title).splitlines() if line.startswith("    ")]
    assert lines, f"the chapter {title!r} has no commands"
    for word, day in words.items():
        lines = [re.sub(rf"\b{word}\b", str(day), line) for line in lines]
    left = [line for line in lines if re.search(r"\b(D|FIRST|LAST|AFTER)\b", line)]
    assert not left, f"placeholders without a day: {left}"
    return lines


def shell(machine: Machine, command: str) -> str:
    """Run one line as a user types it, in a shell with the machine's environment."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["sh", "-c", command], env=machine.environment | {"PATH": path}, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def failed_run(machine: Machine, day: date, timeout: float = 600) -> DagRun:
    """The newest run of the day's ingestion, once it has failed."""

    def newest_failed() -> DagRun | None:
        day_runs = machine.airflow.runs("transactions_ingest", partition_key=str(day))
        return day_runs[0] if day_runs and day_runs[0].state == "failed" else None

    run: DagRun = wait_for(newest_failed, f"the failure of transactions_ingest for {day}", timeout)
    return run


@pytest.fixture(autouse=True)
def at_rest(machine: Machine, shop_days: list[date]) -> Iterator[None]:
    yield
    settle(machine)


def test_the_table_of_days_shows_no_pending_day(machine: Machine, shop_days: list[date]) -> None:
    settle(machine)
    show_days, start_arrivals = commands("What is wrong?")
    assert str(shop_days[-1]) in shell(machine, show_days)
    known = {run.run_id for run in machine.airflow.runs("arrivals")}
    shell(machine, start_arrivals)
    machine.airflow.wait_for_new("arrivals", known)


@pytest.mark.parametrize("way", ["commands", "clicks"])
def test_one_day_has_failed(machine: Machine, faults: Faults, way: str) -> None:
    day = new_day(machine)
    tries = faults.add(
        {"run": {"how": "fails", "seconds": 1}}, path=".*/runs/submit", body=f"clean_day-{day}", times=None
    )
    machine.land_file(str(day), "x.csv", purchases(day, 3))
    run = failed_run(machine, day)
    faults.delete(tries)
    known = runs(machine, day)
    if way == "commands":
        for command in commands("One day has failed", D=day):
            shell(machine, command)
    else:
        request = {"dry_run": False, "only_failed": True}
        machine.airflow.call("POST", f"/dags/transactions_ingest/dagRuns/{run.run_id}/clear", json=request)
    follow(machine, day, known, ("features", "score", "monitor"))
    again = machine.airflow.runs("transactions_ingest", partition_key=str(day))
    assert [(each.run_id, each.state) for each in again] == [(run.run_id, "success")], "the same run, and no other"
    assert len(machine.rows("silver.transactions", "day", str(day))) == 3


def test_several_days_have_failed(machine: Machine, faults: Faults) -> None:
    first = new_day(machine)
    days = [first, first + timedelta(days=1)]
    body = "clean_day-(" + "|".join(map(str, days)) + ")"
    broken = faults.add({"run": {"how": "fails", "seconds": 1}}, path=".*/runs/submit", body=body, times=None)
    for day in days:
        machine.land_file(str(day), "x.csv", purchases(day, 3))
    for day in days:
        failed_run(machine, day)
    faults.delete(broken)
    known = {day: runs(machine, day) for day in days}
    (command,) = commands("Several days have failed", FIRST=days[0], LAST=days[-1])
    shell(machine, command)
    for day in days:
        follow(machine, day, known[day], ("features", "score", "monitor"))
    settle(machine)
    rebuilt, known = {day: content(machine, day) for day in days}, {day: runs(machine, day) for day in days}
    # by clicks: the backfill, as the UI requests it
    request = {
        "dag_id": "transactions_calendar",
        "from_date": f"{days[0]}T00:00:00Z",
        "to_date": f"{days[-1] + timedelta(days=1)}T00:00:00Z",
        "reprocess_behavior": "completed",
        "max_active_runs": 10,
        "run_backwards": False,
        "dag_run_conf": {},
    }
    machine.airflow.call("POST", "/backfills", json=request)
    for day in days:
        follow(machine, day, known[day])
    assert {day: content(machine, day) for day in days} == rebuilt


def test_upstream_has_sent_a_week_again(machine: Machine, shop_days: list[date]) -> None:
    settle(machine)
    week, before_it = shop_days[-3:], shop_days[-4]
    last = new_day(machine) - timedelta(days=1)
    untouched = content(machine, before_it)
    built = {day: len(written(machine, SCORES, day)) for day in {*week, last}}
    for day in week:
        machine.land_file(str(day), "again.csv", purchases(day, 5, "again"))
    settle(machine)
    show_days, history, load = commands("Upstream has sent a week again", FIRST=week[0], LAST=week[-1])
    assert "stale" not in shell(machine, show_days)
    assert str(week[0]) in shell(machine, history).splitlines()[-2], "the newest entry names the days that caused it"
    assert content(machine, before_it) == untouched
    for day in (*week, last):
        # once per day when the week arrives together; on a busy machine its days may arrive one by one
        assert 1 <= len(written(machine, SCORES, day)) - built[day] <= len(week)
    rows = {day: content(machine, day) for day in week}
    known = {run.run_id for run in machine.airflow.runs("transactions_load_history")}
    shell(machine, load)
    machine.airflow.wait_for_new("transactions_load_history", known)
    settle(machine)
    assert {day: content(machine, day) for day in week} == rows, "the same files again give the same rows"


def test_wrong_data_was_accepted_yesterday(machine: Machine) -> None:
    day = new_day(machine)
    known = runs(machine, day)
    machine.land_file(str(day), "x.csv", purchases(day, 2, "wrong"))
    follow(machine, day, known)
    settle(machine)
    trained = {run.run_id for run in machine.airflow.runs("churn_train")}
    machine.land_file(str(day), "x.csv", purchases(day, 4, "right"))
    settle(machine)
    outputs = [
        shell(machine, command) for command in commands("Wrong data was accepted yesterday", D=day, FIRST=day, LAST=day)
    ]
    assert {row["transaction_id"] for row in machine.rows("silver.transactions", "day", str(day))} == {
        f"right{n}" for n in range(4)
    }
    assert len(outputs[1].splitlines()) >= 3, "the wrong scores and the right ones"
    assert len(outputs) == 4
    machine.airflow.wait_for_new("churn_train", trained)


@pytest.mark.parametrize("way", ["commands", "clicks"])
def test_the_champion_was_wrong_for_three_days(machine: Machine, shop_days: list[date], way: str) -> None:
    days = shop_days[-3:]
    right = served_by(machine, days[-1])
    wrong = another_champion(machine)
    rescore(machine, days, wrong)
    title = "The champion was wrong for three days"
    roll_back, rescore_days = commands(title, FIRST=days[0], LAST=days[-1])
    known = {day: runs(machine, day) for day in days}
    if way == "commands":
        shell(machine, roll_back)
        shell(machine, roll_back)  # the second call has no effect
        shell(machine, rescore_days)
    else:
        machine.airflow.wait(machine.airflow.trigger("churn_rollback", conf={"why": "it calls everybody lost"}))
        conf = {"first": str(days[0]), "last": str(days[-1])}
        machine.airflow.wait(machine.airflow.trigger("churn_on_champion", conf=conf))
    for day in days:
        follow(machine, day, known[day], ("score", "monitor"))
        assert served_by(machine, day) == right
        versions = [entry["model_version"] for entry in written(machine, SCORES, day)]
        assert versions[-1] == right
        assert wrong in versions
    assert "it calls everybody lost" in machine.python("-m", "ml", "registry", "--model", "churn", "history").stdout


def served_by(machine: Machine, day: date) -> str:
    (version,) = {row["model_version"] for row in machine.rows(SCORES, "score_date", str(day))}
    return str(version)


def another_champion(machine: Machine) -> str:
    """Train a version and make it champion, whatever the gate decides."""
    before = {run.run_id for run in machine.airflow.runs("churn_promote")}
    run = machine.airflow.wait(machine.airflow.trigger("churn_train"))
    version = str(machine.airflow.xcom(run, "train_model")["version"])
    machine.airflow.wait_for_new("churn_promote", before)
    machine.python("-m", "tests.faults.put_in_production", version)
    return version


def rescore(machine: Machine, days: list[date], version: str) -> None:
    known = {day: runs(machine, day) for day in days}
    conf = {"first": str(days[0]), "last": str(days[-1])}
    machine.airflow.wait(machine.airflow.trigger("churn_on_champion", conf=conf))
    for day in days:
        follow(machine, day, known[day], ("score", "monitor"))
        assert served_by(machine, day) == version


def test_the_machine_died(machine: Machine) -> None:
    """In the middle of a day every process of the machine is killed at once, as by a power failure."""
    day = new_day(machine)
    machine.land_file(str(day), "x.csv", purchases(day, 6))

    def cleaning() -> bool:
        day_runs = machine.airflow.runs("transactions_ingest", partition_key=str(day))
        return bool(day_runs) and any(
            task["task_id"] == "clean_day" and task["state"] in ("running", "deferred")
            for task in machine.airflow.tasks(day_runs[0])
        )

    wait_for(cleaning, f"the cleaning of {day}", 300)
    power_off(machine)
    for command in commands("The machine died"):
        shell(machine, command)
    settle(machine)
    assert len(machine.rows("silver.transactions", "day", str(day))) == 6
    assert machine.ingested(str(day))["silver"] == 6


def power_off(machine: Machine) -> None:
    """Kill (-9) every process that belongs to the machine, until none is left."""

    def gone() -> bool:
        for process in control.leftovers(machine.settings.run_dir):
            with suppress(ProcessLookupError):  # it may have ended with another process
                os.kill(process.pid, signal.SIGKILL)
        return not control.leftovers(machine.settings.run_dir)

    wait_for(gone, "the end of every process", 30)
