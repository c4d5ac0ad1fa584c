"""A full disk and a process that is killed: nothing hangs, nothing is left behind. Each part by itself, in seconds."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from local import control
from local.settings import PORTS, Settings, write_private
from local.state import MachineStatus, load
from ml.config import load_source
from ml.validate import expectations
from standins.compute import run_files
from standins.compute.pool import Compute
from standins.compute.work import Work
from standins.core.cloud import Cloud
from standins.core.cloud import Settings as CloudSettings
from standins.core.database import Database


def eventually(holds: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A supervisor with one service."""
    settings = Settings(tmp_path / "run", {name: port.default for name, port in PORTS.items()})
    monkeypatch.setenv("RUN_DIR", str(settings.run_dir))
    quiet = Console(file=StringIO())
    control.up(settings, quiet, "tests.support.machines.local_machines:one")
    yield settings
    control.down(settings, quiet)


def status(settings: Settings) -> MachineStatus:
    found = load(settings.run_dir)
    assert found is not None
    return found


def test_a_supervisor_that_cannot_write_goes_on_and_catches_up(machine: Settings) -> None:
    before = status(machine)
    service = before.units["service"].pid
    assert service is not None
    in_its_way = machine.run_dir / f".supervisor.json.{before.supervisor.pid}"  # what it writes before it replaces
    in_its_way.mkdir()
    os.kill(service, signal.SIGKILL)
    log = machine.log_dir / "supervisor.log"
    eventually(lambda: "service: started" in log.read_text().partition("restarts after")[2])
    assert log.read_text().count("an operation failed, trying again") == 1, "said once, not ten times a second"
    assert before.supervisor.alive()
    in_its_way.rmdir()
    eventually(lambda: status(machine).units["service"].pid not in (None, service))
    assert status(machine).units["service"].restarts == 1


def test_half_a_file_is_left_to_nobody(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    write_private(tmp_path / "state.json", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_private(tmp_path / "state.json", "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    assert (tmp_path / "state.json").read_text() == "old"


def test_the_stand_ins_state_is_usable_again_after_a_full_disk(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.sqlite")
    with database.transaction() as connection:
        connection.execute("CREATE TABLE t (x TEXT)")
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    def both() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO t VALUES ('one of two')")
            connection.execute("INSERT INTO t VALUES (?)", ("x" * 100_000,))

    with pytest.raises(sqlite3.OperationalError, match="full"):
        both()
    with database.transaction() as connection:
        connection.execute("INSERT INTO t VALUES ('later')")
    with database.transaction() as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [("later",)]
    database.close()


def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.sqlite")
    with database.transaction() as connection:
        connection.execute("CREATE TABLE a (id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE b (a INTEGER REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED)")
    database._connection.execute("PRAGMA foreign_keys = ON")  # so that COMMIT itself refuses
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:
        connection.execute("INSERT INTO b VALUES (1)")
    with database.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM b").fetchone() == (0,)
    database.close()


@pytest.fixture
def compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compute]:
    monkeypatch.setenv("STANDINS_WARM", "never")
    nowhere = "http://127.0.0.1:9/account"
    cloud = Cloud(
        CloudSettings(tmp_path, 1, 2, "tenant", "client", "secret", "sub", "token", "account", "a2V5", nowhere, nowhere)
    )
    made = cloud.shared(Compute)
    made.start()
    yield made
    cloud.close()


def ended(compute: Compute, run: str) -> None:
    eventually(lambda: (found := compute.status(run)) and found.state == "ended")


def test_what_a_run_leaves_in_its_temporary_folder_goes_with_it(compute: Compute) -> None:
    code = "import pathlib, tempfile; print(tempfile.mkdtemp()); pathlib.Path(tempfile.mkstemp()[1]).write_text('x')"
    compute.submit("r", Work("command", f'python -c "{code}"'))
    ended(compute, "r")
    made = Path(compute.output("r").decode().strip())
    scratch = compute.folder / "r" / run_files.SCRATCH
    assert made.parent == scratch
    assert not scratch.exists()


def test_a_run_that_was_killed_leaves_no_temporary_folder_either(compute: Compute) -> None:
    compute.submit("r", Work("command", "mktemp -d; sleep 300"))
    eventually(lambda: compute.output("r").strip())
    claim = json.loads((compute.folder / "r" / run_files.PROCESS).read_text())
    os.killpg(claim["pgid"], signal.SIGKILL)
    ended(compute, "r")
    assert not (compute.folder / "r" / run_files.SCRATCH).exists()


def test_a_run_that_could_not_be_started_for_lack_of_something_is_started_later(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without file handles: the thread that looks after all runs must survive it."""
    launch, refused = compute._launch, []

    def refuse_twice(folder: Path) -> None:
        if len(refused) < 2:
            refused.append(folder)
            raise OSError(24, "Too many open files")
        launch(folder)

    monkeypatch.setattr(compute, "_launch", refuse_twice)
    compute.submit("r", Work("command", "echo done"))
    ended(compute, "r")
    assert compute.output("r") == b"done\n"
    assert len(refused) == 2


def test_a_validation_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    suite = expectations.load("silver", load_source("transactions"))
    assert expectations.check(suite, {"rows": pa.table({"customer_id": ["7"]}), "days": pa.table({"received": [1]})})
    assert list(tmp_path.iterdir()) == []
