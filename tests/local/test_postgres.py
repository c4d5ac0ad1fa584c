"""PostgreSQL as the machine starts it, here below a folder that only its owner may enter."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

import psycopg2
import pytest
from rich.console import Console

from local import control, postgres
from local.machine import units as whole_machine
from local.settings import PORTS, Settings
from local.state import load
from local.unit import Unit


def only_postgres(settings: Settings) -> Sequence[Unit]:
    """The part of the machine that is PostgreSQL."""
    return [unit for unit in whole_machine(settings) if unit.name in ("postgres-init", "postgres", "databases")]


MACHINE = "tests.local.test_postgres:only_postgres"


def server(settings: Settings) -> int | None:
    """The pid of the server, when it is ready."""
    status = load(settings.run_dir)
    assert status is not None
    unit = status.units["postgres"]
    return unit.pid if unit.state == "ready" else None


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    tmp_path.chmod(0o700)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    for port in PORTS.values():
        monkeypatch.delenv(port.variable, raising=False)
    ports = {name: port.default for name, port in PORTS.items()} | {"postgres": free}
    settings = Settings(tmp_path / "run", ports)
    yield settings
    control.down(settings, Console(file=StringIO()))


def test_its_databases_open_with_the_generated_password_only_and_outlive_a_restart(settings: Settings) -> None:
    console = Console(file=StringIO())
    control.up(settings, console, MACHINE)
    where = {"host": "127.0.0.1", "port": settings.ports["postgres"], "user": "postgres"}
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(**where, password="guessed", dbname="airflow")
    with postgres.connect(settings, "airflow") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept (day date)")
    connection.close()
    control.down(settings, console)

    control.up(settings, console, MACHINE)
    with postgres.connect(settings, "airflow") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM kept")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT datname FROM pg_database WHERE datname IN ('airflow', 'mlflow') ORDER BY 1")
        assert cursor.fetchall() == [("airflow",), ("mlflow",)]
    connection.close()


def test_told_to_stop_while_clients_stay_it_is_started_again(settings: Settings) -> None:
    """PostgreSQL itself would wait for them, and take no new ones: for as long as Airflow runs."""
    control.up(settings, Console(file=StringIO()), MACHINE)
    stays = postgres.connect(settings)
    before = server(settings)
    os.kill(before, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while server(settings) in (before, None) or postgres.missing(settings) is not None:
        assert time.monotonic() < deadline, postgres.missing(settings)
        time.sleep(0.1)
    with pytest.raises(psycopg2.OperationalError), stays.cursor() as cursor:
        cursor.execute("SELECT 1")


def test_a_half_made_cluster_is_made_anew(settings: Settings) -> None:
    unfinished = settings.run_dir / "postgres" / "data.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18")
    control.up(settings, Console(file=StringIO()), MACHINE)
    assert not unfinished.exists()


def test_another_versions_cluster_is_refused_with_the_remedy(settings: Settings) -> None:
    data = settings.run_dir / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9")
    with pytest.raises(control.ControlError, match=r"was made by PostgreSQL 9, and \d+ is installed: remove"):
        control.up(settings, Console(file=StringIO()), MACHINE)
