"""What the Dags that ask for days do for a person, and what for the clock: their tasks, called as a worker calls them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType  # as a task gets it, not as Airflow's own code does
from airflow.sdk.exceptions import AirflowSkipException

from ml import lake, land

DAY = date(2011, 6, 28)
FILE = f"transactions/{DAY}/x.csv"


@pytest.fixture
def landed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A day that has landed; its fingerprint."""
    from ml import store

    for name in ("landing", "lake"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"{name.upper()}_URI", (tmp_path / name).as_uri())
    store.landing().write(FILE, b"a,b\n1,2\n")
    (found,) = land.listing("transactions").days
    return found.fingerprint


class Events(dict[Any, Any]):
    """Of an asset: one event with an extra, read from the newest on."""

    def __init__(self, extra: dict[str, Any]) -> None:
        self.extra = extra

    def __missing__(self, _: object) -> Any:
        return SimpleNamespace(ascending=lambda _: SimpleNamespace(limit=lambda _: [SimpleNamespace(extra=self.extra)]))


class Outlets(dict[Any, Any]):
    def __missing__(self, asset: Any) -> Any:
        days: list[str] = []
        self[asset] = SimpleNamespace(days=days, add_partitions=days.extend, extra={})
        return self[asset]


def context(run_type: DagRunType, **more: Any) -> dict[str, Any]:
    run = SimpleNamespace(run_type=run_type, partition_key=str(DAY), dag_id="churn_x")
    ti = SimpleNamespace(get_dr_count=lambda *_, states=(): 0 if states else 8, start_date=datetime.now(UTC))
    return {"dag_run": run, "ti": ti, "task": SimpleNamespace(outlets=[]), **more}


def asked_before(fingerprint: str) -> Events:
    """The day was asked for a minute ago, and nothing came of it."""
    at = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    return Events({"ingest": {"runs": 8, "days": {str(DAY): [fingerprint, at, 1]}}})


@pytest.mark.parametrize("run_type", [DagRunType.SCHEDULED, DagRunType.ASSET_TRIGGERED])
def test_arrivals_asks_no_second_time_within_its_wait(dags: dict[str, Any], landed: str, run_type: DagRunType) -> None:
    find = dags["churn_arrivals"].get_task("find_days").python_callable
    with pytest.raises(AirflowSkipException, match="nothing new; 1 days are on their way"):
        find("churn", 5, inlet_events=asked_before(landed), outlet_events=Outlets(), **context(run_type))


def test_arrivals_triggered_by_hand_asks_at_once(dags: dict[str, Any], landed: str) -> None:
    find = dags["churn_arrivals"].get_task("find_days").python_callable
    told = context(DagRunType.MANUAL)
    asked = find("churn", 5, inlet_events=asked_before(landed), outlet_events=Outlets(), **told)
    assert asked == {"ingest": [str(DAY)]}


@pytest.fixture
def ingested(landed: str) -> str:
    import pyarrow as pa

    mark = {"day": DAY, "fingerprint": landed, "content": "c", "follow": True, "run_key": "k"}
    lake.replace(land.INGESTED_DAYS, pa.Table.from_pylist([mark]), "true")
    return landed


def emit(dags: dict[str, Any], run_type: DagRunType) -> str:
    found: str = (
        dags["churn_calendar"]
        .get_task("emit_day")
        .python_callable("transactions", 31, inlet_events=Events({}), **context(run_type))
    )
    return found


def test_the_calendar_leaves_a_day_alone_that_is_ingested_as_it_has_landed(dags: dict[str, Any], ingested: str) -> None:
    with pytest.raises(AirflowSkipException, match=f"{DAY} is ingested"):
        emit(dags, DagRunType.SCHEDULED)


@pytest.mark.parametrize("run_type", [DagRunType.BACKFILL, DagRunType.MANUAL])
def test_the_calendar_hands_it_on_to_whoever_asks(dags: dict[str, Any], ingested: str, run_type: DagRunType) -> None:
    assert emit(dags, run_type) == str(DAY)
