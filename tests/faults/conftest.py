"""The machine of `tests.support.machines.machine`, with its stand-ins' faults. Tests that use it are marked `faults` and clean up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.settings import Settings
from tests.faults.airflow_boundaries import SERVICES, route_through_tap
from tests.faults.disks import small_disks
from tests.faults.tap import Tap
from tests.support.cloud.faults import Faults
from tests.support.machines.machine import Machine, demo, machine_of, own_settings, shop_days

__all__ = ["Machine", "demo", "faults", "machine", "settings", "shop_days", "tap"]


@pytest.fixture(scope="package")
def settings() -> Iterator[Settings]:
    """The settings of any machine; its services' folders are small disks where this user may mount."""
    with own_settings() as settings, small_disks(settings.run_dir):
        yield settings


WITHOUT_MACHINE = ("test_tap.py",)  # quick, so `make test` runs it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.path.name not in WITHOUT_MACHINE:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="package")
def tap(settings: Settings) -> Iterator[Tap]:
    """The tap in front of the machine's services; it only records unless a test sets its traps."""
    with Tap({name: settings.ports[name] for name in SERVICES}) as tap:
        route_through_tap(settings, tap)
        yield tap


@pytest.fixture(scope="package")
def machine(settings: Settings, tap: Tap) -> Iterator[Machine]:
    with machine_of(settings) as machine:
        yield machine


@pytest.fixture
def faults(machine: Machine) -> Iterator[Faults]:
    """The stand-ins' fault rules; none is left when the test ends."""
    faults = Faults(machine.settings.url("standins", "https"), machine.settings.ca_file)
    faults.clear()
    yield faults
    faults.clear()
