"""One run of real work, supervised: `python -m standins.compute.run <run folder>`, or a fork of the warm cluster.

The supervisor leads a session of its own, so it outlives the stand-in that asked for it. It

1. claims the run by creating `process.json` (a second start of the same run finds it and leaves),
2. forks the worker, which does what `work.json` says with its output in `log.txt`,
3. ends the worker and all that descends from it at the deadline, or on SIGTERM,
4. leaves `result.json`: how it ended, and when.

Everything the stand-in knows about a run it reads from these files; nothing is lost when it is killed.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import importlib.metadata
import io
import json
import os
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import psutil

WORK, PROCESS, RESULT, STOP, LOG, ERROR = "work.json", "process.json", "result.json", "stop", "log.txt", "error.json"
SCRATCH = "tmp"  # the run's own folder for temporary files: what it leaves there goes when it ends, however it ends
NICE = 5  # runs yield to the services and the scheduler, which must answer in time on a small machine
GRACE = 5.0  # seconds between asking a run to end (SIGTERM) and ending it (SIGKILL)

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write or replace a file in one step, readable by its owner only (it may hold an account key)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a file, or None when there is none. Files are replaced whole, so never half a one."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return content


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, or end now if that has happened."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def yield_to_services() -> None:
    """Lower this process's priority to that of a run."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def supervise(folder: Path) -> None:
    """Run what `work.json` in `folder` says, once; returns when the run and all its processes have ended."""
    # Blocked, not handled: both are waited for below, so no signal can arrive at a bad moment.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # a daemonised grandchild stays ours
    yield_to_services()
    if not _claim(folder):
        return
    work = read_json(folder / WORK)
    if work is None:
        raise FileNotFoundError(f"{folder / WORK}: nothing says what this run is to do")
    started = time.time()
    # The claim is visible before this look at `stop`; whoever stops writes `stop` before looking for a claim.
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


def clear_away(folder: Path) -> None:
    """Remove what only a run that goes on needs: its temporary files, and its environment with the account's key."""
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    if work := read_json(folder / WORK):
        write_json(folder / WORK, {**work, "environment": {}})


def _claim(folder: Path) -> bool:
    """True for the one process that may run this folder's work."""
    mine = folder / f".claim.{os.getpid()}"
    created = psutil.Process().create_time()
    claim = {"pid": os.getpid(), "pgid": os.getpgid(0), "start_time": created, "started_at": time.time()}
    write_json(mine, claim)
    try:
        os.link(mine, folder / PROCESS)  # fails when it is there: the claim and its content appear together
    except FileExistsError:
        return False
    finally:
        mine.unlink()
    return True


def _stop_reason(folder: Path) -> str:
    """Why the stand-in stopped the run: `canceled` or `timeout`; `killed` when somebody else sent the signal."""
    try:
        return (folder / STOP).read_text()
    except FileNotFoundError:
        return "killed"


def _run(folder: Path, work: dict[str, Any]) -> tuple[str, int | None]:
    """Do the work, then deliver what it made. Returns why the run ended and the last process's wait status."""
    deadline = time.monotonic() + work["timeout"] if work["timeout"] else float("inf")
    reason, status = _supervised(folder, work, _work, deadline)
    if work["uploads"] and reason == "exited" and status == 0:
        reason, status = _supervised(folder, work, _deliver, deadline)
    return reason, status


def _supervised(
    folder: Path, work: dict[str, Any], task: Callable[[Path, dict[str, Any]], None], deadline: float
) -> tuple[str, int | None]:
    """Fork a process for `task` and wait; end it, and all that descends from it, at the deadline or on SIGTERM."""
    supervisor = os.getpid()
    worker = os.fork()
    if worker == 0:
        _become(folder, work, task, supervisor)
    status: int | None = None
    reason = ""
    while status is None and not reason:
        left = min(deadline - time.monotonic(), 3600.0)
        came = signal.sigtimedwait([signal.SIGCHLD, signal.SIGTERM], max(left, 0.0))
        status = _reap().get(worker)
        if status is None and came is not None and came.si_signo == signal.SIGTERM:
            reason = _stop_reason(folder)
        elif status is None and time.monotonic() >= deadline:
            reason = "timeout"
    reaped = _end_descendants()
    return reason or "exited", reaped.get(worker) if status is None else status


def _reap() -> dict[int, int]:
    """The wait statuses of all children that have ended by now."""
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
    """End every process that descends from this one: first asked, then, after the grace, made to."""
    patience = time.monotonic() + GRACE
    asked: set[int] = set()
    ended = _reap()
    while remaining := psutil.Process().children(recursive=True):
        late = time.monotonic() > patience
        for process in remaining:
            if late or process.pid not in asked:
                asked.add(process.pid)
                try:
                    process.send_signal(signal.SIGKILL if late else signal.SIGTERM)
                except psutil.NoSuchProcess:
                    continue
        signal.sigtimedwait([signal.SIGCHLD], 0.05)
        ended |= _reap()
    return ended


