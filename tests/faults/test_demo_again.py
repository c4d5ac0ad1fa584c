"""`make demo` a second time, on a machine that has all of it already."""

from __future__ import annotations

from datetime import date

import pytest
from rich.console import Console

from local.demo import Demo, walk
from tests.support.day_content import Content, content
from tests.support.machine import SHOP, Machine

pytestmark = pytest.mark.timeout(1200)


def test_a_second_walk_succeeds_and_makes_the_same_of_each_day(
    machine: Machine, demo: Demo, shop_days: list[date]
) -> None:
    before = made(machine, shop_days[-3:])
    again = Demo(machine.settings, Console(soft_wrap=True), machine.airflow, SHOP)
    walk(again)
    assert {row.state for row in again.rows} == {"success"}
    stages = {row.stage.split()[0] for row in demo.rows}
    assert {row.stage.split()[0] for row in again.rows} == stages - {"promote"}
    (gate,) = [row for row in again.rows if row.stage == "gate"]
    assert "stays out" in gate.fact, "the same data give the champion once more, or one that is no better"
    assert made(machine, shop_days[-3:]) == before


def made(machine: Machine, days: list[date]) -> dict[date, Content]:
    """What was made of each day; not its scores, which another champion gives."""
    found = {day: content(machine, day) for day in days}
    return {day: {name: rows for name, rows in of.items() if not name.startswith("gold")} for day, of in found.items()}
