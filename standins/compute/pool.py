"""The compute of all services: really executes runs, as a cluster would, each in its own session.

A run's folder is `<state>/runs/<run id>/`; `standins.compute.run_files` lists its files. This module starts runs, one
process each, at most `slots` at once, reports their status and ends them. All state is in the folders: after a kill
and a restart it finds running, finished and lost runs there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from standins.compute.run import GRACE
from standins.compute.run_files import LOG, PROCESS, RESULT, STOP, WORK, clear_away, read_json, write_json
from standins.compute.warm import Warm
from standins.compute.work import Status, Work
from standins.core.cloud import Cloud

log = logging.getLogger(__name__)

_INHERITED = {"PATH", "HOME", "LANG", "LC_ALL", "LAKE_URI", "LANDING_URI", "ML_COMMIT", "ML_RESOURCES", "REPORTS_URI"}
_INHERITED_PREFIXES = ("AZURE_STORAGE_", "MLFLOW_")
_CLAIM_SECONDS = 60.0  # a launched run that has not made its claim by then never will
_POLL = 0.05  # seconds between checks while runs are active


def environment(cloud: Cloud, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables of every run: the cluster's credentials for storage and MLflow, and defaults.

    The server's own secrets and its proxy settings are not passed on.
    """
    settings = cloud.settings
    inherited = {k: v for k, v in environ.items() if k in _INHERITED or k.startswith(_INHERITED_PREFIXES)}
    threads = environ.get("OMP_NUM_THREADS") or str(min(os.cpu_count() or 1, 4))
    return {
        "LANG": "C.UTF-8",
        **inherited,
        "AZURE_STORAGE_ACCOUNT_NAME": settings.storage_account,
        "AZURE_STORAGE_ACCOUNT_KEY": settings.storage_key,
        "AZURE_STORAGE_ENDPOINT": settings.blob_endpoint,
        "AZURE_STORAGE_QUEUE_ENDPOINT": settings.queue_endpoint,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)]),
        "TZ": "UTC",
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # busy-waiting threads of one run would slow down the others
        "MPLBACKEND": "Agg",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
    }


