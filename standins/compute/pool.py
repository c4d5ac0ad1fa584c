"""Runs work for real, as a cluster would: every run in its own session, its state in files.

A run's folder is `<state>/runs/<run id>/`; `standins.compute.run` describes the files in it. This module
starts runs, one process each, at most `slots` at once, tells their state and ends them. It keeps
no state of its own: killed and started again, it finds live runs, finished ones and lost ones by
their folders.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from standins.compute.run import GRACE, LOG, PROCESS, RESULT, STOP, WORK, clear_away, read_json, write_json
from standins.compute.warm import Warm
from standins.core.cloud import Cloud

log = logging.getLogger(__name__)

Kind = Literal["wheel", "python_file", "module", "command"]
State = Literal["queued", "running", "ended"]

_PASSED_ON = {"PATH", "HOME", "LANG", "LC_ALL", "LAKE_URI", "LANDING_URI", "ML_COMMIT", "REPORTS_URI"}
_PASSED_ON_FAMILIES = ("AZURE_STORAGE_", "MLFLOW_")
_SHELL = set("$`\\&|;<>()*?[]{}~#!\n")
_CLAIM_SECONDS = 60.0  # a started run that has not begun by then never will
_POLL = 0.05  # seconds between looks at the runs while there are any


@dataclass(frozen=True)
class Work:
    """What a run is to do.

    `target` is a wheel's package name, a file (local path or blob), a module name, or a shell command. `downloads`
    are (uri, path in the run's folder) fetched before, `uploads` (path in the run's folder, uri) delivered after
    success; one that ends in a slash is a folder, which the run finds made. `timeout` in seconds counts from the start; 0 is none.
    """

    kind: Kind
    target: str
    entry_point: str = ""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    wheels: tuple[str, ...] = ()
    downloads: tuple[tuple[str, str], ...] = ()
    uploads: tuple[tuple[str, str], ...] = ()
    working_folder: str = "work"
    timeout: float = 0.0

    @classmethod
    def command(cls, line: str) -> Work:
        """A shell command. A plain `python -m module …` needs no shell, so the warm cluster can run it."""
        if not _SHELL & set(line):
            words = shlex.split(line)
            if len(words) > 2 and words[0] in ("python", "python3") and words[1] == "-m":
                return cls("module", words[2], arguments=tuple(words[3:]))
        return cls("command", line)


@dataclass(frozen=True)
class Status:
    """How a run is doing. Times are seconds since the epoch, UTC.

    `reason` says why it ended: exited (see `exit_code`), canceled, timeout, killed (a signal from outside), lost (it
    vanished without a word) or setup (what it needs could not be fetched; see `error`).
    """

    state: State
    started_at: float | None = None
    ended_at: float | None = None
    reason: str = ""
    exit_code: int | None = None
    error: str = ""
    trace: str = ""

    @property
    def succeeded(self) -> bool:
        return self.state == "ended" and self.reason == "exited" and self.exit_code == 0


def environment(cloud: Cloud, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What every run finds in its environment: the cluster's identity in storage and MLflow, and nothing else.

    The stand-ins' own secrets and the proxy to the cloud's names are the caller's, not the cluster's.
    """
    settings = cloud.settings
    passed = {k: v for k, v in environ.items() if k in _PASSED_ON or k.startswith(_PASSED_ON_FAMILIES)}
    threads = environ.get("OMP_NUM_THREADS") or str(min(os.cpu_count() or 1, 4))
    return {
        "LANG": "C.UTF-8",
        **passed,
        "AZURE_STORAGE_ACCOUNT_NAME": settings.storage_account,
        "AZURE_STORAGE_ACCOUNT_KEY": settings.storage_key,
        "AZURE_STORAGE_ENDPOINT": settings.blob_endpoint,
        "AZURE_STORAGE_QUEUE_ENDPOINT": settings.queue_endpoint,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)]),
        "TZ": "UTC",
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads of one run would starve the others
        "MPLBACKEND": "Agg",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
    }


