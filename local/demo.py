"""`make demo`: the whole loop on real purchases, through the running Airflow, and a table of the results.

A history is loaded in bulk, a model is trained on it, passes the gate and becomes champion; then three
single days arrive one after the other and flow through to their scores. The demo can be run again: days that
have already landed are rebuilt instead. It follows every source that the data set has, and all that is built on them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from rich.console import Console
from rich.table import Table

from local import control, environment, show
from local.airflow_api import Airflow, DagRun, LoopFailedError
from local.nodes import RESULTS, Nodes, dag_ids, split_dag_id
from local.settings import REPOSITORY, Settings, SettingsError
from local.state import current_settings
from ml.config import ConfigError, Project, load_project

SINGLE_DAYS = 3


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
    data: list[str]  # arguments of `ml land` that name the data set
    project: Project = field(default_factory=load_project)
    rows: list[Row] = field(default_factory=list)

    @contextmanager
    def progress(self, step: str) -> Iterator[None]:
        """Show a step while it goes on, and its duration afterwards."""
        began = time.monotonic()
        with self.console.status(step):
            yield
        self.console.print(f"[green]✓[/] {step} [dim]({time.monotonic() - began:.1f} s)[/]", highlight=False)

    def add(self, stage: str, run: DagRun, fact: str) -> None:
        self.rows.append(Row(stage, run.state, run.seconds, fact))

    def add_result(self, run: DagRun, day: str, nodes: Nodes, extra: str = "") -> None:
        """A row with what a run of a stage reports. The node is named where several have this stage."""
        name, stage = split_dag_id(run.dag_id)
        task, key = RESULTS[stage]
        facts = self.airflow.xcom(run, task)[key]
        describe = DESCRIPTIONS[key]
        node = f"{name} " if len(nodes.dags(stage)) > 1 else ""
        self.add(f"{key} {node}{day}", run, describe(facts) + extra)

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

    def landed_days(self) -> dict[str, list[date]]:
        """The days of each source that the data set has."""
        listing: dict[str, list[str]] = self.ml("land", *self.data, "--list")["sources"]
        return {source: [date.fromisoformat(day) for day in days] for source, days in listing.items()}

    def known(self, dags: Iterable[str], day: date | None = None) -> dict[str, set[str]]:
        """The ids of the existing runs, by Dag."""
        key = day.isoformat() if day else None
        return {dag_id: {run.run_id for run in self.airflow.runs(dag_id, partition_key=key)} for dag_id in dags}

    def follow(self, dag_id: str, known: dict[str, set[str]], day: date | None = None) -> DagRun:
        """The next run of a Dag, once it has succeeded."""
        return self.airflow.wait_for_new(dag_id, known[dag_id], partition_key=day.isoformat() if day else None)

    # -- the parts of the loop -----------------------------------------------------------------------

    def history(self, landed: dict[str, list[date]], last: date) -> None:
        days = {source: [day for day in days if day <= last] for source, days in landed.items()}
        days = {source: earlier for source, earlier in days.items() if earlier}
        nodes = Nodes.of(self.project, days)
        first = min(earlier[0] for earlier in days.values())
        with self.progress(f"land the days from {first} to {last}"):
            began = time.monotonic()
            total = self.ml("land", *self.data, "--to", last.isoformat())
            fact = f"{total['rows']:,} rows in {total['files']} files of {total['days']} days"
            self.rows.append(Row("land", "success", time.monotonic() - began, fact))
        known = self.known(nodes.dags("features", "score"), last)
        few = [source for source in nodes.sources if self.are_few(source, days[source], total["sources"][source])]
        for source in nodes.sources:
            if source not in few:
                with self.progress(f"load {source} in one run"):
                    conf = {"first": days[source][0].isoformat(), "last": days[source][-1].isoformat()}
                    run = self.airflow.wait(self.airflow.trigger(f"{source}_load_history", conf=conf))
                    self.add_result(run, "history", nodes)
        for source in few:
            with self.progress(f"{source}: {len(days[source])} days arrive by themselves"):
                for day in days[source]:
                    run = self.airflow.wait_for_new(f"{source}_ingest", set(), partition_key=day.isoformat())
                self.add_result(run, str(days[source][-1]), nodes)
        for dag_id in nodes.dags("features"):
            with self.progress(f"features of {last}"):
                self.add_result(self.follow(dag_id, known, last), str(last), nodes)
        for dag_id in nodes.dags("score"):
            self.follow(dag_id, known, last)  # without a champion it skips

    def are_few(self, source: str, days: list[date], landed: dict[str, Any]) -> bool:
        """Whether a source's new days are taken for arriving days, and not for a history."""
        return landed["written"] == len(days) <= self.project.sources[source].landing.bulk_days

    def model(self, name: str, last: date) -> None:
        nodes = Nodes([], [], [name])
        known = self.known(nodes.dags("promote", "on_champion", "score", "monitor"))
        with self.progress(f"train {name} on what was known on {last}"):
            run = self.airflow.wait(self.airflow.trigger(f"{name}_train", conf={"through": last.isoformat()}))
            self.add("train", run, describe_training(self.airflow.xcom(run, "train_model")))
        with self.progress("gate and promotion"):
            run = self.follow(f"{name}_promote", known)
            if rejection := self.airflow.why_skipped(run):  # a repeated demo trains the champion again
                self.add("gate", run, rejection)
                if self.ml("registry", "--model", name, "production")["version"] is None:
                    raise LoopFailedError(f"the gate rejected the first model: {rejection}")
                return
            self.add("gate", run, describe_decision(self.airflow.xcom(run, "decide")))
            promotion = self.airflow.xcom(run, "promote_version")
            self.add("promote", run, f"champion: {promotion['before'] or 'none'} → {promotion['after']}")
        with self.progress("the champion scores the newest days"):
            rescoring = self.follow(f"{name}_on_champion", known)
            for key in self.airflow.xcom(rescoring, "choose_days"):  # in a repeated demo, later days exist already
                day = date.fromisoformat(key)
                self.add_result(self.follow(f"{name}_score", known, day), key, nodes)
                self.follow(f"{name}_monitor", known, day)

    def day(self, landed: dict[str, list[date]], day: date) -> None:
        nodes = Nodes.of(self.project, landed)
        nodes = Nodes([source for source in nodes.sources if day in landed[source]], nodes.tables, nodes.models)
        with self.progress(f"{day} arrives, and flows through to its scores"):
            known = self.known(nodes.dags("ingest", "features", "score", "monitor"), day)
            began = time.monotonic()
            total = self.ml("land", *self.data, "--from", day.isoformat(), "--to", day.isoformat())
            if not total["written"]:  # in a repeated demo the day has landed already, so it is rebuilt
                for dag_id in nodes.dags("ingest"):
                    self.airflow.trigger(dag_id, partition_key=day.isoformat())
            runs = [self.follow(dag_id, known, day) for dag_id in nodes.dags("ingest")]
            scores = [self.follow(dag_id, known, day) for dag_id in nodes.dags("score")]
            visible = time.monotonic() - began
            runs += [self.follow(dag_id, known, day) for dag_id in nodes.dags("features")]
            drift = [self.follow(dag_id, known, day) for dag_id in nodes.dags("monitor")]
        for run in (*runs, *scores, *drift):
            extra = f"; visible {visible:.0f} s after landing" if run in scores else ""
            self.add_result(run, str(day), nodes, extra)

    def report(self, name: str) -> None:
        with self.progress("Power BI refresh"):
            run = self.airflow.wait(self.airflow.trigger(f"{name}_report"))
            if [task for task in self.airflow.tasks(run) if task["state"] == "skipped"]:
                raise LoopFailedError("the report found no new scores to show")
            refresh = self.airflow.xcom(run, "refresh_dataset")
            self.add("report", run, f"refresh {refresh['refresh']} {refresh['status']}")


