"""The supervisor of a run: `python -m standins.compute.run <run folder>`, or a fork of the warm cluster.

The supervisor leads its own session, so it outlives the server that started it. It

1. claims the run by creating `process.json` (a second start of the same run finds the claim and ends),
2. forks the worker, which does what `work.json` says and writes its output to `log.txt`,
3. ends the worker and all its descendants at the deadline, or on SIGTERM,
4. writes `result.json`: how and when the run ended.

The server reads all it knows about a run from these files; nothing is lost when it is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from standins.compute.run_files import ERROR, PROCESS, RESULT, STOP, WORK, clear_away, read_json, write_json
from standins.compute.worker import Task, become, deliver, do_work

NICE = 5  # runs have a lower priority than the services and the scheduler, which must respond in time
GRACE = 5.0  # seconds between SIGTERM and SIGKILL

_PR_SET_CHILD_SUBREAPER = 36


def yield_to_services() -> None:
    """Lower this process's priority to that of a run."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def supervise(folder: Path) -> None:
    """Do the work of `folder`'s `work.json`, once; returns when the run and all its processes have ended."""
    # Blocked, not handled: sigtimedwait receives both, so no signal can interrupt other code.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # daemonised grandchildren become children
    yield_to_services()
    if not _claim(folder):
        return
    work = read_json(folder / WORK)
    if work is None:
        raise FileNotFoundError(f"{folder / WORK} is missing: the work of this run is unknown")
    started = time.time()
    # The claim is visible before this check of `stop`; the server writes `stop` before it checks for a claim.
    if (folder / STOP).exists():
        reason, status = _stop_reason(folder), None
    else:
        reason, status = _run(folder, work)
    result: dict[str, Any] = {"reason": reason, "started_at": started, "ended_at": time.time(), "exit_code": None}
    if status is not None:
        result["exit_code"] = os.waitstatus_to_exitcode(status)
    if failure := read_json(folder / ERROR):
        result |= failure
    clear_away(folder)
    write_json(folder / RESULT, result)


def _claim(folder: Path) -> bool:
    """True for the only process that may do this folder's work."""
    temporary = folder / f".claim.{os.getpid()}"
    created = psutil.Process().create_time()
    claim = {"pid": os.getpid(), "pgid": os.getpgid(0), "start_time": created, "started_at": time.time()}
    write_json(temporary, claim)
    try:
        os.link(temporary, folder / PROCESS)  # fails when it exists; the claim appears with its content
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def _stop_reason(folder: Path) -> str:
    """Why the server stopped the run: `canceled` or `timeout`; `killed` when the signal came from elsewhere."""
    try:
        return (folder / STOP).read_text()
    except FileNotFoundError:
        return "killed"


def _run(folder: Path, work: dict[str, Any]) -> tuple[str, int | None]:
    """Do the work, then upload its files. Returns why the run ended and the wait status of the last process."""
    deadline = time.monotonic() + work["timeout"] if work["timeout"] else float("inf")
    reason, status = _fork_and_wait(folder, work, do_work, deadline)
    if work["uploads"] and reason == "exited" and status == 0:
        reason, status = _fork_and_wait(folder, work, deliver, deadline)
    return reason, status


def _fork_and_wait(folder: Path, work: dict[str, Any], task: Task, deadline: float) -> tuple[str, int | None]:
    """Fork a process for `task` and wait; end it and all its descendants at the deadline or on SIGTERM."""
    supervisor = os.getpid()
    worker = os.fork()
    if worker == 0:
        become(folder, work, task, supervisor)
    status: int | None = None
    reason = ""
    while status is None and not reason:
        seconds = min(deadline - time.monotonic(), 3600.0)
        received = signal.sigtimedwait([signal.SIGCHLD, signal.SIGTERM], max(seconds, 0.0))
        status = _reap().get(worker)
        if status is None and received is not None and received.si_signo == signal.SIGTERM:
            reason = _stop_reason(folder)
        elif status is None and time.monotonic() >= deadline:
            reason = "timeout"
    reaped = _end_descendants()
    return reason or "exited", reaped.get(worker) if status is None else status


def _reap() -> dict[int, int]:
    """The wait statuses of all children that have ended."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def _end_descendants() -> dict[int, int]:
    """End all descendants of this process: with SIGTERM first, with SIGKILL after the grace period."""
    kill_after = time.monotonic() + GRACE
    signalled: set[int] = set()
    ended = _reap()
    while remaining := psutil.Process().children(recursive=True):
        kill = time.monotonic() > kill_after
        for process in remaining:
            if kill or process.pid not in signalled:
                signalled.add(process.pid)
                try:
                    process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
                except psutil.NoSuchProcess:
                    continue
        signal.sigtimedwait([signal.SIGCHLD], 0.05)
        ended |= _reap()
    return ended


if __name__ == "__main__":
    supervise(Path(sys.argv[1]))
