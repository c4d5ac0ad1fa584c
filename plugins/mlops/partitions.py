"""The day of a run. Days are partitions: a run's day is its partition key, never the wall clock."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from airflow.sdk import AssetAny, PartitionedAssetTimetable, StartOfDayMapper
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.asset import BaseAsset

DAY = "{{ dag_run.partition_key }}"
DAY_FORMAT = "%Y-%m-%d"
MANUAL = "dag_run.run_type.value == 'manual'"  # in a template: was the run triggered by a person?


def day_of(context: Context) -> date:
    """The run's day. Fails the task when the run has none: Airflow would drop the events of a run without a key."""
    key = context["dag_run"].partition_key or ""
    try:
        day = date.fromisoformat(key)
        if key != day.isoformat():
            raise ValueError("a day in another format")  # 20261101 would be a second key of the same day
        return day
    except ValueError:
        dag_id = context["dag_run"].dag_id
        raise AirflowFailException(
            f"this run of {dag_id} has partition key {key!r}; a day as YYYY-MM-DD is needed. Start a day with "
            f'POST /api/v2/dags/{dag_id}/dagRuns {{"logical_date": null, "partition_key": "YYYY-MM-DD"}}, '
            "or with a backfill of a source's calendar Dag."
        ) from None


def run_type(context: Context) -> str:
    """How the run was started, in Airflow's terms: manual, scheduled, backfill, asset_triggered, …"""
    return str(context["dag_run"].run_type.value)  # str() of the enumeration differs between Airflow and the Task SDK


def each_day(*assets: BaseAsset) -> PartitionedAssetTimetable:
    """One run per day key on any of `assets`."""
    return PartitionedAssetTimetable(
        assets=assets[0] if len(assets) == 1 else AssetAny(*assets),
        default_partition_mapper=StartOfDayMapper(input_format=DAY_FORMAT, output_format=DAY_FORMAT),
    )
