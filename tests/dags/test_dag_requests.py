"""What the Dags that request days do for a person, and what for a schedule: their tasks, called as a worker calls them."""

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
def fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The fingerprint of a day that has landed."""
    from ml.storage import stores

    for name in ("landing", "lake"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"{name.upper()}_URI", (tmp_path / name).as_uri())
    stores.landing().write(FILE, b"a,b\n1,2\n")
    (landed,) = listing.list_landing("transactions").days
    return landed.fingerprint


class Inlets(dict[Any, Any]):
    """One event with `extra` on each asset, and one recent event on the asset `recent`."""

    def __init__(self, extra: dict[str, Any], recent: str = "") -> None:
        self.extra, self.recent = extra, recent

    def __missing__(self, asset: Any) -> Any:
        newest = SimpleNamespace(limit=lambda _: [SimpleNamespace(extra=self.extra)])
        recent = [newest] if asset.name == self.recent else []
        return SimpleNamespace(ascending=lambda _: newest, after=lambda _: recent)


class Outlets(dict[Any, Any]):
    def __missing__(self, asset: Any) -> Any:
        days: list[str] = []
        self[asset] = SimpleNamespace(days=days, add_partitions=days.extend, extra={})
        return self[asset]


def context(run_type: DagRunType, active_run: str = "", **more: Any) -> dict[str, Any]:
    """`active_run`: the one Dag that has a run which is not over, and that run's state: churn_ingest.running."""

    def count_runs(dag_id: str, states: Sequence[str] = ()) -> int:
        return 8 if not states else int(active_run in [f"{dag_id}.{state}" for state in states])

    run = SimpleNamespace(run_type=run_type, partition_key=str(DAY), dag_id="churn_x")
    ti = SimpleNamespace(get_dr_count=count_runs, start_date=datetime.now(UTC))
    return {"dag_run": run, "ti": ti, "task": SimpleNamespace(outlets=[]), **more}


def requested_before(fingerprint: str) -> Inlets:
    """The day was requested a minute ago, without effect."""
    at = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    return Inlets({"ingest": {"runs": 8, "days": {str(DAY): [fingerprint, at, 1]}}})


@pytest.mark.parametrize("run_type", [DagRunType.SCHEDULED, DagRunType.ASSET_TRIGGERED])
def test_arrivals_repeats_no_request_within_its_wait(
    dags: dict[str, Any], fingerprint: str, run_type: DagRunType
) -> None:
    find_days = dags["churn_arrivals"].get_task("find_days").python_callable
    inlets = requested_before(fingerprint)
    with pytest.raises(AirflowSkipException, match="nothing to request; 1 days are on their way"):
        find_days("churn", 5, inlet_events=inlets, outlet_events=Outlets(), **context(run_type))


def test_arrivals_triggered_by_hand_requests_at_once(dags: dict[str, Any], fingerprint: str) -> None:
    find_days = dags["churn_arrivals"].get_task("find_days").python_callable
    inlets = requested_before(fingerprint)
    days = find_days("churn", 5, inlet_events=inlets, outlet_events=Outlets(), **context(DagRunType.MANUAL))
    assert days == {"ingest": [str(DAY)]}


@pytest.fixture
def ingested(fingerprint: str) -> str:
    import pyarrow as pa

    mark = {"day": DAY, "fingerprint": fingerprint, "content": "c", "follow": True, "run_key": "k"}
    tables.replace(ingested_days.INGESTED_DAYS, pa.Table.from_pylist([mark]), "true")
    return fingerprint


@pytest.mark.parametrize(
    ("active_run", "recent", "is_requested"),
    [
        pytest.param("", "", True, id="no-run-is-active"),
        pytest.param("churn_features.queued", "", False, id="its-features-are-queued"),
        pytest.param("churn_ingest.running", "", False, id="the-ingestion-has-not-ended"),
        pytest.param("churn_load_history.running", "", False, id="the-history-has-not-ended"),
        pytest.param("churn_ingest.queued", "", True, id="the-ingestion-of-another-day-is-queued"),
        pytest.param("churn_score.running", "", True, id="a-later-stage-is-running"),
        pytest.param("", "churn.ingested", False, id="its-event-is-recent"),
        pytest.param("", "churn.featured", True, id="another-event-is-recent"),
    ],
)
def test_arrivals_triggered_by_hand_leaves_out_what_is_on_its_way(
    dags: dict[str, Any], ingested: str, active_run: str, recent: str, is_requested: bool
) -> None:
    """The day is ingested and validated: the event at the end of the ingestion triggers its features."""
    validated = BuiltDay(
        stage="validate",
        day=DAY,
        run_key="k",
        inputs="c",
        version=0,
        rows=1,
        because=("first",),
        model="churn",
    )
    built_days.write([validated])
    more = {"inlet_events": Inlets({}, recent), "outlet_events": Outlets()}
    find_days = dags["churn_arrivals"].get_task("find_days").python_callable
    days = find_days("churn", 5, **context(DagRunType.MANUAL, active_run, **more))
    assert days == ({"features": [str(DAY)]} if is_requested else {})


def emit(dags: dict[str, Any], run_type: DagRunType) -> str:
    emit_day = dags["churn_calendar"].get_task("emit_day").python_callable
    day: str = emit_day("transactions", 31, inlet_events=Inlets({}), **context(run_type))
    return day


def test_the_calendar_skips_a_day_that_is_ingested_as_it_has_landed(dags: dict[str, Any], ingested: str) -> None:
    with pytest.raises(AirflowSkipException, match=f"{DAY} is ingested"):
        emit(dags, DagRunType.SCHEDULED)


@pytest.mark.parametrize("run_type", [DagRunType.BACKFILL, DagRunType.MANUAL])
def test_the_calendar_always_hands_a_requested_day_on(
    dags: dict[str, Any], ingested: str, run_type: DagRunType
) -> None:
    assert emit(dags, run_type) == str(DAY)
