"""Every stage killed at every change it asks for, and run again: the result must be that of a run nobody disturbed.

Enumerated, not listed: the undisturbed run of a stage is recorded by the tap, and each change of it is a boundary, before
and after. What readers see between the kill and the second run must be the old or the new, of each table.
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
from tests.faults.faults import command
from tests.faults.stage_processes import StageProcesses
from tests.faults.stages import Parts, Stage
from tests.faults.tap import Change, Tap, Trap
from tests.support.machine import Machine

DELAYS = (0.0, 0.0, 0.05, 0.3)  # seconds between the boundary and the kill


@dataclass(frozen=True)
class Boundary:
    """The n-th change of a kind that a stage asks for, and the side of it."""

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
    wrong: str = ""  # what was not as it must be; empty is what is wanted


@contextmanager
def environment_of(machine: Machine) -> Iterator[None]:
    """This process as a reader of the machine's storage and MLflow."""
    saved = dict(os.environ)
    os.environ.update(machine.environment | environment.storage(machine.settings))  # a reader needs no tap
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def tapped(machine: Machine, tap: Tap) -> dict[str, str]:
    """The machine's environment, with the tap in front of Blob Storage and MLflow."""
    changed = machine.environment | environment.storage(machine.settings)
    for name in ("AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_CONNECTION_STRING", "MLFLOW_TRACKING_URI"):
        for service, port in tap.ports.items():
            changed[name] = changed[name].replace(machine.settings.url(service), f"http://127.0.0.1:{port}")
    return changed


class Bench:
    """One machine, one tap, and the stages as processes behind it."""

    def __init__(self, machine: Machine, tap: Tap, folder: Path) -> None:
        self.tap = tap
        self.log = folder / "stage.log"
        self.processes = StageProcesses(tapped(machine, tap), self.log)
        self.before: dict[str, Parts] = {}  # by stage: what there is when it is put back to before its work
        self.expected: dict[str, Parts] = {}
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
        """Run a stage undisturbed: its boundaries. What it gave is what every disturbed run must give."""
        stage.reset()
        self.before[stage.name] = stage.parts()
        before = len(self.tap.changes)
        code = self.run(stage)
        assert code == 0, f"{stage.name} undisturbed ended with {code}:\n{self.processes.output()}"
        self.expected[stage.name] = stage.parts()
        found = []
        for kind, count in Counter(change.kind for change in self.tap.changes[before:]).items():
            found += [Boundary(stage.name, kind, n, when) for n in range(1, count + 1) for when in ("before", "after")]
        self.boundaries[stage.name] = found
        return found

    def disturb(self, stage: Stage, boundary: Boundary, seed: int) -> Outcome:
        """Put the stage back to before its work, kill it at a boundary, look, and run it again."""
        stage.reset()
        draw = random.Random(f"{seed} {boundary}")
        trap = Trap(fits(boundary), boundary.number, boundary.when, draw.choice(DELAYS))
        code = self.run(stage, trap)
        if not trap.sprung.is_set():  # what is written side by side comes in another number or order at times
            killed, wrong = False, "" if code == 0 else f"not reached, and ended with {code}: {self._tail()}"
        else:
            killed, wrong = True, "" if code == -9 else f"was killed and ended with {code}"
        wrong = wrong or self._half_done(stage, stage.parts())
        if not wrong and (code := self.run(stage)) != 0:
            wrong = f"run again it ended with {code}: {self._tail()}"
        wrong = wrong or self._differs(stage) or stage.once() or ""
        return Outcome(boundary, seed, killed, wrong)

    def _half_done(self, stage: Stage, now: Parts) -> str:
        old, new = self.before[stage.name], self.expected[stage.name]
        halves = [name for name, part in now.items() if part not in (old[name], new[name])]
        return f"readers saw halves of {', '.join(halves)}" if halves else ""

    def _differs(self, stage: Stage) -> str:
        now, wanted = stage.parts(), self.expected[stage.name]
        return "; ".join(
            f"{name} differs from the undisturbed run's: {first_difference(wanted[name], now[name])}"
            for name in wanted
            if now[name] != wanted[name]
        )

    def _tail(self) -> str:
        return " | ".join(self.processes.output().splitlines()[-3:])


def fits(boundary: Boundary) -> Callable[[Change], bool]:
    return lambda change: change.kind == boundary.kind


def first_difference(wanted: Any, found: Any) -> str:
    if isinstance(wanted, list) and isinstance(found, list):
        missing = [row for row in wanted if row not in found]
        extra = [row for row in found if row not in wanted]
        return f"{len(wanted)} rows, now {len(found)}; missing {str(missing[:1])[:300]}, more {str(extra[:1])[:300]}"
    return f"{str(wanted)[:300]}, now {str(found)[:300]}"


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
    """Each stage in the loop's order, recorded: what later ones need, earlier ones have made."""
    from ml.registry import model_versions
    from ml.storage import tables

    for stage in stages.daily(day):
        bench.record(stage)
        yield stage
    for make in (
        lambda: stages.training_set(day),
        lambda: stages.validate_training(tables.table("features.training_set").version(), day),
        lambda: stages.train(tables.table("features.training_set").version()),
        lambda: stages.gate(newest(model_versions)),
        lambda: stages.promote(newest(model_versions)),
        lambda: stages.rollback(newest(model_versions)),
    ):
        stage = make()
        bench.record(stage)
        yield stage  # what is done to it then ends as the undisturbed run did


def newest(registry: Any) -> str:
    """The newest version of the model: the one that the stage before has trained."""
    found = registry.client().search_model_versions(f"name = '{stages.MODEL}'")
    return str(max(int(version.version) for version in found))
