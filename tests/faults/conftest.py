"""The machine of `tests.machine`, with its stand-ins' faults. Every test here is marked `faults`, and cleans up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.faults import Faults
from tests.machine import Machine, demo, machine, settings, shop_days

__all__ = ["Machine", "demo", "faults", "machine", "settings", "shop_days"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture
def faults(machine: Machine) -> Iterator[Faults]:
    """The stand-ins' switches; no rule is left when the test ends."""
    switches = Faults(machine.settings.url("standins", "https"), machine.settings.ca_file)
    switches.clear()
    yield switches
    switches.clear()
