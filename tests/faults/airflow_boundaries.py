"""Airflow's own processes, killed at every change that they request while whole days go through the loop.

A task's changes are its worker's requests to Airflow's execution API, to Blob Storage, to MLflow (all recorded by the
tap) and to the remote services (recorded in their ledger). In each disturbed run of a flow, every task of it is killed
once. Airflow recovers by itself; then there must be one effect per run key, one run per Dag, and the same rows.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import psutil
import psycopg2

from local.nodes import Nodes
from local.settings import Settings, load_secrets
from ml.config import load_project
from tests.faults import stages
from tests.faults.put_in_production import put_poor
from tests.faults.remote_tasks import paused
from tests.faults.stage_boundaries import DELAYS, Boundary, Outcome, environment_of, first_difference
from tests.faults.stages import Parts
from tests.faults.tap import Change, Tap, Trap
from tests.support.cloud.faults import Faults, command, owners
from tests.support.machines.machine import Machine

SERVICES = ("airflow", "blob", "mlflow")
SHORT_TIMEOUTS = {  # by default Airflow needs minutes to notice by its heartbeat that a worker is lost
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
}
_TITLE = re.compile(r"airflow worker -- (?:LocalExecutor: )?([0-9a-f-]{36})")
SUBMITTING = {
    "data_factory": ("POST", ".*/createRun"),
    "databricks": ("POST", ".*/jobs/runs/submit"),
    "azure_ml": ("PUT", ".*/jobs/[^/]+"),
    "power_bi": ("POST", ".*/refreshes"),
}


def route_through_tap(machine_settings: Settings, tap: Tap) -> None:
    """Route the requests of Airflow's processes through the tap, on the machine that starts next."""
    from local import environment

    changed = environment.storage(machine_settings) | environment.airflow(machine_settings)
    names = ("AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_CONNECTION_STRING", "MLFLOW_TRACKING_URI")
    names += ("AIRFLOW__CORE__EXECUTION_API_SERVER_URL",)
    lines = dict(SHORT_TIMEOUTS)
    for name in names:
        lines[name] = changed[name]
        for service, port in tap.ports.items():
            lines[name] = lines[name].replace(machine_settings.url(service), f"http://127.0.0.1:{port}")
    machine_settings.make_directories()
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    overrides = machine_settings.run_dir / "airflow.env"
    overrides.touch(mode=0o600)  # the storage account's key is in it
    overrides.write_text(text)


class Tasks:
    """Which task a worker process works on: its process title has the id, the database the rest."""

    def __init__(self, settings: Settings) -> None:
        secret = load_secrets(settings)["postgres_airflow_password"]
        self._connection = psycopg2.connect(
            host="127.0.0.1", port=settings.ports["postgres"], user="airflow", password=secret, dbname="airflow"
        )
        self._connection.autocommit = True
        self._lock = threading.Lock()

    def of(self, process: psutil.Process | None) -> str:
        """`dag.task`, or "" for a process that is not a worker's."""
        match = _TITLE.match(title(process)) if process else None
        if match is None:
            return ""
        rows = self.query("SELECT dag_id || '.' || task_id FROM task_instance WHERE id = %s", match[1])
        return str(rows[0][0]) if rows else ""

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock, self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())


@dataclass
class Flow:
    """Dags that run one after the other once the first is triggered, and the parts that they change."""

    name: str
    dags: list[str]
    start: dict[str, Any]  # arguments that trigger the first Dag
    parts: Any
    reset: Any
    key: str | None = None  # the partition key of all its runs
    boundaries: dict[str, list[Boundary]] = field(default_factory=dict)  # by task
    expected: Parts = field(default_factory=dict)
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)


def day_flow(day: date) -> Flow:
    parts = [stage for stage in stages.daily(day) if not stage.name.startswith("validate")]

    def reset() -> None:
        for stage in parts:
            stage.reset()

    def all_parts() -> Parts:
        return {name: part for stage in parts for name, part in stage.parts().items()}

    dags = Nodes.downstream(load_project(), stages.SOURCE).dags("ingest", "features", "score", "monitor")
    return Flow("day", dags, {"partition_key": str(day)}, all_parts, reset, str(day))


def report_flow(day: date) -> Flow:
    def reset() -> None:
        """A new version of the scores, with the same rows: the report has something to show."""
        import pyarrow.dataset as ds

        from ml.storage import tables

        table, column = load_project().models[stages.MODEL].score.table, "score_date"
        rows = tables.read(table, where=ds.field(column) == day)
        tables.replace(table, rows, tables.day_predicate(column, [day]), partition_by=[column])

    return Flow("report", [f"{stages.MODEL}_report"], {}, dict, reset)


