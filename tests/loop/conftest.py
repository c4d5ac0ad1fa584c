"""The machine of `tests.machine`, shared by the tests of this folder."""

from tests.machine import Machine, demo, machine, settings, shop_days

__all__ = ["Machine", "demo", "machine", "settings", "shop_days"]
