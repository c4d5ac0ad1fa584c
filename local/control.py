"""The commands of the machine: up, down, restart."""

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
_START_SECONDS = 30.0  # for the supervisor to start
_DOWN_SECONDS = 60.0  # for the supervisor to stop everything
_REAP_SECONDS = 2.0  # for init to reap a guard that has ended
_POLL = 0.1


class ControlError(Exception):
    """A command failed; the message says why and what to do."""


def up(settings: Settings, console: Console, machine: str = MACHINE) -> bool:
    """Start the machine and return when everything is ready; False when it already was.

    Two calls at the same time are safe: the second one follows the start of the first.
    Raises ControlError: a port is taken, or a service does not start (its last log lines are in the message).
    """
    load_secrets(settings)  # also creates the state directory
    with locked(settings.run_dir / "control.lock"):
        status = _running_status(settings)
        if status is not None:
            _check_ports(status)
            if status.phase == "up":
                return False
        else:
            status = _start_supervisor(settings, machine)
    _follow_start(settings, status, machine, console)
    return True


def _running_status(settings: Settings) -> MachineStatus | None:
    """The status of the running supervisor, once it is not stopping; None when none runs."""
    wait = _Waiting(_DOWN_SECONDS, "the machine is stopping and does not end: run `python -m local down`")
    while supervised(settings.run_dir):
        status = load(settings.run_dir)
        if status is not None and status.phase in ("starting", "up"):
            return status
        wait()
    return None


def _check_ports(status: MachineStatus) -> None:
    """Refuse a port that a variable requests when the running machine uses another one."""
    for name, port in PORTS.items():
        requested, used = os.environ.get(port.variable), status.ports.get(name)
        if requested and used and requested != str(used):
            raise ControlError(
                f"{port.variable} requests port {requested}, but the machine is up with {port.service} on {used}: "
                "run `python -m local down` first, or choose another RUN_DIR for a second machine."
            )


def _start_supervisor(settings: Settings, machine: str) -> MachineStatus:
    """Start the supervisor, after ending any processes that a killed one has left."""
    end_leftovers(settings.run_dir)
    port_names = [name for unit in ordered(load_machine(machine)(settings)).values() for name in unit.ports]
    if taken := ports.taken(settings, port_names):
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
    wait = _Waiting(_START_SECONDS, f"the supervisor does not start; see {path}")
    while True:
        status = load(settings.run_dir)
        if status is not None and status.instance == instance:
            return status
        if guard.poll() is not None:
            raise ControlError(f"the supervisor ended at once.\n{tail(path, offset)}")
        wait()


def _follow_start(settings: Settings, status: MachineStatus, machine: str, console: Console) -> None:
    """Report each unit as it becomes ready, until all are. Raises ControlError when the start fails."""
    instance, reported = status.instance, set[str]()
    with console.status("starting") as spinner:
        while True:
            alive = supervised(settings.run_dir)  # read first: a status loaded afterwards is then its last one
            status = load(settings.run_dir) or status
            for name, unit in status.units.items():
                if unit.state in ("ready", "done") and name not in reported:
                    reported.add(name)
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
                        end_leftovers(settings.run_dir)  # now nothing runs any more
                raise ControlError(_post_mortem(settings, status, machine))
            time.sleep(_POLL)


def _post_mortem(settings: Settings, status: MachineStatus, machine: str) -> str:
    if not status.failure:
        return f"the machine was stopped while it started; see {settings.log_dir / 'supervisor.log'}"
    unit, path = status.units[status.failure], settings.log_dir / f"{status.failure}.log"
    lines = [f"{status.failure} did not start: {unit.detail}. All services were stopped again."]
    failed = ordered(load_machine(machine)(settings))[status.failure]
    lines += ports.taken(settings, failed.ports)  # a port may have been taken after the check before the start
    return "\n".join([*lines, f"Its last log lines, from {path}:", tail(path, unit.log_from)])


