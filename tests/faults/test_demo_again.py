"""`make demo` a second time, on a machine that already has all of its results."""

from __future__ import annotations

from datetime import date

import pytest
from rich.console import Console

from local.demo import Demo, walk
from tests.support.machines.day_content import Content, content
from tests.support.machines.machine import SHOP, Machine

pytestmark = pytest.mark.timeout(1200)


def test_a_second_walk_succeeds_and_builds_the_same_rows_of_each_day(
    machine: Machine, demo: Demo, shop_days: list[date]
) -> None:
    before = built(machine, shop_days[-3:])
    again = Demo(machine.settings, Console(soft_wrap=True), machine.airflow, SHOP)
    walk(again)
    assert {row.state for row in again.rows} == {"success"}
    stages = {row.stage.split()[0] for row in demo.rows}
    assert {row.stage.split()[0] for row in again.rows} == stages - {"promote"}
    (gate,) = [row for row in again.rows if row.stage == "gate"]
    assert "is rejected" in gate.fact, "the same data give the champion again, or a version that is not better"
    assert built(machine, shop_days[-3:]) == before


def built(machine: Machine, days: list[date]) -> dict[date, Content]:
    """The rows of each day, without its scores, which another champion gives."""
    return {
        day: {name: rows for name, rows in content(machine, day).items() if not name.startswith("gold")} for day in days
    }
