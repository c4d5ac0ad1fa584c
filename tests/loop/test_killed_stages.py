"""A few kills of stages in the middle of their changes; tests/faults has all of them."""

from __future__ import annotations

from datetime import date

import pytest

from tests.faults import stages
from tests.faults.boundaries import chosen
from tests.faults.stage_boundaries import bench_of
from tests.faults.tap import Tap
from tests.support.machine import Machine

pytestmark = [pytest.mark.loop, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", ["ingest", "score"])
def test_a_stage_killed_in_the_middle_gives_the_same_when_it_is_run_again(
    machine: Machine, shop_days: list[date], name: str
) -> None:
    day = shop_days[-2]  # it is left as if these tests had made it; the newest day is looked at by others
    (stage,) = [one for one in stages.daily(day) if one.name == name]
    services = {service: machine.settings.ports[service] for service in ("blob", "mlflow")}
    with Tap(services) as tap, bench_of(machine, tap) as bench:
        outcomes = [bench.disturb(stage, one, 1) for one in chosen(bench.record(stage), 1, 3)]
    assert [f"{one.boundary}: {one.wrong}" for one in outcomes if one.wrong] == []
    assert any(one.killed for one in outcomes)