def _become(
    folder: Path, work: dict[str, Any], task: Callable[[Path, dict[str, Any]], None], supervisor: int
) -> NoReturn:
    """The forked process: settle in, do the task, leave its error in `error.json`. Never returns."""
    code = 1
    try:
        _settle(folder, work, supervisor)
        task(folder, work)
        code = 0
    except SystemExit as stop:
        code = _exit_code(stop)
        if code:
            _record(folder, stop)
    except BaseException as failure:  # noqa: BLE001 - whatever it is, it is the run's result and must be written down
        _record(folder, failure)
    # Not sys.exit: this may be a fork of the warm cluster, whose frames must not be returned to.
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for the run's own threads, as the interpreter would
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _work(folder: Path, work: dict[str, Any]) -> None:
    """Fetch what the run needs and become what it asked for."""
    try:
        wheels = _fetch(folder, work)
    except Exception as failure:  # noqa: BLE001 - storage, network, a broken wheel: the run never began, and says so
        _record(folder, failure, setup=True)
        sys.exit(1)
    for path, _ in work["uploads"]:  # a folder to be delivered is there for the run to write into
        (folder / path if path.endswith("/") else (folder / path).parent).mkdir(parents=True, exist_ok=True)
    os.chdir(folder / work["working_folder"])
    # What this process imported itself from is the stand-in's, not the run's.
    here = Path(__file__).resolve().parents[2]
    sys.path[:] = [*wheels, *(p for p in sys.path if p and Path(p).resolve() != here)]
    for name in [n for n in sys.modules if n.partition(".")[0] == "standins"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    if work["kind"] == "command":
        os.environ |= {"PYTHONPATH": os.pathsep.join(wheels)} if wheels else {}
        os.execve("/bin/bash", ["bash", "-c", work["target"]], os.environ)  # noqa: S606 - it is the shell
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # every fork would draw the same numbers
    _python(folder, work)


def _fetch(folder: Path, work: dict[str, Any]) -> list[str]:
    """Download what the run needs; returns the folders of its wheels."""
    from standins.compute import files

    for uri, path in work["downloads"]:
        files.download(uri, folder / path)
    return [str(files.install(uri, folder.parents[1] / "wheels")) for uri in work["wheels"]]


def _deliver(folder: Path, work: dict[str, Any]) -> None:
    """Upload what the run made."""
    from standins.compute import files

    for path, uri in work["uploads"]:
        files.upload(folder / path, uri)


def _settle(folder: Path, work: dict[str, Any], supervisor: int) -> None:
    """Signals, output, environment, folder and module path as a fresh process would have them."""
    die_with_parent(supervisor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(nothing)
    sys.stdin = open(0)  # noqa: SIM115 - the run's own for as long as it lives; the old one may hold read-ahead
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # people follow the log while the run goes on
    os.environ.clear()
    os.environ.update(work["environment"])
    (folder / SCRATCH).mkdir(exist_ok=True, mode=0o700)
    os.environ["TMPDIR"] = str(folder / SCRATCH)
    tempfile.tempdir = None  # the warm cluster's, if it has looked for one
    time.tzset()


def _python(folder: Path, work: dict[str, Any]) -> None:
    """Run a wheel's entry point, a file or a module in this interpreter."""
    arguments = list(work["arguments"])
    match work["kind"]:
        case "wheel":
            main = _entry_point(work["target"], work["entry_point"])
            sys.argv = [work["entry_point"], *arguments]
            code = main()
            if isinstance(code, int) and not isinstance(code, bool):
                sys.exit(code)  # as the console script that pip makes of an entry point
        case "python_file":
            script = folder / work["target"]  # an absolute path stays what it is
            sys.argv = [str(script), *arguments]
            sys.path.insert(0, str(script.parent))
            runpy.run_path(str(script), run_name="__main__")
        case "module":
            sys.argv = [work["target"], *arguments]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(work["target"], run_name="__main__", alter_sys=True)
        case kind:
            raise ValueError(f"{kind!r}: a run is a wheel, a python_file, a module or a command")


def _entry_point(package: str, name: str) -> Any:
    """A distribution's entry point of that name, else the package's own function, as Databricks looks them up."""
    found = importlib.metadata.distribution(package).entry_points.select(name=name)
    for entry in found:
        return entry.load()
    module = importlib.import_module(package.replace("-", "_"))
    try:
        return getattr(module, name)
    except AttributeError:
        raise AttributeError(f"package {package!r} has neither an entry point nor a function {name!r}") from None


def _exit_code(stop: SystemExit) -> int:
    """The process exit code that Python makes of a SystemExit."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def _record(folder: Path, failure: BaseException, setup: bool = False) -> None:
    """Note the exception that ended the run, the first one; the traceback also goes where the run's output goes."""
    if (folder / ERROR).exists():
        return
    text = f"{type(failure).__name__}: {failure}"
    if isinstance(failure, SystemExit):
        if failure.__cause__ is not None:  # `raise SystemExit(1) from error`: the sentence is the cause's
            text += f" ({type(failure.__cause__).__name__}: {failure.__cause__})"
    else:
        traceback.print_exception(failure)
    trace = "".join(traceback.format_exception(failure))
    write_json(folder / ERROR, {"error": text, "trace": trace} | ({"reason": "setup"} if setup else {}))


if __name__ == "__main__":
    supervise(Path(sys.argv[1]))
