"""When Dags run, and for which day: schedules come from the config, and a partition key stays the same day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ml.config import load_platform, load_project
from tests.support.config_folder import ConfigFolder
from tests.support.dag_ids import all_dags

PROJECT = load_project()
DAGS = all_dags(PROJECT)
OF_A_DAY = [dag_id for dag_id, node in DAGS.items() if node.stage in ("ingest", "features", "score", "monitor")]


def stored(timetable: Any) -> Any:
    """The timetable as the scheduler has it: stored by the Dag processor, and read back."""
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable

    return decode_timetable(encode_timetable(timetable))


def test_the_sweep_comes_from_the_platform_s_config(dags: dict[str, Any]) -> None:
    assert load_platform().arrivals.sweep in stored(dags["arrivals"].timetable).summary


@pytest.mark.parametrize("name", PROJECT.sources)
def test_a_calendar_comes_from_the_source_s_config(dags: dict[str, Any], name: str) -> None:
    source = PROJECT.sources[name]
    assert (
        stored(dags[f"{name}_calendar"].timetable).serialize()
        == stored(calendar(source.due, source.timezone)).serialize()
    )


@pytest.mark.parametrize("name", PROJECT.models)
def test_training_and_report_come_from_the_model_s_config(dags: dict[str, Any], name: str) -> None:
    model = PROJECT.models[name]
    train = stored(dags[f"{name}_train"].timetable)
    assert model.schedule.train in train.summary
    if model.report:
        report = stored(dags[f"{name}_report"].timetable)
        assert (report.summary, report.serialize()["timezone"]) == (model.schedule.report, model.timezone)


def test_a_changed_schedule_and_time_zone_take_effect(dags_of: Callable[..., dict[str, Any]]) -> None:
    def arrange(config: ConfigFolder) -> None:
        config.source("a", timezone="Europe/London")
        config.table("t", "a")
        schedule = {"report": "5 22 * * *", "train": "0 2 1 * *"}
        config.model("m", "t", label="a", timezone="Europe/London", schedule=schedule)

    changed = dags_of(arrange)
    report = stored(changed["m_report"].timetable)
    assert report.summary == "5 22 * * *"
    assert report.serialize()["timezone"] == "Europe/London"
    assert "0 2 1 * *" in stored(changed["m_train"].timetable).summary


@pytest.mark.parametrize("name", PROJECT.sources)
def test_history_is_loaded_by_hand_only(dags: dict[str, Any], name: str) -> None:
    assert stored(dags[f"{name}_load_history"].timetable).can_be_scheduled is False


@pytest.mark.parametrize("dag_id", OF_A_DAY)
@pytest.mark.parametrize("day", ["1998-06-28", "2000-02-29", "2011-12-31", "2026-03-29", "2026-10-25"])
def test_a_key_stays_the_day_it_names(dags: dict[str, Any], dag_id: str, day: str) -> None:
    """From stage to stage, in leap years and on the days when clocks change."""
    timetable = stored(dags[dag_id].timetable)
    assert timetable.default_partition_mapper.to_downstream(day) == day
    assert not timetable.partition_mapper_config, "an asset with a mapper of its own may change keys"


@pytest.mark.parametrize(
    ("zone", "due", "day"),
    [
        pytest.param("UTC", datetime(2026, 11, 21, 6, tzinfo=UTC), "2026-11-20", id="utc"),
        pytest.param("UTC", datetime(2024, 3, 1, 6, tzinfo=UTC), "2024-02-29", id="leap-day"),
        pytest.param("UTC", datetime(2026, 1, 1, 6, tzinfo=UTC), "2025-12-31", id="new-year"),
        pytest.param("America/New_York", datetime(2026, 11, 21, 11, tzinfo=UTC), "2026-11-20", id="west"),
        pytest.param("America/New_York", datetime(2026, 11, 1, 11, tzinfo=UTC), "2026-10-31", id="clocks-go-back"),
        pytest.param("Pacific/Auckland", datetime(2026, 11, 20, 17, tzinfo=UTC), "2026-11-20", id="far-east"),
        pytest.param("Europe/London", datetime(2026, 3, 29, 5, tzinfo=UTC), "2026-03-28", id="clocks-go-forward"),
    ],
)
def test_the_calendar_is_due_for_yesterday(
    dags_of: Callable[..., dict[str, Any]], zone: str, due: datetime, day: str
) -> None:
    """At six in the morning of the business's own time zone, the day before there."""
    from airflow._shared.timezones.timezone import coerce_datetime
    from airflow.timetables.base import TimeRestriction

    dags = dags_of(lambda config: config.source("a", timezone=zone))
    timetable = stored(dags["a_calendar"].timetable)
    restriction = TimeRestriction(earliest=coerce_datetime(due), latest=None, catchup=True)
    info = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction)
    assert (info.run_after, info.partition_key) == (due, day)


