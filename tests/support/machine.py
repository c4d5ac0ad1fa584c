"""The whole machine, as a person starts it: its own state directory and ports, real Airflow, real services.

A folder's conftest.py takes these fixtures: the machine is then brought up once for all tests of that folder, filled
by the demo's own walk on a small simulated shop, and taken down at the end. Each test works on days of its own.
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

SHOP = ["--source", "shop", "--size", "1500"]


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different because all are held until the last is found."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


class Machine:
    """A machine that is up, with what tests ask of it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.airflow = Airflow(settings)
        self.environment = os.environ | environment.full(settings)

    def python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        told = subprocess.run(
            [sys.executable, *arguments], env=self.environment, capture_output=True, text=True, cwd=REPOSITORY
        )
        assert not check or told.returncode == 0, told.stderr
        return told

    def ml(self, *arguments: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.python("-m", "ml", *arguments).stdout.splitlines()[-1])
        return facts

    def land_file(self, day: str, name: str, content: bytes) -> None:
        """Put a file where upstream would."""
        code = "import sys; from ml import store; store.landing().write(sys.argv[1], sys.stdin.buffer.read())"
        subprocess.run(
            [sys.executable, "-c", code, f"transactions/{day}/{name}"], env=self.environment, input=content, check=True
        )

    def rows(self, table: str, column: str, day: str) -> list[dict[str, Any]]:
        """The rows of one day's partition, as a reader with Python sees them."""
        code = (
            "import sys, json, datetime; import pyarrow.compute as pc; from ml import lake\n"
            "day = datetime.date.fromisoformat(sys.argv[3])\n"
            "rows = lake.read(sys.argv[1], where=pc.field(sys.argv[2]) == day).to_pylist()\n"
            "print(json.dumps(rows, default=str))"
        )
        found: list[dict[str, Any]] = json.loads(self.python("-c", code, table, column, day).stdout)
        return found

    def ledger(self) -> list[dict[str, Any]]:
        """What was asked of the stand-ins."""
        import requests

        url = f"{self.settings.url('standins', 'https')}/ledger.json"
        session = requests.Session()
        session.trust_env = False
        answer = session.get(url, verify=str(self.settings.ca_file), timeout=30)
        answer.raise_for_status()
        entries: list[dict[str, Any]] = answer.json()["value"]
        return entries


@contextmanager
def own_settings() -> Iterator[Settings]:
    """A state directory with the temporary files in it, and free ports: the environment names them meanwhile."""
    # not below pytest's own folder: each pytest that starts closes it to others, PostgreSQL's user among them
    run_dir = Path(tempfile.mkdtemp(prefix="machine-"))
    run_dir.chmod(0o711)
    (run_dir / "tmp").mkdir(mode=0o700)
    names = {port.variable: str(free) for port, free in zip(PORTS.values(), free_ports(len(PORTS)), strict=True)}
    saved = dict(os.environ)
    os.environ.update(names | {"RUN_DIR": str(run_dir), "TMPDIR": str(run_dir / "tmp")})
    end = subprocess.Popen(
        [sys.executable, "-m", "tests.support.machine_end", str(os.getpid())],
        cwd=Path(__file__).parent.parent,
        start_new_session=True,  # else the Ctrl-C that ends the tests ends it too
    )
    try:
        yield from_environment()
    finally:
        end.kill()
        end.wait()
        os.environ.clear()
        os.environ.update(saved)
        shutil.rmtree(run_dir, ignore_errors=True)


@contextmanager
def machine_of(settings: Settings) -> Iterator[Machine]:
    """The machine of these settings, brought up and taken down."""
    console = Console(soft_wrap=True)
    control.up(settings, console)
    try:
        yield Machine(settings)
    finally:
        control.down(settings, console)


@contextmanager
def own_machine() -> Iterator[Machine]:
    with own_settings() as settings, machine_of(settings) as machine:
        yield machine


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
    """The demo's own walk through the loop; its rows are what a person sees in the table."""
    walked = Demo(machine.settings, Console(soft_wrap=True), machine.airflow, SHOP)
    walk(walked)
    return walked


@pytest.fixture(scope="package")
def shop_days(machine: Machine, demo: Demo) -> list[date]:
    """Every day of the simulated shop; the last three went through the loop one by one."""
    return [date.fromisoformat(day) for day in machine.ml("land", *SHOP, "--list")["days"]]