def train_flow(through: date) -> Flow:
    """Each time a new version, which becomes champion because a much worse one was put in production before."""
    before = [0]

    def versions() -> list[int]:
        from ml.registry import model_versions

        registered = model_versions.client().search_model_versions(f"name = '{stages.MODEL}'")
        return sorted(int(version.version) for version in registered)

    def reset() -> None:
        put_poor()
        before[0] = len(versions())

    def parts() -> Parts:
        from ml.registry import model_versions

        champion, numbers = model_versions.version_of_alias(stages.MODEL), versions()
        newest = champion is not None and int(champion.number) == numbers[-1]
        return {"new versions": len(numbers) - before[0], "the newest is champion": newest}

    dags = [f"{stages.MODEL}_{stage}" for stage in ("train", "promote", "on_champion")]
    return Flow("train", dags, {"conf": {"through": str(through)}}, parts, reset)


class AirflowBench:
    """A machine whose requests go through a tap, its stand-ins' faults, and the flows."""

    def __init__(self, machine: Machine, tap: Tap) -> None:
        self.machine = machine
        self.tap = tap
        self.tasks = Tasks(machine.settings)
        self.faults = Faults(machine.settings.url("standins", "https"), machine.settings.ca_file)

    def run(self, flow: Flow, timeout: float = 600) -> str:
        """Run a flow once; "" or what went wrong."""
        airflow = self.machine.airflow
        known = {dag: {run.run_id for run in airflow.runs(dag, partition_key=flow.key)} for dag in flow.dags}
        airflow.trigger(flow.dags[0], **flow.start)
        end = time.monotonic() + timeout
        for dag in flow.dags:
            while True:
                new = [run for run in airflow.runs(dag, partition_key=flow.key) if run.run_id not in known[dag]]
                if new and all(run.state in ("success", "failed") for run in new):
                    break
                if time.monotonic() > end:
                    return f"{dag} has not ended after {timeout:.0f} s: {self._stuck(dag)}"
                time.sleep(0.5)
            if len(new) != 1 or new[0].state != "success":
                reasons = "; ".join(airflow.explain(run) for run in new if run.state == "failed")
                return f"{dag} ran {[run.state for run in new]} instead of once with success {reasons[:600]}"
        return ""

    def _stuck(self, dag: str) -> str:
        rows = self.tasks.query(
            "SELECT task_id, state, try_number FROM task_instance WHERE dag_id = %s AND state NOT IN ('success', 'skipped')",
            dag,
        )
        return str(rows[:5])

    def record(self, flow: Flow) -> None:
        """Run a flow undisturbed and record its boundaries, its effects and its result."""
        flow.reset()
        tasks: dict[int, str] = {}  # by the identity of the change
        before, entries = len(self.tap.changes), len(self.machine.ledger())
        watching = Trap(lambda change: bool(tasks.setdefault(id(change), self.tasks.of(change.process))) and False)
        self.tap.traps = [watching]
        wrong = self.run(flow)
        self.tap.traps = []
        assert not wrong, f"{flow.name} undisturbed: {wrong}"
        flow.expected = flow.parts()
        counted = Counter((tasks.get(id(change), ""), change.kind) for change in self.tap.changes[before:])
        for (task, kind), count in counted.items():
            if task.split(".")[0] in flow.dags:
                self._add(flow, task, kind, count)
        flow.effects = effects(self.machine.ledger()[entries:], flow)
        for (service, task), count in flow.effects.items():
            self._add(flow, task, f"{service} submission", count)

    def _add(self, flow: Flow, task: str, kind: str, count: int) -> None:
        of_task = flow.boundaries.setdefault(task, [])
        of_task += [Boundary(task, kind, n, when) for n in range(1, count + 1) for when in ("before", "after")]

    def disturb(self, flow: Flow, chosen: Sequence[Boundary], seed: int) -> list[Outcome]:
        """Run a flow with a kill at each of these boundaries, one per task; the outcome of each."""
        flow.reset()
        entries = len(self.machine.ledger())
        traps = [self._trap(boundary, random.Random(f"{seed} {boundary}")) for boundary in chosen]
        at_submission = [trap for boundary, trap in zip(chosen, traps, strict=True) if "submission" in boundary.kind]
        self.tap.traps = [trap for trap in traps if trap not in at_submission]
        stop = threading.Event()
        watchers = [
            threading.Thread(target=self._kill_at_submission, args=(boundary, trap, stop), daemon=True)
            for boundary, trap in zip(chosen, traps, strict=True)
            if trap in at_submission
        ]
        for watcher in watchers:
            watcher.start()
        wrong = self.run(flow)
        stop.set()
        for watcher in watchers:
            watcher.join(30)
        self.tap.traps = []
        self.faults.clear()
        wrong = (
            wrong
            or self._differs(flow)
            or self._other_effects(flow, self.machine.ledger()[entries:])
            or self._left_over()
        )
        return [
            Outcome(boundary, seed, trap.sprung.is_set(), wrong) for boundary, trap in zip(chosen, traps, strict=True)
        ]

    def _trap(self, boundary: Boundary, draw: random.Random) -> Trap:
        whole = draw.random() < 0.5  # kill the whole worker, or only the process that made the request

        def victims(process: psutil.Process) -> list[psutil.Process]:
            if not whole:
                return [process]
            with suppress(psutil.NoSuchProcess):
                parent = process.parent()
                if parent and _TITLE.match(title(parent)):  # the supervisor of the requesting process is killed first
                    return [parent, process]
            return [process, *process.children(recursive=True)]

        def fits(change: Change) -> bool:
            return change.kind == boundary.kind and self.tasks.of(change.process) == boundary.stage

        return Trap(fits, boundary.number, boundary.when, draw.choice(DELAYS), victims)

    def _kill_at_submission(self, boundary: Boundary, trap: Trap, stop: threading.Event) -> None:
        """Kill at a submission: the stand-in holds it, before or after it accepts the work."""
        service = boundary.kind.split()[0]
        method, path = SUBMITTING[service]
        key = boundary.stage.replace(".", "-")
        body = None if service == "power_bi" else f"{key}-"
        rule = self.faults.add(
            {"hold": 60}, method=method, path=path, body=body, when=boundary.when, skip=boundary.number - 1
        )
        while not stop.wait(0.1):
            hits = self.faults.hits(rule)
            if hits and hits[0]["state"] == "held":
                processes = owners(hits[0]["client_pid_hint"][1], hits[0]["server_port"])
                if processes:
                    trap.spring(Change(service, method, path, processes[0], time.time()))
                self.faults.delete(rule)
                return

    def _differs(self, flow: Flow) -> str:
        now = flow.parts()
        return "; ".join(
            f"{name} differs: {first_difference(flow.expected[name], now[name])}"
            for name in flow.expected
            if now[name] != flow.expected[name]
        )

    def _other_effects(self, flow: Flow, entries: list[dict[str, Any]]) -> str:
        counts = effects(entries, flow)
        return "" if counts == flow.effects else f"effects {dict(counts)}, undisturbed {dict(flow.effects)}"

    def _left_over(self) -> str:
        """Workers that are alive although no task is running."""
        end = time.monotonic() + 30
        while True:
            workers = [process for process in psutil.process_iter() if _TITLE.match(title(process))]
            left = [str(process.pid) for process in workers if self._is_ours(process) and not self.tasks_running()]
            if not left or time.monotonic() > end:
                return f"workers are left over: {left}" if left else ""
            time.sleep(0.5)

    def _is_ours(self, process: psutil.Process) -> bool:
        return bool(self.tasks.of(process))

    def tasks_running(self) -> bool:
        return bool(self.tasks.query("SELECT 1 FROM task_instance WHERE state IN ('running', 'queued')"))


