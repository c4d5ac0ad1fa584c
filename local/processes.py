"""Processes on Linux: their identity, their relations, and how to end them without ending an unrelated process.

A process is identified by its pid and its start time, never by its name, because pids are reused.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

MARKER = (
    "LOCAL_MACHINE"  # in the environment of every process that a supervisor starts; its value is the state directory
)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    start_time: float  # seconds since the epoch, as psutil counts it

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this pid now; None when none has it, or only a zombie."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return cls(pid, process.create_time())
        except psutil.NoSuchProcess:
            return None

    @classmethod
    def from_file(cls, path: Path) -> Identity | None:
        """The process that a JSON file names by `pid` and `start_time`; None when it names none."""
        try:
            record = json.loads(path.read_text())
            return cls(int(record["pid"]), float(record["start_time"]))
        except (OSError, KeyError, TypeError, ValueError):
            return None

    def alive(self) -> bool:
        # psutil adds the boot time, which moves a little when the clock is set: less than a second is tolerated.
        now = Identity.of(self.pid)
        return now is not None and abs(now.start_time - self.start_time) < 1.0


def become_subreaper() -> None:
    """From now on, descendants that lose their parent become children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """Receive SIGTERM when the parent ends, for whatever reason."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the parent process has ended")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def descendants(pid: int) -> list[Identity]:
    """All living descendants of a process."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [identity for child in children if (identity := Identity.of(child.pid))]


def _select(belongs: Callable[[int], bool]) -> list[Identity]:
    members = []
    for pid in psutil.pids():
        if pid == os.getpid():
            continue
        try:
            if belongs(pid) and (identity := Identity.of(pid)):
                members.append(identity)
        except (OSError, psutil.Error):
            continue  # it has ended, or belongs to another user
    return members


def in_session(session: int) -> list[Identity]:
    """All living members of a session. The kernel does not reuse its leader's pid while a member lives."""
    return _select(lambda pid: os.getsid(pid) == session)


def in_group(group: int) -> list[Identity]:
    """All living members of a process group."""
    return _select(lambda pid: os.getpgid(pid) == group)


def marked(value: str) -> list[Identity]:
    """All living processes whose environment shows that a supervisor of this state directory started them."""
    mark = f"{MARKER}={value}".encode()

    def belongs(pid: int) -> bool:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")

    return _select(belongs)


def send(identity: Identity, number: signal.Signals) -> None:
    """Send a signal to a process if the pid still belongs to it."""
    if identity.alive():
        try:
            os.kill(identity.pid, number)
        except ProcessLookupError:
            pass


def end(find: Callable[[], Iterable[Identity]], grace: float, reap: Callable[[], object] = lambda: None) -> int:
    """End every process that `find` returns, until it returns none: SIGTERM, after `grace` seconds SIGKILL.

    `find` is called repeatedly, because a process that is ending may still start others. Returns the number of processes.
    Raises TimeoutError when some survive SIGKILL for ten seconds (a disk that hangs, another user's process).
    """
    signalled: set[Identity] = set()
    deadline = time.monotonic() + grace
    while True:
        reap()
        left = set(find())
        if not left:
            return len(signalled)
        if time.monotonic() > deadline + 10:
            raise TimeoutError(f"processes survive SIGKILL: {sorted(process.pid for process in left)}")
        late = time.monotonic() > deadline
        for identity in left:
            if late:
                send(identity, signal.SIGKILL)
            elif identity not in signalled:
                send(identity, signal.SIGTERM)
        signalled |= left
        time.sleep(0.05)
