"""What the Dags that ask for days do for a person, and what for the clock: their tasks, called as a worker calls them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType  # as a task gets it, not as Airflow's own code does
from airflow.sdk.exceptions import AirflowSkipException

from ml.landing import listing
from ml.ops import built_days, ingested_days
from ml.ops.built_days import BuiltDay
from ml.storage import tables

DAY = date(2011, 6, 28)
FILE = f"transactions/{DAY}/x.csv"


@pytest.fixture
def landed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A day that has landed; its fingerprint."""
    from ml.storage import stores

    for name in ("landing", "lake"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"{name.upper()}_URI", (tmp_path / name).as_uri())
    stores.landing().write(FILE, b"a,b\n1,2\n")
    (found,) = listing.list_landing("transactions").days
    return found.fingerprint


class Events(dict[Any, Any]):
    """Of an asset: one event with an extra, read from the newest on; and how many there were of late."""

    def __init__(self, extra: dict[str, Any], lately: str = "") -> None:
        self.extra, self.lately = extra, lately

    def __missing__(self, asset: Any) -> Any:
        newest = SimpleNamespace(limit=lambda _: [SimpleNamespace(extra=self.extra)])
        lately = [newest] if asset.name == self.lately else []
        return SimpleNamespace(ascending=lambda _: newest, after=lambda _: lately)


class Outlets(dict[Any, Any]):
    def __missing__(self, asset: Any) -> Any:
        days: list[str] = []
        self[asset] = SimpleNamespace(days=days, add_partitions=days.extend, extra={})
        return self[asset]


def context(run_type: DagRunType, going_on: str = "", **more: Any) -> dict[str, Any]:
    """`going_on`: the one Dag that has a run which is not over, and that run's state: churn_ingest.running."""

    def runs(dag_id: str, states: Sequence[str] = ()) -> int:
        return 8 if not states else int(going_on in [f"{dag_id}.{state}" for state in states])

    run = SimpleNamespace(run_type=run_type, partition_key=str(DAY), dag_id="churn_x")
    ti = SimpleNamespace(get_dr_count=runs, start_date=datetime.now(UTC))
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
    tables.replace(ingested_days.INGESTED_DAYS, pa.Table.from_pylist([mark]), "true")
    return landed


@pytest.mark.parametrize(
    ("going_on", "lately", "asked"),
    [
        pytest.param("", "", True, id="nothing-goes-on"),
        pytest.param("churn_features.queued", "", False, id="features-are-about-to-be-made"),
        pytest.param("churn_ingest.running", "", False, id="the-ingestion-has-not-ended"),
        pytest.param("churn_load_history.running", "", False, id="the-history-has-not-ended"),
        pytest.param("churn_ingest.queued", "", True, id="the-ingestion-of-another-day-waits"),
        pytest.param("churn_score.running", "", True, id="a-later-stage-is-at-work"),
        pytest.param("", "churn.ingested", False, id="the-event-came-of-late"),
        pytest.param("", "churn.featured", True, id="another-event-came-of-late"),
    ],
)
def test_arrivals_triggered_by_hand_leaves_alone_what_is_on_its_way(
    dags: dict[str, Any], ingested: str, going_on: str, lately: str, asked: bool
) -> None:
    """The day is ingested and validated: its features come by the event at the end of the ingestion."""
    validated = BuiltDay("validate", DAY, "k", "c", 0, 1, ("first",), model="churn")
    built_days.write([validated])
    told = context(DagRunType.MANUAL, going_on) | {"inlet_events": Events({}, lately), "outlet_events": Outlets()}
    found = dags["churn_arrivals"].get_task("find_days").python_callable("churn", 5, **told)
    assert found == ({"features": [str(DAY)]} if asked else {})


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
