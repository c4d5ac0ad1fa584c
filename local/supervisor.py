"""The supervisor: starts the units in order, restarts those that crash, and stops them all.

One thread starts processes and waits for them, because the kernel's death signal is bound to the thread that started a
process. Other threads run the readiness checks, so a service that does not respond delays nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from local import processes
from local.environment import basics
from local.processes import Identity
from local.settings import Settings
from local.state import MachineStatus, Phase, UnitState, UnitStatus
from local.unit import Unit, ordered

log = logging.getLogger("local.supervisor")
SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}

_TICK = 0.1  # seconds between two readiness checks; a signal wakes the loop at once
_CRASHES_BEFORE_READY = 3  # then the unit, and with it `up`, has failed
_BACK_OFF = (0.5, 30.0)  # seconds: the first and the longest wait; each wait doubles the previous one
_GOOD_SECONDS = 20.0  # after running this long, including its start, a unit's back-off starts again
_LOG_AGAIN = 60.0  # seconds between two log entries of the same error
_LOG_BYTES = 20_000_000  # a longer log is renamed at the next start; one older log is kept
_LAUNCH = str(Path(__file__).with_name("launch.py"))


@dataclass
class _Run:
    """A unit and its present process."""

    unit: Unit
    status: UnitStatus
    running_check: Future[str | None] | None = None
    next_start: float = 0.0  # monotonic; while backing off
    crashes: int = 0  # in a row
    restart_requested: bool = False
    stop_deadline: float = float("inf")  # monotonic; then SIGKILL
    killed: bool = False


class Supervisor:
    """Runs the units of one machine until a signal stops it. Call `run` from the main thread with SIGNALS blocked."""

    def __init__(self, settings: Settings, units: Sequence[Unit], instance: str, guard: Identity) -> None:
        own = Identity.of(os.getpid())
        assert own is not None  # this very process
        self.settings = settings
        self.runs = {name: _Run(unit, UnitStatus(once=unit.once)) for name, unit in ordered(units).items()}
        statuses = {name: run.status for name, run in self.runs.items()}
        self.status = MachineStatus(instance, "starting", guard, own, dict(settings.ports), statuses)
        self._checks = ThreadPoolExecutor(8, thread_name_prefix="check")
        self._changed = True
        self._last_error = ("", 0.0)  # the last logged error, and when

    def run(self) -> bool:
        """Supervise until SIGTERM, SIGINT or a failed start, then stop everything. True unless a start failed."""
        log.info("supervising %d units", len(self.runs))
        while self.status.phase in ("starting", "up"):
            self._save()
            received = signal.sigtimedwait(SIGNALS, _TICK)
            if received is not None and received.si_signo != signal.SIGCHLD:
                log.info("%s: stopping", signal.Signals(received.si_signo).name)
                self._phase("stopping")
                break
            with self._tolerate_errors():
                self._reap()
                self._requests()
            for run in self.runs.values():
                with self._tolerate_errors():
                    self._advance(run)
            if self.status.phase == "starting" and all(r.status.state in ("ready", "done") for r in self.runs.values()):
                self._phase("up")
        self._stop_all()
        self._phase("failed" if self.status.failure else "stopped")
        self._save()
        self._checks.shutdown(wait=False, cancel_futures=True)
        return not self.status.failure

    @contextlib.contextmanager
    def _tolerate_errors(self) -> Iterator[None]:
        """Log an OSError and go on; a later turn of the loop tries again.

        A full disk or a lack of file handles or memory passes, while the end of the supervisor would end every service.
        """
        try:
            yield
        except OSError as error:
            message, logged_at = self._last_error
            if str(error) != message or time.monotonic() > logged_at + _LOG_AGAIN:
                log.warning("an operation failed, trying again: %s", error)
                self._last_error = (str(error), time.monotonic())

    # one unit ---------------------------------------------------------------------------------------------------

    def _advance(self, run: _Run) -> None:
        match run.status.state:
            case "waiting":
                if all(self.runs[name].status.state in ("ready", "done") for name in run.unit.after):
                    self._start(run)
            case "starting" if not run.unit.once:
                self._check_readiness(run)
            case "ready" if run.unit.over:
                self._restart_if(run, run.unit.over())
            case "back-off":
                if time.monotonic() >= run.next_start:
                    self._start(run)
            case "stopping":
                self._finish_stop(run)
        if run.status.state == "starting":
            self._check_deadline(run)

    def _start(self, run: _Run) -> None:
        unit, status = run.unit, run.status
        path = self.settings.log_dir / f"{unit.name}.log"
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        status.log_from = path.stat().st_size if path.exists() else 0
        environment = {**basics(), **unit.environment, processes.MARKER: str(self.settings.run_dir)}
        # The process inherits only standard output and error: Python opens files close-on-exec.
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        command = [sys.executable, "-I", "-S", _LAUNCH, *(["--unprivileged"] if unit.unprivileged else [])]
        command += [str(int(unit.stop_signal)), str(os.getpid()), str(unit.directory), *unit.command]
        status.started = time.time()
        status.pid = os.posix_spawn(sys.executable, command, environment, file_actions=actions, setsid=True)
        # Set at once: an error below must not start the process a second time.
        self._set(run, "starting" if unit.once or unit.check else "ready")
        status.start_time, status.seconds, status.detail = None, None, ""
        run.running_check, run.stop_deadline, run.killed = None, float("inf"), False
        log.info("%s: started, pid %d", unit.name, status.pid)
        if identity := Identity.of(status.pid):
            status.start_time = identity.start_time

    def _check_readiness(self, run: _Run) -> None:
        """Submit the readiness check, or take its result."""
        check, status = run.unit.check, run.status
        if run.running_check is None and check is not None and status.started is not None:
            run.running_check = self._checks.submit(check, status.started)
        elif run.running_check is not None and run.running_check.done():
            try:
                missing = run.running_check.result()
            except Exception as error:  # noqa: BLE001 - an error of the check means: not ready, and why
                missing = f"{type(error).__name__}: {error}"
            run.running_check = None
            status.detail = missing or ""
            if missing is None:
                self._succeeded(run, "ready")

    def _restart_if(self, run: _Run, reason: str | None) -> None:
        """Stop and restart a service that runs but no longer serves; `reason` says why, None when it serves."""
        if reason is not None:
            log.warning("%s: %s", run.unit.name, reason)
            self._stop(run)
            run.restart_requested = True

    def _succeeded(self, run: _Run, state: UnitState) -> None:
        status = run.status
        status.seconds = round(time.time() - (status.started or time.time()), 2)
        log.info("%s: %s after %.1f s", run.unit.name, state, status.seconds)
        self._set(run, state)

    def _check_deadline(self, run: _Run) -> None:
        """Give up a start that takes too long: while the machine starts it has failed, later the unit is restarted."""
        seconds = time.time() - (run.status.started or time.time())
        if seconds < run.unit.ready_seconds:
            return
        reason = f"not ready after {run.unit.ready_seconds:.0f} s. {run.status.detail}".rstrip()
        if self.status.phase == "starting":
            self._fail(run, reason)
        else:
            log.warning("%s: %s", run.unit.name, reason)
            self._stop(run)
            run.restart_requested = True

    def _reap(self) -> None:
        """Wait for every child that has ended, and handle the ends of units; adopted orphans are only reaped."""
        by_pid = {run.status.pid: run for run in self.runs.values() if run.status.pid}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if run := by_pid.get(pid):
                self._ended(run, os.waitstatus_to_exitcode(status))

    def _ended(self, run: _Run, code: int) -> None:
        ending = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        log.info("%s: pid %s ended with %s", run.unit.name, run.status.pid, ending)
        if run.status.state == "stopping":
            return  # _finish_stop ends the rest of its session
        session, run.status.pid, run.status.start_time = run.status.pid, None, None
        with self._tolerate_errors():
            self._end_session(session)
        if run.unit.once:
            if code == 0:
                self._succeeded(run, "done")
            else:
                self._fail(run, f"ended with {ending}")
            return
        lived = time.time() - (run.status.started or 0.0)
        run.crashes = 1 if lived > _GOOD_SECONDS else run.crashes + 1
        if self.status.phase == "starting" and run.crashes >= _CRASHES_BEFORE_READY:
            self._fail(run, f"ended {run.crashes} times, last with {ending}")
            return
        first, longest = _BACK_OFF
        wait = min(first * 2 ** (run.crashes - 1), longest)
        run.next_start = time.monotonic() + wait
        run.status.restarts += 1
        run.status.detail = f"ended with {ending}; restarts after {wait:g} s"
        log.warning("%s: %s", run.unit.name, run.status.detail)
        self._set(run, "back-off")

    def _fail(self, run: _Run, reason: str) -> None:
        log.error("%s: %s", run.unit.name, reason)
        run.status.detail = reason
        self._set(run, "failed")
        self.status.failure = run.unit.name
        self._phase("stopping")

    # stopping ---------------------------------------------------------------------------------------------------

    def _stop(self, run: _Run) -> None:
        """Send the stop signal to a unit's process group; `_finish_stop` does the rest."""
        self._set(run, "stopping")
        run.stop_deadline = time.monotonic() + run.unit.stop_seconds
        if run.status.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.status.pid, run.unit.stop_signal)

    def _finish_stop(self, run: _Run) -> None:
        status = run.status
        left = processes.in_session(status.pid) if status.pid else []
        if left and time.monotonic() < run.stop_deadline:
            return
        if left:
            if not run.killed:
                log.warning("%s: killing pids %s", run.unit.name, [process.pid for process in left])
            run.killed = True
            self._end_session(status.pid)
            return
        status.pid = status.start_time = None
        if run.restart_requested:
            run.restart_requested = False
            run.next_start = 0.0
            self._set(run, "back-off")
        else:
            self._set(run, "stopped")

    def _end_session(self, session: int | None) -> None:
        for identity in processes.in_session(session) if session else []:
            processes.send(identity, signal.SIGKILL)

    def _stop_all(self) -> None:
        """Stop the units in reverse order, independent ones concurrently, then end the processes that are left."""
        for run in self.runs.values():
            run.restart_requested = False
            if run.status.pid is None and run.status.state != "failed":
                self._set(run, "stopped")
        while True:
            with self._tolerate_errors():
                self._reap()
            busy = [run for run in self.runs.values() if run.status.pid]
            needed = {name for run in busy for name in self._all_before(run.unit)}
            for run in busy:
                with self._tolerate_errors():
                    if run.status.state == "stopping":
                        self._finish_stop(run)
                    elif run.unit.name not in needed:
                        self._stop(run)
            self._save()
            if not busy:
                break
            signal.sigtimedwait({signal.SIGCHLD}, _TICK)
        # Processes that left their service's session: runs of the stand-ins' compute, daemons.
        processes.end(lambda: processes.descendants(os.getpid()), 8.0, self._reap)

    def _all_before(self, unit: Unit) -> set[str]:
        return set(unit.after).union(*(self._all_before(self.runs[name].unit) for name in unit.after))

    # requests and status ----------------------------------------------------------------------------------------

    def _requests(self) -> None:
        """Restart the requested units: each request is a file in `requests/`, named after its unit."""
        for path in (self.settings.run_dir / "requests").iterdir():
            path.unlink()
            run = self.runs.get(path.name)
            if run is None or run.unit.once or run.status.state not in ("ready", "starting", "back-off"):
                continue
            log.info("%s: restart requested", run.unit.name)
            run.restart_requested, run.crashes = True, 0
            self._stop(run)

    def _set(self, run: _Run, state: UnitState) -> None:
        run.status.state = state
        self._changed = True

    def _phase(self, phase: Phase) -> None:
        log.info("machine: %s", phase)
        self.status.phase = phase
        self._changed = True

    def _save(self) -> None:
        if self._changed:
            with self._tolerate_errors():
                self.status.save(self.settings.run_dir)
                self._changed = False
