"""The supervisor's status, which every other process reads from `supervisor.json` in the state directory."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from local.processes import Identity
from local.settings import PORTS, Settings, from_environment, private, write_private

Phase = Literal["starting", "up", "stopping", "failed", "stopped"]
UnitState = Literal["waiting", "starting", "ready", "done", "back-off", "failed", "stopping", "stopped"]


@dataclass
class UnitStatus:
    """One service or job as the supervisor sees it. Times are seconds since the epoch."""

    state: UnitState = "waiting"
    once: bool = False  # a job, which runs to its end
    pid: int | None = None
    start_time: float | None = None  # of the process; with the pid, its identity
    started: float | None = None  # when the present start began
    seconds: float | None = None  # from start to ready
    restarts: int = 0
    log_from: int = 0  # offset in its log file at which the present start begins, bytes
    detail: str = ""  # why it is not ready, or how it ended

    @property
    def identity(self) -> Identity | None:
        return Identity(self.pid, self.start_time) if self.pid and self.start_time else None


@dataclass
class MachineStatus:
    """The supervisor, its guard, and all units by name, in the order of their declaration."""

    instance: str  # id of one `up`
    phase: Phase
    guard: Identity
    supervisor: Identity
    ports: dict[str, int]
    units: dict[str, UnitStatus] = field(default_factory=dict)
    failure: str = ""  # name of the unit because of which the start failed

    def save(self, run_dir: Path) -> None:
        write_private(run_dir / "supervisor.json", json.dumps(asdict(self), indent=1))


def load(run_dir: Path) -> MachineStatus | None:
    """The status that the last supervisor of this state directory wrote, running or not; None when there was none.

    Raises ValueError when the file cannot be read.
    """
    try:
        record = json.loads((run_dir / "supervisor.json").read_text())
        units = {name: UnitStatus(**unit) for name, unit in record.pop("units").items()}
        guard, supervisor = Identity(**record.pop("guard")), Identity(**record.pop("supervisor"))
        return MachineStatus(**record, guard=guard, supervisor=supervisor, units=units)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{run_dir / 'supervisor.json'} cannot be read ({error}); `down` removes it.") from error


def supervised(run_dir: Path) -> bool:
    """Whether a supervisor of this state directory is alive: it holds a lock as long as it lives."""
    try:
        with (run_dir / "supervisor.lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def supervisor_lock(run_dir: Path) -> Iterator[bool]:
    """Acquire the lock of the only supervisor of a state directory; False when another process holds it."""
    with private(run_dir / "supervisor.lock") as file:
        for _ in range(50):  # for a second, because `supervised` holds the lock for a moment
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
                continue
            yield True
            return
        yield False


def current_settings() -> Settings:
    """The running machine's settings, so that every command uses its ports; else those of the environment."""
    settings = from_environment()
    status = load(settings.run_dir) if supervised(settings.run_dir) else None
    if status and set(status.ports) == set(PORTS):
        return Settings(settings.run_dir, status.ports)
    return settings
