"""Stages killed at a few of their changes; tests/faults kills them at all of them."""

from __future__ import annotations

from datetime import date

import pytest

from tests.faults import stages
from tests.faults.boundaries import choose
from tests.faults.stage_boundaries import bench_of
from tests.faults.tap import Tap
from tests.support.machines.machine import Machine

pytestmark = [pytest.mark.loop, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", ["ingest of transactions", "score of churn"])
def test_a_stage_killed_in_the_middle_gives_the_same_result_when_it_is_run_again(
    machine: Machine, shop_days: list[date], name: str
) -> None:
    day = shop_days[-2]  # the test leaves it with its own run keys; other tests look at the newest day
    (stage,) = [stage for stage in stages.daily(day) if stage.name == name]
    services = {service: machine.settings.ports[service] for service in ("blob", "mlflow")}
    with Tap(services) as tap, bench_of(machine, tap) as bench:
        outcomes = [bench.disturb(stage, boundary, 1) for boundary in choose(bench.record(stage), 1, 3)]
    assert [f"{outcome.boundary}: {outcome.wrong}" for outcome in outcomes if outcome.wrong] == []
    assert any(outcome.killed for outcome in outcomes)
