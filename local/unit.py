"""What the supervisor supervises: a service that stays, or a job that ends."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.settings import REPOSITORY, Settings

Check = Callable[[float], str | None]
"""Given when the service was started (seconds since the epoch): None when it is ready, else what is missing."""


@dataclass(frozen=True)
class Unit:
    """One process to be started: after which others, how to know that it is ready, and how to end it."""

    name: str
    command: Sequence[str]  # the first is an absolute path
    environment: Mapping[str, str] = field(default_factory=dict)
    after: Sequence[str] = ()  # units that must be ready, or done, before
    check: Check | None = None  # None: ready as soon as it runs; never asked of a job
    over: Callable[[], str | None] | None = None  # why it runs and will never serve again: it is ended and started anew
    once: bool = False  # a job: done when it exits with 0, and not started again
    ports: Sequence[str] = ()  # names in settings.PORTS
    stop_signal: signal.Signals = signal.SIGTERM  # to its process group
    stop_seconds: float = 10.0  # then SIGKILL
    ready_seconds: float = 120.0  # then the machine counts as failed
    unprivileged: bool = False  # must not be root
    directory: Path = REPOSITORY


Machine = Callable[[Settings], Sequence[Unit]]


def load_machine(name: str) -> Machine:
    """The function `module:function` that says which units make up the machine."""
    module, _, function = name.partition(":")
    machine: Machine = getattr(importlib.import_module(module), function)
    return machine


def ordered(units: Sequence[Unit]) -> dict[str, Unit]:
    """Units by name. Raises ValueError on a name used twice, or an order that refers to no earlier unit."""
    found: dict[str, Unit] = {}
    for unit in units:
        if unit.name in found:
            raise ValueError(f"unit {unit.name} is declared twice")
        for name in unit.after:
            if name not in found:
                raise ValueError(f"unit {unit.name} starts after {name}, which is not declared before it")
        found[unit.name] = unit
    return found
