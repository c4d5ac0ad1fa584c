"""PostgreSQL as the machine starts it, below a folder that only its owner may enter."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import psycopg2
import pytest
from rich.console import Console

from local import control, postgres
from local.settings import PORTS, Settings
from local.state import load

MACHINE = "tests.support.machines.local_machines:only_postgres"


def server(settings: Settings) -> int | None:
    """The pid of the server; None while it is not ready."""
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


def test_its_databases_open_only_with_the_generated_password_and_survive_a_restart(settings: Settings) -> None:
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


def test_a_server_that_stops_while_clients_stay_connected_is_restarted(settings: Settings) -> None:
    """PostgreSQL itself would wait for them and accept no new ones, for as long as Airflow runs."""
    control.up(settings, Console(file=StringIO()), MACHINE)
    client = postgres.connect(settings)
    before = server(settings)
    os.kill(before, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while server(settings) in (before, None) or postgres.missing(settings) is not None:
        assert time.monotonic() < deadline, postgres.missing(settings)
        time.sleep(0.1)
    with pytest.raises(psycopg2.OperationalError), client.cursor() as cursor:
        cursor.execute("SELECT 1")


def test_an_unfinished_cluster_is_created_again(settings: Settings) -> None:
    unfinished = settings.run_dir / "postgres" / "data.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18")
    control.up(settings, Console(file=StringIO()), MACHINE)
    assert not unfinished.exists()


def test_a_cluster_of_another_version_is_refused_with_the_remedy(settings: Settings) -> None:
    data = settings.run_dir / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9")
    with pytest.raises(control.ControlError, match=r"was created by PostgreSQL 9, but \d+ is installed: remove"):
        control.up(settings, Console(file=StringIO()), MACHINE)
