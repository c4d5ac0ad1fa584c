"""The machine of `tests.support.machine`, with its stand-ins' faults. Every test here is marked `faults`, and cleans up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.settings import Settings
from tests.faults.airflow_boundaries import SERVICES, put_tap_before
from tests.faults.disks import small_disks
from tests.faults.faults import Faults
from tests.faults.tap import Tap
from tests.support.machine import Machine, demo, machine_of, own_settings, shop_days

__all__ = ["Machine", "demo", "faults", "machine", "settings", "shop_days", "tap"]


@pytest.fixture(scope="package")
def settings() -> Iterator[Settings]:
    """As any machine's, on disks that can be filled up where this user may mount."""
    with own_settings() as made, small_disks(made.run_dir):
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="package")
def tap(settings: Settings) -> Iterator[Tap]:
    """What the machine's Airflow asks through; it only looks on unless a test sets its traps."""
    with Tap({name: settings.ports[name] for name in SERVICES}) as made:
        put_tap_before(settings, made)
        yield made


@pytest.fixture(scope="package")
def machine(settings: Settings, tap: Tap) -> Iterator[Machine]:
    with machine_of(settings) as made:
        yield made


@pytest.fixture
def faults(machine: Machine) -> Iterator[Faults]:
    """The stand-ins' switches; no rule is left when the test ends."""
    switches = Faults(machine.settings.url("standins", "https"), machine.settings.ca_file)
    switches.clear()
    yield switches
    switches.clear()
