"""`python -m tests.faults.boundaries --seeds 3`: every boundary, both levels, and a table of the outcomes.

Runs on a machine of its own. Where RUN_DIR names a machine, that one is used and stays up, so that the next call need
not start and fill one. `--level`, `--only` and `--sample` run a part.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date

from rich.console import Console
from rich.table import Table

from local import control
from local.demo import Demo
from local.nodes import dag_ids
from local.settings import from_environment
from local.state import supervised
from ml.config import load_project
from ml.storage import tables
from tests.faults import stages
from tests.faults.airflow_boundaries import (
    SERVICES,
    airflow_bench,
    batches,
    day_flow,
    report_flow,
    route_through_tap,
    train_flow,
)
from tests.faults.stage_boundaries import Boundary, Outcome, all_stages, bench_of, environment_of
from tests.faults.stage_machine import stage_machine
from tests.faults.tap import Tap
from tests.support.machines.machine import SHOP, Machine, machine_of, own_settings

CONSOLE = Console(soft_wrap=True)


@contextmanager
def tapped_machine() -> Iterator[tuple[Machine, Tap]]:
    """A machine whose Airflow sends its requests through the tap, with the demo's history and model in it.

    It is removed at the end. Where RUN_DIR names a machine, it is that one, and it stays up.
    """
    with contextlib.ExitStack() as stack:
        named = bool(os.environ.get("RUN_DIR"))
        settings = from_environment() if named else stack.enter_context(own_settings())
        listen = {name: settings.ports[name] + 7 for name in SERVICES} if named else {}
        tap = stack.enter_context(Tap({name: settings.ports[name] for name in SERVICES}, listen))
        if not supervised(settings.run_dir):
            route_through_tap(settings, tap)
        if named:
            control.up(settings, CONSOLE)
            machine = Machine(settings)
        else:
            machine = stack.enter_context(machine_of(settings))
        if not machine.airflow.runs(f"{stages.MODEL}_promote"):  # the first Dag that only the demo's walk triggers
            _fill(Demo(settings, CONSOLE, machine.airflow, SHOP))
        yield machine, tap


@contextmanager
def staged_machine() -> Iterator[tuple[Machine, Tap]]:
    """A machine without Airflow, and the tap in front of it."""
    with stage_machine() as machine, Tap({name: machine.settings.ports[name] for name in ("blob", "mlflow")}) as tap:
        yield machine, tap


def _fill(demo: Demo) -> None:
    """Load the demo's history and train its model; its single days are not needed here."""
    landed = demo.landed_days()
    last = landed[stages.SOURCE][-4]
    demo.airflow.wait_for_dags(dag_ids(demo.project))
    demo.history(landed, last)
    demo.model(stages.MODEL, last)


def choose(boundaries: Sequence[Boundary], seed: int, sample: int | None) -> list[Boundary]:
    """All boundaries, or a sample that differs from seed to seed."""
    if sample is None or sample >= len(boundaries):
        return list(boundaries)
    return random.Random(f"{seed} {boundaries[0].stage}").sample(list(boundaries), sample)


def stage_level(
    machine: Machine, tap: Tap, seeds: Sequence[int], *, only: Sequence[str] = (), sample: int | None = None
) -> Iterator[Outcome]:
    """The outcome of each stage, killed at each of its changes."""
    with bench_of(machine, tap) as bench:
        for stage in all_stages(bench, last_day(machine)):
            if only and stage.name.split()[0] not in only:
                continue
            for seed in seeds:
                for boundary in choose(bench.boundaries[stage.name], seed, sample):
                    yield bench.disturb(stage, boundary, seed)


def airflow_level(
    machine: Machine, tap: Tap, seeds: Sequence[int], *, only: Sequence[str] = (), sample: int | None = None
) -> Iterator[Outcome]:
    """The outcome of each flow, with Airflow's workers killed at their changes."""
    day = last_day(machine)
    with airflow_bench(machine, tap) as bench:
        for flow in (day_flow(day), report_flow(day), train_flow(day)):
            if only and flow.name not in only:
                continue
            bench.record(flow)
            CONSOLE.print(
                f"{flow.name}: {sum(map(len, flow.boundaries.values()))} boundaries of {len(flow.boundaries)} tasks"
            )
            for seed in seeds:
                for batch in batches(flow, seed, sample):
                    yield from bench.disturb(flow, batch, seed)


def last_day(machine: Machine) -> date:
    """The newest day that has scores."""
    with environment_of(machine):
        return tables.partition_days(load_project().models[stages.MODEL].score.table, "score_date")[-1]


def draw(outcomes: Sequence[Outcome], seconds: float) -> None:
    table = Table(title=f"{len(outcomes)} disturbed runs in {seconds:.0f} s")
    for name in ("boundary", "runs", "killed", "passed", "failure"):
        table.add_column(name, overflow="fold")
    runs = Counter(outcome.boundary for outcome in outcomes)
    for boundary, count in runs.items():
        at_boundary = [outcome for outcome in outcomes if outcome.boundary == boundary]
        failures = {outcome.wrong for outcome in at_boundary if outcome.wrong}
        killed = sum(outcome.killed for outcome in at_boundary)
        passed = sum(not outcome.wrong for outcome in at_boundary)
        table.add_row(str(boundary), str(count), str(killed), str(passed), "; ".join(failures))
    CONSOLE.print(table)
    kills, passed = sum(outcome.killed for outcome in outcomes), sum(not outcome.wrong for outcome in outcomes)
    CONSOLE.print(f"{len(runs)} boundaries, {len(outcomes)} runs, {kills} kills, {passed} passed")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.boundaries", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds of timing")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--level", choices=list(LEVELS), action="append", help="run only this level")
    parser.add_argument(
        "--only", action="append", default=[], help="run only this stage (ingest, …) or flow (day, report, train)"
    )
    parser.add_argument(
        "--sample", type=int, help="run this many boundaries per stage or task and seed, instead of all"
    )
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    outcomes: list[Outcome] = []
    began = time.monotonic()
    for level in arguments.level or LEVELS:
        start_machine, run_level = LEVELS[level]
        with start_machine() as (machine, tap):
            for outcome in run_level(machine, tap, seeds, only=arguments.only, sample=arguments.sample):
                outcomes.append(outcome)
                mark = outcome.wrong or ("passed" if outcome.killed else "passed (boundary not reached)")
                CONSOLE.print(f"{time.monotonic() - began:6.0f} s  seed {outcome.seed}  {outcome.boundary}: {mark}")
    draw(outcomes, time.monotonic() - began)
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


LEVELS = {"stage": (staged_machine, stage_level), "airflow": (tapped_machine, airflow_level)}

if __name__ == "__main__":
    sys.exit(main())
