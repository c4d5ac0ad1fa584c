"""`make demo`: the whole loop on real purchases, through the running Airflow, and a table of the results.

A history is loaded in bulk, a model is trained on it, passes the gate and becomes champion; then three
single days arrive one after the other and flow through to their scores. The demo can be run again: days that
have already landed are rebuilt instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from rich.console import Console
from rich.table import Table

from local import control, environment, show
from local.airflow_api import Airflow, DagRun, LoopFailedError
from local.settings import REPOSITORY, Settings, SettingsError
from local.state import current_settings

SINGLE_DAYS = 3
MODEL = "churn"
STAGES = ("arrivals", "calendar", "ingest", "load_history", "features", "train", "promote", "on_champion", "score")
DAGS = [f"{MODEL}_{stage}" for stage in (*STAGES, "monitor", "report")]


@dataclass
class Row:
    stage: str
    state: str
    seconds: float
    fact: str


@dataclass
class Demo:
    """One walk through the loop; each method is a part of it and adds its rows to the table."""

    settings: Settings
    console: Console
    airflow: Airflow
    source: list[str]  # arguments of `ml land` that name the data
    rows: list[Row] = field(default_factory=list)

    @contextmanager
    def progress(self, step: str) -> Iterator[None]:
        """Show a step while it goes on, and its duration afterwards."""
        began = time.monotonic()
        with self.console.status(step):
            yield
        self.console.print(f"[green]✓[/] {step} [dim]({time.monotonic() - began:.1f} s)[/]", highlight=False)

    def add(self, stage: str, run: DagRun, fact: str, seconds: float | None = None) -> None:
        self.rows.append(Row(stage, run.state, run.seconds if seconds is None else seconds, fact))

    def ml(self, *arguments: str) -> dict[str, Any]:
        """Run a stage of the `ml` package from the command line; its facts. Raises LoopFailedError."""
        command = [sys.executable, "-m", "ml", *arguments]
        result = subprocess.run(
            command, env=os.environ | environment.full(self.settings), capture_output=True, text=True, cwd=REPOSITORY
        )
        if result.returncode:
            raise LoopFailedError(f"{' '.join(command)}:\n{result.stderr.strip()}")
        facts: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return facts

    def known(self, stage: str, day: date | None = None) -> set[str]:
        """The ids of a stage's existing runs."""
        key = day.isoformat() if day else None
        return {run.run_id for run in self.airflow.runs(f"{MODEL}_{stage}", partition_key=key)}

    def follow(self, stage: str, known: set[str], day: date | None = None) -> DagRun:
        """The next run of a stage, once it has succeeded."""
        return self.airflow.wait_for_new(f"{MODEL}_{stage}", known, partition_key=day.isoformat() if day else None)

    # -- the parts of the loop -----------------------------------------------------------------------

    def history(self, first: date, last: date) -> None:
        with self.progress(f"land the days from {first} to {last}"):
            began = time.monotonic()
            landed = self.ml("land", *self.source, "--to", last.isoformat())
            fact = f"{landed['rows']:,} rows in {landed['files']} files of {landed['days']} days"
            self.rows.append(Row("land", "success", time.monotonic() - began, fact))
        features = self.known("features", last)
        score = self.known("score", last)
        with self.progress("load them in one run"):
            conf = {"first": first.isoformat(), "last": last.isoformat()}
            run = self.airflow.wait(self.airflow.trigger(f"{MODEL}_load_history", conf=conf))
            self.add("ingest history", run, describe_ingest(self.airflow.xcom(run, "clean_days")["ingest"]))
        with self.progress(f"features of {last}"):
            run = self.follow("features", features, last)
            self.add("features", run, describe_features(self.airflow.xcom(run, "compute_features")["features"]))
            self.follow("score", score, last)  # without a champion it skips

    def model(self, last: date) -> None:
        promote, rescore = self.known("promote"), self.known("on_champion")
        score, monitor = self.known("score"), self.known("monitor")
        with self.progress(f"train on what was known on {last}"):
            run = self.airflow.wait(self.airflow.trigger(f"{MODEL}_train", conf={"through": last.isoformat()}))
            self.add("train", run, describe_training(self.airflow.xcom(run, "train_model")))
        with self.progress("gate and promotion"):
            run = self.follow("promote", promote)
            if rejection := self.airflow.why_skipped(run):  # a repeated demo trains the champion again
                self.add("gate", run, rejection)
                if self.ml("registry", "production")["version"] is None:
                    raise LoopFailedError(f"the gate rejected the first model: {rejection}")
                return
            self.add("gate", run, describe_decision(self.airflow.xcom(run, "decide")))
            promotion = self.airflow.xcom(run, "promote_version")
            self.add("promote", run, f"champion: {promotion['before'] or 'none'} → {promotion['after']}")
        with self.progress("the champion scores the newest days"):
            rescoring = self.follow("on_champion", rescore)
            for key in self.airflow.xcom(rescoring, "choose_days"):  # in a repeated demo, later days exist already
                day = date.fromisoformat(key)
                run = self.follow("score", score, day)
                self.add(f"score {day}", run, describe_scores(self.airflow.xcom(run, "score_customers")["score"]))
                self.follow("monitor", monitor, day)

    def day(self, day: date) -> None:
        with self.progress(f"{day} arrives, and flows through to its scores"):
            known = {stage: self.known(stage, day) for stage in ("ingest", "features", "score", "monitor")}
            began = time.monotonic()
            landed = self.ml("land", *self.source, "--from", day.isoformat(), "--to", day.isoformat())
            if not landed["written"]:  # in a repeated demo the day has landed already, so it is rebuilt
                self.airflow.trigger(f"{MODEL}_ingest", partition_key=day.isoformat())
            ingest = self.follow("ingest", known["ingest"], day)
            features = self.follow("features", known["features"], day)
            score = self.follow("score", known["score"], day)
            visible = time.monotonic() - began
            monitor = self.follow("monitor", known["monitor"], day)
        self.add(f"ingest {day}", ingest, describe_ingest(self.airflow.xcom(ingest, "clean_day")["ingest"]))
        self.add(
            f"features {day}", features, describe_features(self.airflow.xcom(features, "compute_features")["features"])
        )
        scores = describe_scores(self.airflow.xcom(score, "score_customers")["score"])
        self.add(f"score {day}", score, f"{scores}; visible {visible:.0f} s after landing")
        self.add(f"monitor {day}", monitor, describe_drift(self.airflow.xcom(monitor, "measure_drift")["monitor"]))

    def report(self) -> None:
        with self.progress("Power BI refresh"):
            run = self.airflow.wait(self.airflow.trigger(f"{MODEL}_report"))
            if [task for task in self.airflow.tasks(run) if task["state"] == "skipped"]:
                raise LoopFailedError("the report found no new scores to show")
            refresh = self.airflow.xcom(run, "refresh_dataset")
            self.add("report", run, f"refresh {refresh['refresh']} {refresh['status']}")


