"""The worker process of a run: does what `work.json` says, in a fork of the run's supervisor."""

from __future__ import annotations

import atexit
import ctypes
import importlib
import importlib.metadata
import io
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from standins.compute import files
from standins.compute.run_files import ERROR, LOG, SCRATCH, write_json

_PR_SET_PDEATHSIG = 1

Task = Callable[[Path, dict[str, Any]], None]  # of a run's folder and the content of its `work.json`


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; end now if it has already ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def become(folder: Path, work: dict[str, Any], task: Task, supervisor: int) -> NoReturn:
    """Become the worker: set up the process, do the task, write an error to `error.json`. Never returns."""
    code = 1
    try:
        _set_up(folder, work, supervisor)
        task(folder, work)
        code = 0
    except SystemExit as stop:
        code = _exit_code(stop)
        if code:
            _record_error(folder, stop)
    except BaseException as failure:  # noqa: BLE001 - every error is the result of the run and must be recorded
        _record_error(folder, failure)
    # Not sys.exit: in a fork of the warm cluster it would unwind into the frames of that process.
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for the run's threads, as the interpreter does
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def do_work(folder: Path, work: dict[str, Any]) -> None:
    """Fetch the files of the run, then execute its target."""
    try:
        wheels = _fetch(folder, work)
    except Exception as failure:  # noqa: BLE001 - storage, network, a broken wheel: recorded as a setup error
        _record_error(folder, failure, setup=True)
        sys.exit(1)
    for path, _ in work["uploads"]:  # the run finds the folders that it uploads
        (folder / path if path.endswith("/") else (folder / path).parent).mkdir(parents=True, exist_ok=True)
    os.chdir(folder / work["working_folder"])
    # The folder that this process was imported from belongs to the server, not to the run.
    project = Path(__file__).resolve().parents[2]
    sys.path[:] = [*wheels, *(p for p in sys.path if p and Path(p).resolve() != project)]
    for name in [n for n in sys.modules if n.partition(".")[0] == "standins"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    if work["kind"] == "command":
        os.environ |= {"PYTHONPATH": os.pathsep.join(wheels)} if wheels else {}
        os.execve("/bin/bash", ["bash", "-c", work["target"]], os.environ)  # noqa: S606 - it is the shell
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # otherwise every fork would draw the same numbers
    _run_python(folder, work)


def _fetch(folder: Path, work: dict[str, Any]) -> list[str]:
    """Download the files of the run and install its wheels; returns the folders of the wheels."""
    for uri, path in work["downloads"]:
        files.download(uri, folder / path)
    return [str(files.install(uri, folder.parents[1] / "wheels")) for uri in work["wheels"]]


def deliver(folder: Path, work: dict[str, Any]) -> None:
    """Upload the files that the run has written."""
    for path, uri in work["uploads"]:
        files.upload(folder / path, uri)


def _set_up(folder: Path, work: dict[str, Any], supervisor: int) -> None:
    """Set signals, output, environment and temporary folder as in a new process."""
    die_with_parent(supervisor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(devnull)
    sys.stdin = open(0)  # noqa: SIM115 - stays open until the process ends; the old one may hold buffered input
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # people follow the log of a running run
    os.environ.clear()
    os.environ.update(work["environment"])
    (folder / SCRATCH).mkdir(exist_ok=True, mode=0o700)
    os.environ["TMPDIR"] = str(folder / SCRATCH)
    tempfile.tempdir = None  # may be set by the warm cluster
    time.tzset()


def _run_python(folder: Path, work: dict[str, Any]) -> None:
    """Run a wheel's entry point, a file or a module in this interpreter."""
    arguments = list(work["arguments"])
    match work["kind"]:
        case "wheel":
            main = _entry_point(work["target"], work["entry_point"])
            sys.argv = [work["entry_point"], *arguments]
            code = main()
            if isinstance(code, int) and not isinstance(code, bool):
                sys.exit(code)  # as the console script that pip generates for an entry point
        case "python_file":
            script = folder / work["target"]  # an absolute path stays unchanged
            sys.argv = [str(script), *arguments]
            sys.path.insert(0, str(script.parent))
            runpy.run_path(str(script), run_name="__main__")
        case "module":
            sys.argv = [work["target"], *arguments]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(work["target"], run_name="__main__", alter_sys=True)
        case kind:
            raise ValueError(f"unknown kind of work {kind!r}: wheel, python_file, module or command is required")


def _entry_point(package: str, name: str) -> Any:
    """A distribution's entry point of that name, otherwise the package's function, as on Databricks."""
    for entry in importlib.metadata.distribution(package).entry_points.select(name=name):
        return entry.load()
    module = importlib.import_module(package.replace("-", "_"))
    try:
        return getattr(module, name)
    except AttributeError:
        raise AttributeError(f"package {package!r} has neither an entry point nor a function {name!r}") from None


def _exit_code(stop: SystemExit) -> int:
    """The exit code of the process for a SystemExit."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def _record_error(folder: Path, failure: BaseException, setup: bool = False) -> None:
    """Write the first exception that ended the run to `error.json`, and print its traceback to the log."""
    if (folder / ERROR).exists():
        return
    text = f"{type(failure).__name__}: {failure}"
    if isinstance(failure, SystemExit):
        if failure.__cause__ is not None:  # `raise SystemExit(1) from error`: the cause has the message
            text += f" ({type(failure.__cause__).__name__}: {failure.__cause__})"
    else:
        traceback.print_exception(failure)
    trace = "".join(traceback.format_exception(failure))
    write_json(folder / ERROR, {"error": text, "trace": trace} | ({"reason": "setup"} if setup else {}))
