"""The whole machine, as a user starts it: its own state directory and ports, real Airflow, real services.

A folder's conftest.py imports these fixtures. The machine is then started once for all tests of that folder, filled
by the demo's own walk on a small simulated shop, and stopped at the end. Each test works on days of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local import control, environment
from local.airflow_api import Airflow
from local.demo import Demo, walk
from local.settings import PORTS, REPOSITORY, Settings, from_environment
from tests.support.machines import storage_client

SHOP = ["--data", "shop", "--size", "1500"]


def free_ports(count: int) -> list[int]:
    """Distinct free ports: each stays bound until the last is found."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()


class Machine:
    """A running machine, with the calls that tests make."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.airflow = Airflow(settings)
        self.environment = os.environ | environment.full(settings)

    def python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Python with the machine's environment, in the repository."""
        result = subprocess.run(
            [sys.executable, *arguments], env=self.environment, capture_output=True, text=True, cwd=REPOSITORY
        )
        assert not check or result.returncode == 0, result.stderr
        return result

    def ml(self, *arguments: str) -> dict[str, Any]:
        """Run a stage; its facts."""
        facts: dict[str, Any] = json.loads(self.python("-m", "ml", *arguments).stdout.splitlines()[-1])
        return facts

    def storage(self, command: str, *arguments: str) -> Any:
        """The result of a command of `tests.support.machines.storage_client`."""
        return json.loads(self.python("-m", storage_client.__name__, command, *arguments).stdout.splitlines()[-1])

    def land_file(self, day: str, name: str, content: bytes, source: str = "transactions") -> None:
        """Write a file where the upstream system writes it."""
        command = [sys.executable, "-m", storage_client.__name__, "write_landing", f"{source}/{day}/{name}"]
        subprocess.run(
            command, env=self.environment, input=content, stdout=subprocess.DEVNULL, check=True, cwd=REPOSITORY
        )

    def rows(self, table: str, column: str, day: str) -> list[dict[str, Any]]:
        """The rows of one day's partition, as a Python reader sees them."""
        rows: list[dict[str, Any]] = self.storage("read_day", table, column, day)
        return rows

    def ingested(self, day: str, source: str = "transactions") -> dict[str, Any]:
        """The mark of a source's ingested day: how many rows came, and what became of them."""
        (mark,) = [row for row in self.rows("ops.ingested_days", "day", day) if row["source"] == source]
        return mark

    def ledger(self) -> list[dict[str, Any]]:
        """Every request that the stand-ins have recorded."""
        import requests

        url = f"{self.settings.url('standins', 'https')}/ledger.json"
        session = requests.Session()
        session.trust_env = False
        response = session.get(url, verify=str(self.settings.ca_file), timeout=30)
        response.raise_for_status()
        entries: list[dict[str, Any]] = response.json()["value"]
        return entries


@contextmanager
def own_settings() -> Iterator[Settings]:
    """A state directory that also holds the temporary files, and free ports; the environment names both meanwhile."""
    # not below pytest's own folder: each pytest that starts closes it to other users, so to PostgreSQL's
    run_dir = Path(tempfile.mkdtemp(prefix="machine-"))
    run_dir.chmod(0o711)
    (run_dir / "tmp").mkdir(mode=0o700)
    names = {port.variable: str(free) for port, free in zip(PORTS.values(), free_ports(len(PORTS)), strict=True)}
    saved = dict(os.environ)
    os.environ.update(names | {"RUN_DIR": str(run_dir), "TMPDIR": str(run_dir / "tmp")})
    cleaner = subprocess.Popen(
        [sys.executable, "-m", "tests.support.machines.machine_end", str(os.getpid())],
        cwd=REPOSITORY,
        start_new_session=True,  # otherwise the Ctrl-C that ends the tests ends it too
    )
    try:
        yield from_environment()
    finally:
        cleaner.kill()
        cleaner.wait()
        os.environ.clear()
        os.environ.update(saved)
        shutil.rmtree(run_dir, ignore_errors=True)


@contextmanager
def machine_of(settings: Settings) -> Iterator[Machine]:
    """The machine of these settings, started and stopped."""
    console = Console(soft_wrap=True)
    control.up(settings, console)
    try:
        yield Machine(settings)
    finally:
        control.down(settings, console)


@pytest.fixture(scope="package")
def settings() -> Iterator[Settings]:
    with own_settings() as settings:
        yield settings


@pytest.fixture(scope="package")
def machine(settings: Settings) -> Iterator[Machine]:
    with machine_of(settings) as machine:
        yield machine


@pytest.fixture(scope="package")
def demo(machine: Machine) -> Demo:
    """The demo's own walk through the loop; its rows are those of the table that a user sees."""
    result = Demo(machine.settings, Console(soft_wrap=True), machine.airflow, SHOP)
    walk(result)
    return result


@pytest.fixture(scope="package")
def shop_days(machine: Machine, demo: Demo) -> list[date]:
    """Every day of the simulated shop's sales; the last three went through the loop one by one."""
    return demo.landed_days()["transactions"]
