"""The day a run is for. Days are partitions: a run's day is its partition key, never the wall clock."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from airflow.sdk import PartitionedAssetTimetable, StartOfDayMapper
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.asset import BaseAsset

DAY = "{{ dag_run.partition_key }}"
DAY_FORMAT = "%Y-%m-%d"


def day_of(context: Context) -> date:
    """The run's day. A run without one was triggered without a partition key; Airflow would drop its events."""
    key = context["dag_run"].partition_key or ""
    try:
        day = date.fromisoformat(key)
        if key != day.isoformat():
            raise ValueError("a day in another form")  # 20261101 would be a second key of the same day
        return day
    except ValueError:
        dag_id = context["dag_run"].dag_id
        raise AirflowFailException(
            f"this run of {dag_id} has partition key {key!r}; a day as YYYY-MM-DD is needed. Start a day with "
            f'POST /api/v2/dags/{dag_id}/dagRuns {{"logical_date": null, "partition_key": "YYYY-MM-DD"}}, '
            "or with a backfill of the model's calendar Dag."
        ) from None


def started(context: Context) -> str:
    """How the run was started, in Airflow's words: manual, scheduled, backfill, asset_triggered, …"""
    return str(context["dag_run"].run_type.value)  # its str() is the word in Airflow, and another in the Task SDK


def each_day(assets: BaseAsset) -> PartitionedAssetTimetable:
    """One run per day key on `assets`."""
    return PartitionedAssetTimetable(
        assets=assets, default_partition_mapper=StartOfDayMapper(input_format=DAY_FORMAT, output_format=DAY_FORMAT)
    )