class Compute:
    """Starts, watches and ends runs. Thread-safe. `listeners` are called after every check of the runs.

    Use `cloud.shared(Compute)`: all services of a cloud share its slots and its warm cluster. `STANDINS_SLOTS` is the
    number of runs at once (default: one per processor, at least 4); `standins.compute.warm` documents `STANDINS_WARM`.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.folder = cloud.settings.state_dir.resolve() / "runs"
        self.listeners: list[Callable[[], None]] = []
        self.environment = environment(cloud)
        self._cloud = cloud
        self._slots = int(os.environ.get("STANDINS_SLOTS", max(4, os.cpu_count() or 1)))
        self._lock = threading.Lock()
        self._queue: deque[str] = deque()
        self._running: dict[str, float] = {}  # run → its start on the monotonic clock
        self._children: list[subprocess.Popen[bytes]] = []
        self._wake = threading.Event()
        self._warm = Warm(self.folder.parent, self.environment)
        self._started = False

    @property
    def is_warm(self) -> bool:
        """Whether runs start as forks of the warm cluster now."""
        return self._warm.ready

    def start(self) -> None:
        """Watch runs, also those of an earlier process. Every service calls it; only the first call has an effect."""
        with self._lock:
            if self._started:
                return
            self._started = True
        for work in sorted(self.folder.glob(f"*/{WORK}"), key=lambda path: path.stat().st_mtime):
            self._enqueue(work.parent)
        self._cloud.background("compute", self._watch)

    def submit(self, run: str, work: Work) -> None:
        """Queue a run. A run that was already submitted is unchanged."""
        folder = self.folder / run
        if not (folder / WORK).exists():
            complete = replace(work, environment={**self.environment, **work.environment})
            (folder / work.working_folder).mkdir(parents=True, exist_ok=True, mode=0o700)
            write_json(folder / WORK, asdict(complete))
        self._enqueue(folder)

    def _enqueue(self, folder: Path) -> None:
        """Watch a run that has started, queue one that has not."""
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
        """The status of a run; None when it was never submitted."""
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
        """End a run and all its processes; returns at once. A run that has ended is unchanged."""
        folder = self.folder / run
        if not folder.is_dir() or (folder / RESULT).exists():
            return
        if not (folder / STOP).exists():
            temporary = folder / f".stop.{threading.get_ident()}"
            temporary.write_text(reason)
            temporary.replace(folder / STOP)
        # `stop` is written before this check: a supervisor that starts now checks for it after its claim.
        if process := _supervisor(folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        self._wake.set()

    def output(self, run: str, start: int = 0) -> bytes:
        """Standard output and standard error of a run, in order, from byte `start` on."""
        try:
            with (self.folder / run / LOG).open("rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""

    def delete(self, run: str) -> None:
        """Delete the folder of an ended run."""
        shutil.rmtree(self.folder / run, ignore_errors=True)

    def wake(self) -> None:
        """Check the runs and call the listeners now."""
        self._wake.set()

    def _watch(self) -> None:
        self._warm.start_early()
        last_error = ""
        try:
            while not self._cloud.stopping.is_set():
                self._wake.clear()
                try:
                    self._warm.check_ready()
                    self._check_runs()
                    last_error = ""
                except OSError as error:  # a full disk, no file handles: temporary, and later runs need this thread
                    if str(error) != last_error:
                        log.warning("checking the runs failed: %s; trying again", error)
                    last_error = str(error)
                for listener in self.listeners:
                    try:
                        listener()
                    except Exception:  # an error of one service must not stop the runs of another
                        log.exception("a listener of the runs failed; trying again")
                with self._lock:
                    idle = not (self._running or self._queue)
                self._wake.wait(0.2 if idle else _POLL)
        finally:
            self._warm.close()

    def _check_runs(self) -> None:
        """Remove runs that have ended, start queued ones while slots are free."""
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
                    _write_lost_result(self.folder / run)
                else:
                    self._launch(self.folder / run)
            except OSError:  # it was not started: back to the front of the queue
                with self._lock:
                    del self._running[run]
                    self._queue.appendleft(run)
                raise

    def _ended(self, folder: Path, launched: float) -> bool:
        """Whether a launched run has a result; when its supervisor is gone, a result is written for it."""
        if (folder / RESULT).exists():
            return True
        if not (folder / PROCESS).exists():
            if time.monotonic() - launched < _CLAIM_SECONDS:
                return False
            self.stop(folder.name, "lost")  # from now on no supervisor can start it
            if (folder / PROCESS).exists():
                return False
        elif _supervisor(folder) and not _is_overdue(folder):
            return False
        if not (folder / RESULT).exists():  # it may have ended since the first check
            _write_lost_result(folder)
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
    """The run's supervisor while it is alive. Another process that got its pid later has another start time."""
    claim = read_json(folder / PROCESS)
    if claim is None:
        return None
    try:
        process = psutil.Process(claim["pid"])
        alive = _made_claim(process, claim) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if alive else None


def _is_overdue(folder: Path) -> bool:
    """Whether a stopped run has exceeded twice the grace period."""
    try:
        return time.time() - (folder / STOP).stat().st_mtime > 2 * GRACE
    except FileNotFoundError:
        return False


def _write_lost_result(folder: Path) -> None:
    """Write the result of a run that ended without one, and end processes that it may have left."""
    claim = read_json(folder / PROCESS)
    if claim and _owns_group(claim):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(claim["pgid"], signal.SIGKILL)
    started = claim["started_at"] if claim else None
    result = {"reason": "lost", "started_at": started, "ended_at": time.time(), "exit_code": None}
    with contextlib.suppress(FileNotFoundError):
        result["reason"] = (folder / STOP).read_text()
    if result["reason"] == "lost":
        result["error"] = "the run's process ended without a result: killed from outside, or out of memory"
    clear_away(folder)
    write_json(folder / RESULT, result)


def _owns_group(claim: dict[str, Any]) -> bool:
    """Whether the process group of a claim, if it exists, can only be the run's."""
    try:  # while the group exists, no other process gets its leader's pid; so another process with it means no group
        return _made_claim(psutil.Process(claim["pid"]), claim)
    except psutil.NoSuchProcess:
        return True


def _made_claim(process: psutil.Process, claim: dict[str, Any]) -> bool:
    """Whether a process made a claim. The boot time that the kernel reports varies by up to a second."""
    return bool(abs(process.create_time() - claim["start_time"]) < 1.5)
