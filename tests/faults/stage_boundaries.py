"""Every stage is killed at every change that it requests, and run again: the result must be that of an undisturbed run.

The boundaries are enumerated, not listed by hand: the tap records the undisturbed run of a stage, and each of its changes
gives two boundaries, before and after. Between the kill and the second run, readers must see each table as it was before
the stage or as it is after it.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from local import environment
from tests.faults import stages
from tests.faults.stage_processes import StageProcesses
from tests.faults.stages import Parts, Stage
from tests.faults.tap import Change, Tap, Trap
from tests.support.cloud.faults import command
from tests.support.machines.machine import Machine

DELAYS = (0.0, 0.0, 0.05, 0.3)  # seconds between the boundary and the kill


@dataclass(frozen=True)
class Boundary:
    """Before or after (`when`) the n-th change of a kind that a stage requests."""

    stage: str
    kind: str
    number: int
    when: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.when} {self.kind}" + (f" ({self.number})" if self.number > 1 else "")


@dataclass(frozen=True)
class Outcome:
    boundary: Boundary
    seed: int
    killed: bool
    wrong: str = ""  # the failure; empty when the run passed


@contextmanager
def environment_of(machine: Machine) -> Iterator[None]:
    """Give this process the environment of the machine, as a reader of its storage and MLflow."""
    saved = dict(os.environ)
    os.environ.update(machine.environment | environment.storage(machine.settings))  # a reader does not need the tap
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def tapped_environment(machine: Machine, tap: Tap) -> dict[str, str]:
    """The machine's environment, with the tap in front of Blob Storage and MLflow."""
    variables = machine.environment | environment.storage(machine.settings)
    for name in ("AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_CONNECTION_STRING", "MLFLOW_TRACKING_URI"):
        for service, port in tap.ports.items():
            variables[name] = variables[name].replace(machine.settings.url(service), f"http://127.0.0.1:{port}")
    return variables


class Bench:
    """One machine, one tap, and the stages as processes behind it."""

    def __init__(self, machine: Machine, tap: Tap, folder: Path) -> None:
        self.tap = tap
        self.log = folder / "stage.log"
        self.processes = StageProcesses(tapped_environment(machine, tap), self.log)
        self.before: dict[str, Parts] = {}  # by stage: its parts before its work
        self.expected: dict[str, Parts] = {}  # by stage: its parts after an undisturbed run
        self.boundaries: dict[str, list[Boundary]] = {}

    def close(self) -> None:
        self.processes.close()

    def run(self, stage: Stage, trap: Trap | None = None) -> int:
        self.tap.traps = [trap] if trap else []
        self.processes.start(*stage.arguments())
        code = self.processes.wait()
        self.tap.traps = []
        return code

    def record(self, stage: Stage) -> list[Boundary]:
        """Run a stage undisturbed; its boundaries. Its result is the one that every disturbed run must have."""
        stage.reset()
        self.before[stage.name] = stage.parts()
        before = len(self.tap.changes)
        code = self.run(stage)
        assert code == 0, f"{stage.name} undisturbed ended with {code}:\n{self.processes.output()}"
        self.expected[stage.name] = stage.parts()
        boundaries = []
        for kind, count in Counter(change.kind for change in self.tap.changes[before:]).items():
            boundaries += [
                Boundary(stage.name, kind, n, when) for n in range(1, count + 1) for when in ("before", "after")
            ]
        self.boundaries[stage.name] = boundaries
        return boundaries

    def disturb(self, stage: Stage, boundary: Boundary, seed: int) -> Outcome:
        """Reset the stage, kill it at a boundary, check what readers see, and run it again."""
        stage.reset()
        draw = random.Random(f"{seed} {boundary}")
        trap = Trap(fits(boundary), boundary.number, boundary.when, draw.choice(DELAYS))
        code = self.run(stage, trap)
        if not trap.sprung.is_set():  # concurrent writes vary in number and order from run to run
            killed, wrong = (
                False,
                "" if code == 0 else f"was not reached, and the stage ended with {code}: {self._tail()}",
            )
        else:
            killed, wrong = True, "" if code == -9 else f"was killed and ended with {code}"
        wrong = wrong or self._half_done(stage, stage.parts())
        if not wrong and (code := self.run(stage)) != 0:
            wrong = f"ended with {code} when run again: {self._tail()}"
        wrong = wrong or self._differs(stage) or stage.repeated() or ""
        return Outcome(boundary, seed, killed, wrong)

    def _half_done(self, stage: Stage, now: Parts) -> str:
        old, new = self.before[stage.name], self.expected[stage.name]
        partial = [name for name, part in now.items() if part not in (old[name], new[name])]
        return f"readers saw a partial state of {', '.join(partial)}" if partial else ""

    def _differs(self, stage: Stage) -> str:
        now, expected = stage.parts(), self.expected[stage.name]
        return "; ".join(
            f"{name} differs from the undisturbed run's: {first_difference(expected[name], now[name])}"
            for name in expected
            if now[name] != expected[name]
        )

    def _tail(self) -> str:
        return " | ".join(self.processes.output().splitlines()[-3:])


def fits(boundary: Boundary) -> Callable[[Change], bool]:
    return lambda change: change.kind == boundary.kind


def first_difference(expected: Any, now: Any) -> str:
    if isinstance(expected, list) and isinstance(now, list):
        missing = [row for row in expected if row not in now]
        extra = [row for row in now if row not in expected]
        return f"{len(expected)} rows, now {len(now)}; missing {str(missing[:1])[:300]}, extra {str(extra[:1])[:300]}"
    return f"{str(expected)[:300]}, now {str(now)[:300]}"


@contextmanager
def bench_of(machine: Machine, tap: Tap) -> Iterator[Bench]:
    with environment_of(machine), tempfile.TemporaryDirectory() as folder:
        bench = Bench(machine, tap, Path(folder))
        try:
            yield bench
        finally:
            bench.close()
            left = [child for child in psutil.Process().children(recursive=True) if "ml" in command(child)[1:3]]
            assert not left, f"stages are still running: {left}"


def all_stages(bench: Bench, day: Any) -> Iterator[Stage]:
    """Each stage in the loop's order, recorded; later stages need the results of earlier ones."""
    from ml.registry import model_versions
    from ml.storage import tables

    for stage in (*stages.other_sources(), *stages.daily(day)):
        bench.record(stage)
        yield stage
    for make_stage in (
        lambda: stages.training_set(day),
        lambda: stages.validate_training(tables.table(stages.training_table()).version(), day),
        lambda: stages.train(tables.table(stages.training_table()).version()),
        lambda: stages.gate(newest_version(model_versions)),
        lambda: stages.promote(newest_version(model_versions)),
        lambda: stages.rollback(newest_version(model_versions)),
    ):
        stage = make_stage()
        bench.record(stage)
        yield stage  # each disturbed run ends with the result of the undisturbed one


def newest_version(registry: Any) -> str:
    """The newest version of the model: the one that the previous stage has trained."""
    versions = registry.client().search_model_versions(f"name = '{stages.MODEL}'")
    return str(max(int(version.version) for version in versions))