class Compute:
    """Starts, watches and ends runs. Thread-safe. `listeners` are called after every look at the runs.

    Use `cloud.one(Compute)`: all services of a cloud share its slots and its warm cluster. `STANDINS_SLOTS` says how
    many runs go on at once (default: one for each processor, at least 4); `STANDINS_WARM` is told in `compute_warm`.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.folder = cloud.settings.state_dir.resolve() / "runs"
        self.listeners: list[Callable[[], None]] = []
        self.environment = environment(cloud)
        self._cloud = cloud
        self._slots = int(os.environ.get("STANDINS_SLOTS", max(4, os.cpu_count() or 1)))
        self._lock = threading.Lock()
        self._queue: deque[str] = deque()
        self._running: dict[str, float] = {}  # run → when it was started, on the monotonic clock
        self._children: list[subprocess.Popen[bytes]] = []
        self._wake = threading.Event()
        self._warm = Warm(self.folder.parent, self.environment)
        self._started = False

    @property
    def is_warm(self) -> bool:
        """Whether runs start as forks of the warm cluster by now."""
        return self._warm.ready

    def start(self) -> None:
        """Begin to watch, runs of an earlier process too; called by every service that uses this compute, effective once."""
        with self._lock:
            if self._started:
                return
            self._started = True
        for work in sorted(self.folder.glob(f"*/{WORK}"), key=lambda path: path.stat().st_mtime):
            self._take_up(work.parent)
        self._cloud.background("compute", self._watch)

    def submit(self, run: str, work: Work) -> None:
        """Have a run done, once: one that is known already stays as it is."""
        folder = self.folder / run
        if not (folder / WORK).exists():
            full = replace(work, environment={**self.environment, **work.environment})
            (folder / work.working_folder).mkdir(parents=True, exist_ok=True, mode=0o700)
            write_json(folder / WORK, asdict(full))
        self._take_up(folder)

    def _take_up(self, folder: Path) -> None:
        run = folder.name
        with self._lock:
            if run in self._running or run in self._queue or (folder / RESULT).exists():
                return
            if (folder / PROCESS).exists():
                self._running[run] = time.monotonic()
            else:
                self._queue.append(run)
        self._wake.set()

    def status(self, run: str) -> Status | None:
        """How a run is doing; None for one that was never submitted."""
        folder = self.folder / run
        if result := read_json(folder / RESULT):
            return Status(
                "ended", result["started_at"], result["ended_at"], result["reason"], result["exit_code"],
                result.get("error", ""), result.get("trace", ""),
            )  # fmt: skip
        if process := read_json(folder / PROCESS):
            return Status("running", started_at=process["started_at"])
        return Status("queued") if (folder / WORK).exists() else None

    def stop(self, run: str, reason: Literal["canceled", "timeout", "lost"] = "canceled") -> None:
        """End a run and all its processes; returns at once. Nothing happens to one that has ended."""
        folder = self.folder / run
        if not folder.is_dir() or (folder / RESULT).exists():
            return
        if not (folder / STOP).exists():
            temporary = folder / f".stop.{threading.get_ident()}"
            temporary.write_text(reason)
            temporary.replace(folder / STOP)
        # Written before the look below: a supervisor that starts now looks for it after its claim.
        if process := _supervisor(folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        self._wake.set()

    def output(self, run: str, start: int = 0) -> bytes:
        """What the run has written to standard output and error, in order, from byte `start` on."""
        try:
            with (self.folder / run / LOG).open("rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""

    def delete(self, run: str) -> None:
        """Forget an ended run."""
        shutil.rmtree(self.folder / run, ignore_errors=True)

    def wake(self) -> None:
        """Look at the runs, and call the listeners, now."""
        self._wake.set()

    def _watch(self) -> None:
        self._warm.start_early()
        last = ""
        try:
            while not self._cloud.stopping.is_set():
                self._wake.clear()
                try:
                    self._warm.look()
                    self._look()
                    last = ""
                except (
                    OSError
                ) as error:  # a full disk, no file handles: it passes, and every later run needs this thread
                    if str(error) != last:
                        log.warning("looking after the runs failed: %s; trying again", error)
                    last = str(error)
                for listener in self.listeners:
                    try:
                        listener()
                    except Exception:  # the runs of one service must not stop those of another
                        log.exception("following the runs failed; trying again")
                with self._lock:
                    idle = not (self._running or self._queue)
                self._wake.wait(0.2 if idle else _POLL)
        finally:
            self._warm.close()

    def _look(self) -> None:
        """Take note of what has ended, start what there is room for."""
        self._children = [child for child in self._children if child.poll() is None]
        with self._lock:
            running = dict(self._running)
        for run, launched in running.items():
            if self._ended(self.folder / run, launched):
                with self._lock:
                    del self._running[run]
        while True:
            with self._lock:
                if not self._queue or len(self._running) >= self._slots:
                    return
                run = self._queue.popleft()
                self._running[run] = time.monotonic()
            try:
                if (self.folder / run / STOP).exists():
                    _bury(self.folder / run)
                else:
                    self._launch(self.folder / run)
            except OSError:  # it was not started: its turn comes again
                with self._lock:
                    del self._running[run]
                    self._queue.appendleft(run)
                raise

    def _ended(self, folder: Path, launched: float) -> bool:
        """Whether a started run has a result by now; one whose supervisor is gone is given one."""
        if (folder / RESULT).exists():
            return True
        if not (folder / PROCESS).exists():
            if time.monotonic() - launched < _CLAIM_SECONDS:
                return False
            self.stop(folder.name, "lost")  # from here on nobody can start it
            if (folder / PROCESS).exists():
                return False
        elif _supervisor(folder) and not _overdue(folder):
            return False
        if not (folder / RESULT).exists():  # it may have ended between the looks
            _bury(folder)
        return True

    def _launch(self, folder: Path) -> None:
        if self._warm.fork(folder):
            return
        with (folder / LOG).open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "standins.compute.run", str(folder)],
                cwd=Path(__file__).resolve().parents[2],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._children.append(child)


def _supervisor(folder: Path) -> psutil.Process | None:
    """The run's supervisor while it lives. A process that got the same id later has another start time."""
    claim = read_json(folder / PROCESS)
    if claim is None:
        return None
    try:
        process = psutil.Process(claim["pid"])
        same = _same(process, claim) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def _overdue(folder: Path) -> bool:
    """Whether a stopped run has had more than enough time to end by itself."""
    try:
        return time.time() - (folder / STOP).stat().st_mtime > 2 * GRACE
    except FileNotFoundError:
        return False


def _bury(folder: Path) -> None:
    """Write down that a run has ended without saying so, and end what it may have left behind."""
    claim = read_json(folder / PROCESS)
    if claim and _is_ours(claim):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(claim["pgid"], signal.SIGKILL)
    started = claim["started_at"] if claim else None
    result = {"reason": "lost", "started_at": started, "ended_at": time.time(), "exit_code": None}
    with contextlib.suppress(FileNotFoundError):
        result["reason"] = (folder / STOP).read_text()
    if result["reason"] == "lost":
        result["error"] = "the run's process vanished without a result: killed from outside, or out of memory"
    clear_away(folder)
    write_json(folder / RESULT, result)


def _is_ours(claim: dict[str, Any]) -> bool:
    """Whether the process group of a claim, if there is one, can only be the run's."""
    try:  # a group keeps its leader's id from being given away; so a stranger with that id means no group is left
        return _same(psutil.Process(claim["pid"]), claim)
    except psutil.NoSuchProcess:
        return True


def _same(process: psutil.Process, claim: dict[str, Any]) -> bool:
    """Whether a process is the one that made a claim. The kernel's idea of when it booted moves by up to a second."""
    return bool(abs(process.create_time() - claim["start_time"]) < 1.5)
