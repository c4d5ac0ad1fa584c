"""The units of the supervisor: services that stay, and jobs that end."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.settings import REPOSITORY, Settings

Check = Callable[[float], str | None]
"""Takes the time at which the service was started (seconds since the epoch); None when it is ready, else what is missing."""


@dataclass(frozen=True)
class Unit:
    """One process: its command, the units before it, its readiness check, and how to stop it."""

    name: str
    command: Sequence[str]  # the first word is an absolute path
    environment: Mapping[str, str] = field(default_factory=dict)
    after: Sequence[str] = ()  # units that must be ready, or done, before
    check: Check | None = None  # None: ready as soon as it runs; not used for a job
    over: Callable[[], str | None] | None = (
        None  # why a running service will never serve again, which restarts it; else None
    )
    once: bool = False  # a job: done when it exits with 0, and not restarted
    ports: Sequence[str] = ()  # names in settings.PORTS
    stop_signal: signal.Signals = signal.SIGTERM  # sent to its process group
    stop_seconds: float = 10.0  # then SIGKILL
    ready_seconds: float = 120.0  # then its start has failed
    unprivileged: bool = False  # must not be root
    directory: Path = REPOSITORY


Machine = Callable[[Settings], Sequence[Unit]]


def load_machine(name: str) -> Machine:
    """The function `module:function` that returns the machine's units."""
    module, _, function = name.partition(":")
    machine: Machine = getattr(importlib.import_module(module), function)
    return machine


def ordered(units: Sequence[Unit]) -> dict[str, Unit]:
    """Units by name. Raises ValueError on a name that is used twice, or an `after` that names no earlier unit."""
    by_name: dict[str, Unit] = {}
    for unit in units:
        if unit.name in by_name:
            raise ValueError(f"unit {unit.name} is declared twice")
        for name in unit.after:
            if name not in by_name:
                raise ValueError(f"unit {unit.name} starts after {name}, which is not declared before it")
        by_name[unit.name] = unit
    return by_name
