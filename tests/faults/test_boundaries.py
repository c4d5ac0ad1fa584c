"""A spread sample of all boundaries, the same each time; `python -m tests.faults.boundaries` runs every one.

`BOUNDARY_SEED` draws another sample. A failure names its boundary and seed, so that it can be repeated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from local.demo import Demo
from tests.faults.airflow_boundaries import (
    AirflowBench,
    Flow,
    airflow_bench,
    batches,
    day_flow,
    report_flow,
    train_flow,
)
from tests.faults.boundaries import choose, last_day, staged_machine
from tests.faults.stage_boundaries import Outcome, all_stages, bench_of
from tests.faults.tap import Tap
from tests.support.machines.machine import Machine

pytestmark = pytest.mark.timeout(1800)

SEED = int(os.environ.get("BOUNDARY_SEED", "1"))


def failures(outcomes: list[Outcome]) -> list[str]:
    return [f"seed {outcome.seed}, {outcome.boundary}: {outcome.wrong}" for outcome in outcomes if outcome.wrong]


def test_every_stage_killed_anywhere_gives_the_same_result_when_it_is_run_again() -> None:
    outcomes: list[Outcome] = []
    with staged_machine() as (machine, tap), bench_of(machine, tap) as bench:
        for stage in all_stages(bench, last_day(machine)):
            boundaries = choose(bench.boundaries[stage.name], SEED, 3)
            outcomes += [bench.disturb(stage, boundary, SEED) for boundary in boundaries]
    assert failures(outcomes) == []
    assert sum(outcome.killed for outcome in outcomes) >= len(outcomes) / 2


@pytest.fixture(scope="module")
def bench(machine: Machine, tap: Tap, demo: Demo) -> Iterator[AirflowBench]:
    with airflow_bench(machine, tap) as bench:
        yield bench


@pytest.mark.parametrize(
    ("make", "number"),
    [
        pytest.param(day_flow, 3, id="a-day-from-ingest-to-monitor"),
        pytest.param(report_flow, 1, id="the-report"),
        pytest.param(train_flow, 1, id="training-to-champion"),
    ],
)
def test_workers_killed_anywhere_leave_one_effect_per_run_key_and_the_same_rows(
    bench: AirflowBench, shop_days: list[date], make: Any, number: int
) -> None:
    flow: Flow = make(shop_days[-1])
    bench.record(flow)
    outcomes = [outcome for batch in batches(flow, SEED, number) for outcome in bench.disturb(flow, batch, SEED)]
    assert failures(outcomes) == []
    assert any(outcome.killed for outcome in outcomes)