def describe_ingest(facts: dict[str, Any]) -> str:
    names = ("received", "silver", "quarantined", "duplicates")
    return ", ".join(f"{facts[name]:,} {name}" for name in names)


def describe_features(facts: dict[str, Any]) -> str:
    return f"{facts['rows']:,} rows"


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


DESCRIPTIONS = {
    "ingest": describe_ingest,
    "features": describe_features,
    "score": describe_scores,
    "monitor": describe_drift,
}


def data_arguments(data: str, size: int | None, drift: float | None) -> list[str]:
    arguments = ["--data", data]
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
            settings, console, Airflow(settings), data_arguments(arguments.data, arguments.size, arguments.drift)
        )
        walk(demo)
    except (control.ControlError, SettingsError, ConfigError, LoopFailedError, TimeoutError) as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    draw(demo, time.monotonic() - began, started)
    show.addresses(settings, console)
    return 0


def walk(demo: Demo) -> None:
    """The loop, from the first landed day to the refreshed report."""
    landed = demo.landed_days()
    facts = [source for source in landed if demo.project.sources[source].kind == "facts"]
    days = sorted({day for source in facts for day in landed[source]})
    last = days[-SINGLE_DAYS - 1]
    models = [demo.project.models[name] for name in Nodes.of(demo.project, landed).models]
    demo.airflow.wait_for_dags(dag_ids(demo.project))
    demo.history(landed, last)
    for model in models:
        demo.model(model.name, last)
    for day in days[-SINGLE_DAYS:]:
        demo.day(landed, day)
    for model in models:
        if model.report:
            demo.report(model.name)


def draw(demo: Demo, total: float, started: float) -> None:
    table = Table(title=f"The loop, {total:.0f} s in all, {started:.0f} s of them for starting the services")
    table.add_column("stage", no_wrap=True)
    table.add_column("Airflow")
    table.add_column("seconds", justify="right")
    table.add_column("what happened", overflow="fold")
    for row in demo.rows:
        table.add_row(row.stage, row.state, f"{row.seconds:.1f}", row.fact)
    demo.console.print(table)
