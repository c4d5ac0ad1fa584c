"""Small machines for the tests of the supervisor: real processes that only live, crash or ignore SIGTERM."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from local import machine
from local.settings import Settings
from local.unit import Check, Unit

LIVE = "import time; print('alive', flush=True); time.sleep(600)"
# A service with a child in its own session, as daemons and the runs of a cluster have.
PARENT = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {LIVE!r}], start_new_session=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)


def _python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def pair(settings: Settings) -> Sequence[Unit]:
    """A job, then a service, then a service with a daemon."""
    order = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n'); "
    note = settings.run_dir / "order"

    def noted(name: str) -> Check:
        return lambda _started: None if note.exists() and name in note.read_text() else f"{name} has not started"

    return [
        Unit("job", _python(order + "print('done')", str(note), "job"), once=True),
        Unit("first", _python(order + LIVE, str(note), "first"), after=["job"], check=noted("first")),
        Unit("second", _python(order + PARENT, str(note), "second"), after=["first"], check=noted("second")),
    ]


def crashes_twice(settings: Settings) -> Sequence[Unit]:
    """A service that ends at its first two starts, after the machine is up, so that it is restarted."""
    note = settings.run_dir / "starts"
    code = (
        "import sys, time; file = open(sys.argv[1], 'a+'); file.write('x'); file.flush(); file.seek(0);"
        "sys.exit(7) if len(file.read()) <= 2 else time.sleep(600)"
    )
    return [Unit("crashing", _python(code, str(note)))]


def never_ready(settings: Settings) -> Sequence[Unit]:
    """A service that prints why it cannot work and ends, every time."""
    code = "import sys; print('the disk is made of cheese'); sys.exit(1)"
    return [
        Unit("healthy", _python(LIVE)),
        Unit("hopeless", _python(code), after=["healthy"], check=lambda _started: "no answer"),
    ]


def too_slow(settings: Settings) -> Sequence[Unit]:
    """A service that runs and never becomes ready."""
    return [Unit("mute", _python(LIVE), check=lambda _started: "it says nothing", ready_seconds=0.5)]


def bad_job(settings: Settings) -> Sequence[Unit]:
    """A job that fails."""
    return [Unit("job", _python("raise SystemExit('there is no such queue')"), once=True)]


def stubborn(settings: Settings) -> Sequence[Unit]:
    """A service that ignores SIGTERM."""
    log = settings.log_dir / "stubborn.log"
    return [
        Unit(
            "stubborn",
            _python(STUBBORN),
            check=lambda _started: None if log.exists() and "ready" in log.read_text() else "not yet",
            stop_seconds=0.3,
        )
    ]


def listening(settings: Settings) -> Sequence[Unit]:
    """A service that wants MLflow's port."""
    return [Unit("server", _python(LIVE), ports=["mlflow"])]


def one(settings: Settings) -> Sequence[Unit]:
    """A single service that keeps running."""
    return [Unit("service", _python(LIVE))]


def only_postgres(settings: Settings) -> Sequence[Unit]:
    """The units of the whole machine that are PostgreSQL's."""
    return [unit for unit in machine.units(settings) if unit.name in ("postgres-init", "postgres", "databases")]