def test_a_backfill_makes_each_day_once(dags: dict[str, Any]) -> None:
    """From the first of the days to the one before the last, as the runbook says."""
    timetable = stored(dags[f"{next(iter(PROJECT.sources))}_calendar"].timetable)
    first, last = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 4, tzinfo=UTC)
    infos = timetable.iter_partition_dagrun_infos(earliest=first, latest=last)
    assert [info.partition_key for info in infos] == ["2026-11-01", "2026-11-02", "2026-11-03"]


@pytest.mark.parametrize(
    ("zone", "first", "days", "never"),
    [
        pytest.param("Europe/London", date(2026, 3, 27), 5, [], id="a-day-of-23-hours"),
        pytest.param("Europe/London", date(2026, 10, 23), 5, [], id="a-day-of-25-hours"),
        pytest.param("America/New_York", date(2026, 3, 6), 5, [], id="west-of-it"),
        pytest.param("Pacific/Auckland", date(2026, 4, 3), 5, [], id="far-east"),
        pytest.param("America/Havana", date(2011, 11, 11), 5, [], id="a-midnight-that-comes-twice"),
        pytest.param("America/Sao_Paulo", date(2011, 10, 14), 5, [], id="a-midnight-that-never-comes"),
        pytest.param("Pacific/Apia", date(2011, 12, 28), 5, ["2011-12-30"], id="a-day-that-never-was"),
        pytest.param("UTC", date(2024, 2, 27), 5, [], id="leap-day"),
    ],
)
@pytest.mark.parametrize("hour", ["0 0", "0 6", "30 1", "0 23"])
def test_a_backfill_over_changing_clocks_makes_each_day_once(
    zone: str, first: date, days: int, never: list[str], hour: str
) -> None:
    """From the first day's midnight there to that of the day after the last."""
    timetable = stored(calendar(f"{hour} * * *", zone))
    midnights = [datetime.combine(first + timedelta(n), time(), ZoneInfo(zone)) for n in (0, days)]
    infos = timetable.iter_partition_dagrun_infos(earliest=midnights[0], latest=midnights[1] - timedelta(seconds=1))
    expected = [str(first + timedelta(n)) for n in range(days)]
    assert [info.partition_key for info in infos] == [day for day in expected if day not in never]


def calendar(cron: str, zone: str) -> Any:
    """A calendar Dag's timetable; a test above checks that the Dag builds it like this."""
    from airflow.sdk import CronPartitionTimetable

    return CronPartitionTimetable(cron, timezone=zone, run_offset=-1, key_format="%Y-%m-%d")


def test_arrivals_watch_the_landing_queue(dags: dict[str, Any]) -> None:
    condition = dags["arrivals"].timetable.asset_condition
    watchers = [watcher for asset in condition.objects for watcher in asset.watchers]
    assert [type(watcher.trigger).__name__ for watcher in watchers] == ["StorageQueueTrigger"]
    assert watchers[0].trigger.serialize()[1] == {"conn_id": "landing_queue"}
