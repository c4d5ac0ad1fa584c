"""The assets that connect the Dags. Each is declared once and named `<node>.<state>`.

An asset event whose partition key is a day moves that day on: landed → ingested → featured → scored. Where several nodes
bring what a day is built from, the last one to come emits `ready`.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow.sdk import Asset

QUEUE_CONN_ID = "landing_queue"
ASKED = Asset("arrivals.asked")  # which days were requested, and when (in the extra of its events)


def noticed() -> Asset:
    """Something was written to the landing container; carries no day. Its watcher reads the landing queue."""
    from airflow.sdk import AssetWatcher

    from mlops.services.storage_queue import StorageQueueTrigger  # not needed at the start of a task

    return Asset(
        "arrivals.noticed",
        watchers=[AssetWatcher(name="landing_queue", trigger=StorageQueueTrigger(QUEUE_CONN_ID))],
    )


@dataclass(frozen=True)
class SourceAssets:
    """The assets of one source."""

    landed: Asset  # a day has new or changed files
    ingested: Asset  # a day is in silver


@dataclass(frozen=True)
class TableAssets:
    """The assets of one feature table."""

    ready: Asset  # the last of the sources that a day waits for has come
    restate: Asset  # compute a day again: something that it is built from has changed, or the day's event was lost
    featured: Asset  # a day has features


@dataclass(frozen=True)
class ModelAssets:
    """The assets of one model."""

    ready: Asset  # the last of the feature tables has a day's features
    rescore: Asset  # score a day again, with the features it has
    scored: Asset  # a day has scores
    remeasure: Asset  # measure a day's drift again
    retrain: Asset  # a person or a program requests a new model; carries no day
    challenger: Asset  # a version was trained and evaluated; carries no day
    champion: Asset  # the alias champion has moved; carries no day
    reported: Asset  # its last event holds the version of the scores that the report shows; carries no day


def source_assets(name: str) -> SourceAssets:
    return SourceAssets(landed=Asset(f"{name}.landed"), ingested=Asset(f"{name}.ingested"))


def table_assets(name: str) -> TableAssets:
    return TableAssets(
        ready=Asset(f"{name}.ready"), restate=Asset(f"{name}.restate"), featured=Asset(f"{name}.featured")
    )


def model_assets(name: str) -> ModelAssets:
    return ModelAssets(
        ready=Asset(f"{name}.ready"),
        rescore=Asset(f"{name}.rescore"),
        scored=Asset(f"{name}.scored"),
        remeasure=Asset(f"{name}.remeasure"),
        retrain=Asset(f"{name}.retrain"),
        challenger=Asset(f"{name}.challenger"),
        champion=Asset(f"{name}.champion"),
        reported=Asset(f"{name}.reported"),
    )
