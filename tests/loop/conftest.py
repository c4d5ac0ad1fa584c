"""The machine of `tests.support.machines.machine`, shared by the tests of this folder."""

from tests.support.machines.machine import Machine, demo, machine, settings, shop_days

__all__ = ["Machine", "demo", "machine", "settings", "shop_days"]
