"""What people ask of the machine: up, down, restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
from rich.console import Console

from local import ports, processes
from local.processes import Identity
from local.settings import PORTS, REPOSITORY, Settings, load_secrets, locked
from local.state import MachineStatus, load, supervised
from local.unit import load_machine, ordered

MACHINE = "local.machine:units"

_TAIL_LINES = 30
_BEGIN_SECONDS = 30.0  # for the supervisor to appear
_DOWN_SECONDS = 60.0  # for the supervisor to end everything in good order
_BURIAL_SECONDS = 2.0  # for init to take note of a guard that has ended
_POLL = 0.1


class ControlError(Exception):
    """What was asked for did not happen; the message says why and what to do."""


def up(settings: Settings, console: Console, machine: str = MACHINE) -> bool:
    """Bring the machine up and return when everything is ready; False when it already was.

    Safe to call twice at once: the second call follows the first one's start.
    Raises ControlError: a port is taken, a service does not come up (its last lines are in the message).
    """
    load_secrets(settings)  # makes the state directory too
    with locked(settings.run_dir / "control.lock"):
        status = _settled(settings)
        if status is not None:
            _agree(status)
            if status.phase == "up":
                return False
        else:
            status = _begin(settings, machine)
    _follow(settings, status, machine, console)
    return True


def _settled(settings: Settings) -> MachineStatus | None:
    """The status of the supervisor that runs, once it is not about to end; None when none runs."""
    wait = _Waiting(_DOWN_SECONDS, "the machine is stopping, and does not come to an end: `python -m local down`")
    while supervised(settings.run_dir):
        status = load(settings.run_dir)
        if status is not None and status.phase in ("starting", "up"):
            return status
        wait()
    return None


def _agree(status: MachineStatus) -> None:
    """Refuse a port that was asked for expressly and is not the one in use."""
    for name, port in PORTS.items():
        asked, used = os.environ.get(port.variable), status.ports.get(name)
        if asked and used and asked != str(used):
            raise ControlError(
                f"{port.variable} asks for port {asked}, but the machine is up with {port.service} on {used}: "
                "`python -m local down` first, or choose another RUN_DIR for a second machine."
            )


def _begin(settings: Settings, machine: str) -> MachineStatus:
    """Start the supervisor, after what a killed one may have left has been ended."""
    end_leftovers(settings.run_dir)
    wanted = [name for unit in ordered(load_machine(machine)(settings)).values() for name in unit.ports]
    if taken := ports.taken(settings, wanted):
        raise ControlError("\n".join(taken))
    instance = uuid.uuid4().hex
    environment = {**os.environ, "RUN_DIR": str(settings.run_dir)}
    environment |= {port.variable: str(settings.ports[name]) for name, port in PORTS.items()}
    path = settings.log_dir / "supervisor.log"
    with path.open("ab") as log:
        offset = log.tell()
        guard = subprocess.Popen(
            [sys.executable, "-m", "local.guard", "--machine", machine, "--instance", instance],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    wait = _Waiting(_BEGIN_SECONDS, f"the supervisor does not begin; see {path}")
    while True:
        status = load(settings.run_dir)
        if status is not None and status.instance == instance:
            return status
        if guard.poll() is not None:
            raise ControlError(f"the supervisor ended at once.\n{tail(path, offset)}")
        wait()


def _follow(settings: Settings, status: MachineStatus, machine: str, console: Console) -> None:
    """Tell of each unit as it becomes ready, until all are. Raises ControlError when it comes to nothing."""
    instance, told = status.instance, set[str]()
    with console.status("starting") as spinner:
        while True:
            alive = supervised(settings.run_dir)  # asked first: what is loaded after is then its last word
            status = load(settings.run_dir) or status
            for name, unit in status.units.items():
                if unit.state in ("ready", "done") and name not in told:
                    told.add(name)
                    console.print(
                        f"[green]✓[/] {name:<18} {unit.state:<6} {unit.seconds or 0.0:5.1f} s", highlight=False
                    )
            if status.phase == "up" and status.instance == instance:
                return
            busy = [name for name, unit in status.units.items() if unit.state in ("starting", "back-off")]
            spinner.update(f"{status.phase}: {', '.join(busy)}")
            if not alive or status.instance != instance:
                with locked(settings.run_dir / "control.lock"):
                    if not supervised(settings.run_dir):
                        end_leftovers(settings.run_dir)  # at the latest now nothing runs any more
                raise ControlError(_post_mortem(settings, status, machine))
            time.sleep(_POLL)


def _post_mortem(settings: Settings, status: MachineStatus, machine: str) -> str:
    if not status.failure:
        return f"the machine was stopped while it came up; see {settings.log_dir / 'supervisor.log'}"
    unit, path = status.units[status.failure], settings.log_dir / f"{status.failure}.log"
    lines = [f"{status.failure} did not come up: {unit.detail}. Everything is stopped again."]
    failed = ordered(load_machine(machine)(settings))[status.failure]
    lines += ports.taken(settings, failed.ports)  # somebody may have been faster than the check before the start
    return "\n".join([*lines, f"Its last lines, from {path}:", tail(path, unit.log_from)])


def down(settings: Settings, console: Console) -> int:
    """Stop everything, and what a killed supervisor may have left. Returns how many leftovers there were."""
    if not settings.run_dir.exists():
        return 0
    with locked(settings.run_dir / "control.lock"), console.status("stopping"):
        status, asked = load(settings.run_dir), False
        deadline = time.monotonic() + _DOWN_SECONDS
        while supervised(settings.run_dir) and time.monotonic() < deadline:
            status = load(settings.run_dir)
            if status is not None and not asked:
                # The guard hands it on; without a guard the supervisor is stopping already.
                processes.send(status.guard, signal.SIGTERM)
                asked = True
            time.sleep(_POLL)
        deadline = time.monotonic() + _BURIAL_SECONDS
        while status is not None and psutil.pid_exists(status.guard.pid) and time.monotonic() < deadline:
            time.sleep(_POLL / 4)
        left = end_leftovers(settings.run_dir)
        (settings.run_dir / "supervisor.json").unlink(missing_ok=True)
    return left


def end_leftovers(run_dir: Path) -> int:
    """End what a killed supervisor left, found by pid and start time, never by name. Returns how many."""
    return processes.end(lambda: leftovers(run_dir), 8.0)


def leftovers(run_dir: Path) -> set[Identity]:
    """Every living process that belongs to this state directory's machine.

    That is: what the last supervisor noted, with sessions and descendants; what carries the state directory's mark in
    its environment; and the runs that the stand-ins' compute started, which lead process groups of their own.
    """
    found: set[Identity] = set()
    status = load(run_dir)
    if status is not None:
        for known in (status.guard, status.supervisor, *(unit.identity for unit in status.units.values())):
            if known is not None and known.alive():
                found |= {known, *processes.in_session(known.pid)}
    for path in (run_dir / "standins" / "runs").glob("*/process.json"):
        run = Identity.from_file(path)
        if run is not None and run.alive():
            found |= {run, *processes.in_group(run.pid)}  # it leads a group of its own
    found |= set(processes.marked(str(run_dir)))
    for one in list(found):
        found |= set(processes.descendants(one.pid))
    return {one for one in found if one.pid != os.getpid()}


def restart(settings: Settings, name: str, console: Console) -> None:
    """Stop a service and start it again; returns when it is ready. Raises ControlError."""
    status = load(settings.run_dir) if supervised(settings.run_dir) else None
    if status is None:
        raise ControlError("the machine is not up: `python -m local up`")
    names = [one for one, unit in status.units.items() if not unit.once]
    if name not in names:
        raise ControlError(f"there is no service {name!r}: choose one of {', '.join(names)}")
    asked = time.time()
    (settings.run_dir / "requests" / name).touch()
    wait = _Waiting(180.0, f"{name} does not come back; see {settings.log_dir / name}.log")
    with console.status(f"restarting {name}"):
        while True:
            status = load(settings.run_dir) or status
            unit = status.units[name]
            if unit.state == "ready" and (unit.started or 0.0) > asked:
                console.print(f"[green]✓[/] {name:<18} {unit.state:<6} {unit.seconds or 0.0:5.1f} s", highlight=False)
                return
            if not supervised(settings.run_dir):
                raise ControlError("the machine was stopped meanwhile")
            wait()


def tail(path: Path, offset: int = 0) -> str:
    """The last lines of a log file, none of them from before `offset` bytes."""
    try:
        with path.open("rb") as file:
            file.seek(max(offset, path.stat().st_size - 100_000))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:]) or "  (it said nothing)"


class _Waiting:
    """Call it to wait a moment; it raises ControlError when the time is over."""

    def __init__(self, seconds: float, message: str) -> None:
        self._deadline, self._message = time.monotonic() + seconds, message

    def __call__(self) -> None:
        if time.monotonic() > self._deadline:
            raise ControlError(self._message)
        time.sleep(_POLL)