def down(settings: Settings, console: Console) -> int:
    """Stop everything, including processes that a killed supervisor left. Returns the number of those."""
    if not settings.run_dir.exists():
        return 0
    with locked(settings.run_dir / "control.lock"), console.status("stopping"):
        status, signalled = load(settings.run_dir), False
        deadline = time.monotonic() + _DOWN_SECONDS
        while supervised(settings.run_dir) and time.monotonic() < deadline:
            status = load(settings.run_dir)
            if status is not None and not signalled:
                # The guard forwards it; without a guard the supervisor is stopping already.
                processes.send(status.guard, signal.SIGTERM)
                signalled = True
            time.sleep(_POLL)
        deadline = time.monotonic() + _REAP_SECONDS
        while status is not None and psutil.pid_exists(status.guard.pid) and time.monotonic() < deadline:
            time.sleep(_POLL / 4)
        count = end_leftovers(settings.run_dir)
        (settings.run_dir / "supervisor.json").unlink(missing_ok=True)
    return count


def end_leftovers(run_dir: Path) -> int:
    """End the processes that a killed supervisor left, found by pid and start time, never by name. Returns their number."""
    return processes.end(lambda: leftovers(run_dir), 8.0)


def leftovers(run_dir: Path) -> set[Identity]:
    """Every living process that belongs to this state directory's machine.

    These are: processes that the last supervisor recorded, with their sessions and descendants; processes with the state
    directory's mark in their environment; and runs of the stand-ins' compute, which lead their own process groups.
    """
    members: set[Identity] = set()
    status = load(run_dir)
    if status is not None:
        for recorded in (status.guard, status.supervisor, *(unit.identity for unit in status.units.values())):
            if recorded is not None and recorded.alive():
                members |= {recorded, *processes.in_session(recorded.pid)}
    for path in (run_dir / "standins" / "runs").glob("*/process.json"):
        run = Identity.from_file(path)
        if run is not None and run.alive():
            members |= {run, *processes.in_group(run.pid)}
    members |= set(processes.marked(str(run_dir)))
    for member in list(members):
        members |= set(processes.descendants(member.pid))
    return {member for member in members if member.pid != os.getpid()}


def restart(settings: Settings, name: str, console: Console) -> None:
    """Stop a service and start it again; returns when it is ready. Raises ControlError."""
    status = load(settings.run_dir) if supervised(settings.run_dir) else None
    if status is None:
        raise ControlError("the machine is not up: start it with `python -m local up`")
    names = [service for service, unit in status.units.items() if not unit.once]
    if name not in names:
        raise ControlError(f"there is no service {name!r}: choose one of {', '.join(names)}")
    requested_at = time.time()
    (settings.run_dir / "requests" / name).touch()
    wait = _Waiting(180.0, f"{name} does not become ready again; see {settings.log_dir / name}.log")
    with console.status(f"restarting {name}"):
        while True:
            status = load(settings.run_dir) or status
            unit = status.units[name]
            if unit.state == "ready" and (unit.started or 0.0) > requested_at:
                console.print(f"[green]✓[/] {name:<18} {unit.state:<6} {unit.seconds or 0.0:5.1f} s", highlight=False)
                return
            if not supervised(settings.run_dir):
                raise ControlError(f"the machine was stopped while {name} restarted")
            wait()


def tail(path: Path, offset: int = 0) -> str:
    """The last lines of a log file, from byte `offset` on."""
    try:
        with path.open("rb") as file:
            file.seek(max(offset, path.stat().st_size - 100_000))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:]) or "  (empty)"


class _Waiting:
    """Each call waits a moment; raises ControlError when the time is over."""

    def __init__(self, seconds: float, message: str) -> None:
        self._deadline, self._message = time.monotonic() + seconds, message

    def __call__(self) -> None:
        if time.monotonic() > self._deadline:
            raise ControlError(self._message)
        time.sleep(_POLL)
