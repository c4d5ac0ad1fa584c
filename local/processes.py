"""Processes on Linux: who is who, who belongs to whom, and ending them without ending a stranger.

A process is known by its pid together with its start time, never by its name; pids are used again.
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

MARKER = "LOCAL_MACHINE"  # in the environment of all that a supervisor starts: the state directory
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    start_time: float  # seconds since the epoch, as psutil counts it

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Who has this pid now; None when nobody has, or only a zombie is left."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return cls(pid, process.create_time())
        except psutil.NoSuchProcess:
            return None

    @classmethod
    def from_file(cls, path: Path) -> Identity | None:
        """The process that a JSON file with `pid` and `start_time` names; None when it names none."""
        try:
            record = json.loads(path.read_text())
            return cls(int(record["pid"]), float(record["start_time"]))
        except (OSError, KeyError, TypeError, ValueError):
            return None

    def alive(self) -> bool:
        # psutil adds the boot time, which moves a little when the clock is set: a second is let pass.
        now = Identity.of(self.pid)
        return now is not None and abs(now.start_time - self.start_time) < 1.0


def become_subreaper() -> None:
    """From now on, descendants that lose their parent become children of this process instead of escaping."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """Get SIGTERM when the parent ends, however it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the parent has ended meanwhile")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def descendants(pid: int) -> list[Identity]:
    """All living descendants of a process."""
    try:
        found = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [identity for child in found if (identity := Identity.of(child.pid))]


def _select(belongs: Callable[[int], bool]) -> list[Identity]:
    found = []
    for pid in psutil.pids():
        if pid == os.getpid():
            continue
        try:
            if belongs(pid) and (identity := Identity.of(pid)):
                found.append(identity)
        except (OSError, psutil.Error):
            continue  # gone meanwhile, or another user's: not ours
    return found


def in_session(session: int) -> list[Identity]:
    """All living members of a session. Its leader's pid is not given to anyone else while one is left."""
    return _select(lambda pid: os.getsid(pid) == session)


def in_group(group: int) -> list[Identity]:
    """All living members of a process group."""
    return _select(lambda pid: os.getpgid(pid) == group)


def marked(value: str) -> list[Identity]:
    """All living processes whose environment says that a supervisor of this state directory started them."""
    wanted = f"{MARKER}={value}".encode()

    def belongs(pid: int) -> bool:
        return wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")

    return _select(belongs)


def send(identity: Identity, number: signal.Signals) -> None:
    """Signal a process if it is still the same one."""
    if identity.alive():
        try:
            os.kill(identity.pid, number)
        except ProcessLookupError:
            pass


def end(find: Callable[[], Iterable[Identity]], grace: float, reap: Callable[[], object] = lambda: None) -> int:
    """End every process that `find` gives until it gives none: SIGTERM, after `grace` seconds SIGKILL.

    `find` is asked again and again, because what is being ended may still start others. Returns how many were found.
    Raises TimeoutError when some survive SIGKILL for ten seconds (a disk that hangs, another user's process).
    """
    asked: set[Identity] = set()
    deadline = time.monotonic() + grace
    while True:
        reap()
        left = set(find())
        if not left:
            return len(asked)
        if time.monotonic() > deadline + 10:
            raise TimeoutError(f"processes survive SIGKILL: {sorted(one.pid for one in left)}")
        late = time.monotonic() > deadline
        for identity in left:
            if late:
                send(identity, signal.SIGKILL)
            elif identity not in asked:
                send(identity, signal.SIGTERM)
        asked |= left
        time.sleep(0.05)