def title(process: psutil.Process) -> str:
    return " ".join(command(process))


def effects(entries: Iterable[dict[str, Any]], flow: Flow) -> Counter[tuple[str, str]]:
    """How often each service really did work, by the task that requested it."""
    counts: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        if entry["first"] is None and entry["outcome"] not in ("Cancelled", "Canceled", "CANCELED"):
            dag, task = (entry["run_key"] or f"{stages.MODEL}_report-refresh_dataset-").split("-")[:2]
            if dag in flow.dags:  # a Dag that a flow triggers runs on beside the next flow
                counts[entry["service"], f"{dag}.{task}"] += 1
    return counts


@contextmanager
def airflow_bench(machine: Machine, tap: Tap) -> Iterator[AirflowBench]:
    with environment_of(machine), paused(machine, "arrivals", f"{stages.SOURCE}_calendar"):
        yield AirflowBench(machine, tap)


def batches(flow: Flow, seed: int, only: int | None = None) -> Iterator[list[Boundary]]:
    """Batches of a flow's boundaries, one boundary per task, in an order drawn by the seed; at most `only` batches."""
    left = {task: list(boundaries) for task, boundaries in flow.boundaries.items()}
    for task, boundaries in left.items():
        random.Random(f"{seed} {task}").shuffle(boundaries)
    number = 0
    while any(left.values()) and (only is None or number < only):
        yield [boundaries.pop() for boundaries in left.values() if boundaries]
        number += 1