def describe_ingest(facts: dict[str, Any]) -> str:
    names = ("received", "silver", "quarantined", "duplicates")
    return ", ".join(f"{facts[name]:,} {name}" for name in names)


def describe_features(facts: dict[str, Any]) -> str:
    return f"{facts['customers']:,} customers, {facts['active']:,} active"


def describe_training(facts: dict[str, Any]) -> str:
    auc = facts["roc_auc"]
    return (
        f"version {facts['version']}: AUC {auc['value']:.3f} ({auc['low']:.3f}-{auc['high']:.3f})"
        f" on {facts['rows_test']:,} later rows"
    )


def describe_decision(decision: dict[str, Any]) -> str:
    checks = decision["checks"]
    return f"approved: all {len(checks)} rules passed"


def describe_scores(facts: dict[str, Any]) -> str:
    bands = ", ".join(f"{count:,} {band}" for band, count in facts["by_band"].items())
    return f"{facts['rows']:,} scored ({bands}) by version {facts['model_version']}"


def describe_drift(facts: dict[str, Any]) -> str:
    top = facts["top"]
    worst = ", ".join(f"{name} {top[name]:.2f}" for name in facts["drifted_features"] if name in top)
    share = f"{facts['overall']:.0%} of the features drifted (limit {facts['drifted_share']:.0%})"
    return share + (f": {worst}" if worst else "")


def source_arguments(data: str, size: int | None, drift: float | None) -> list[str]:
    arguments = ["--source", data]
    if size is not None:
        arguments += ["--size", str(size)]
    if drift is not None:
        arguments += ["--drift", str(drift)]
    return arguments


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m local demo", description="The whole loop on real data.")
    parser.add_argument("--data", default="cdnow", help="cdnow (default), shop, or a path of an Online Retail parquet")
    parser.add_argument("--size", type=int, help="shop: number of customers")
    parser.add_argument("--drift", type=float, help="shop: 0 for a steady world, 1 for a changed world")
    arguments = parser.parse_args(argv)
    console = Console(soft_wrap=True)
    began = time.monotonic()
    try:
        settings = current_settings()
        control.up(settings, console)
        started = time.monotonic() - began
        demo = Demo(
            settings, console, Airflow(settings), source_arguments(arguments.data, arguments.size, arguments.drift)
        )
        walk(demo)
    except (control.ControlError, SettingsError, LoopFailedError, TimeoutError) as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    draw(demo, time.monotonic() - began, started)
    show.addresses(settings, console)
    return 0


def walk(demo: Demo) -> None:
    """The loop, from the first landed day to the refreshed report."""
    days = [date.fromisoformat(day) for day in demo.ml("land", *demo.source, "--list")["days"]]
    *history, _, _, _ = days
    demo.airflow.wait_for_dags(DAGS)
    demo.history(history[0], history[-1])
    demo.model(history[-1])
    for day in days[-SINGLE_DAYS:]:
        demo.day(day)
    demo.report()


def draw(demo: Demo, total: float, started: float) -> None:
    table = Table(title=f"The loop, {total:.0f} s in all, {started:.0f} s of them for starting the services")
    table.add_column("stage", no_wrap=True)
    table.add_column("Airflow")
    table.add_column("seconds", justify="right")
    table.add_column("what happened", overflow="fold")
    for row in demo.rows:
        table.add_row(row.stage, row.state, f"{row.seconds:.1f}", row.fact)
    demo.console.print(table)
