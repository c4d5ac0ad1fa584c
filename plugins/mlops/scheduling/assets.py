"""The assets that connect the Dags. Each is declared once and named `<model>.<state>`.

An asset event whose partition key is a day moves that day on: landed → ingested → featured → scored.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow.sdk import Asset, AssetWatcher

from mlops.services.storage_queue import StorageQueueTrigger

QUEUE_CONN_ID = "landing_queue"


@dataclass(frozen=True)
class Assets:
    """The assets of one model."""

    noticed: Asset  # something was written to the landing container; carries no day
    asked: Asset  # which days were requested, and when (in the extra of its events)
    landed: Asset  # a day has new or changed files
    ingested: Asset  # a day is in silver
    restate: Asset  # recompute a day's features: an earlier day was corrected, or the day's event was lost
    featured: Asset  # a day has features
    rescore: Asset  # score a day again, with the features it has
    scored: Asset  # a day has scores
    remeasure: Asset  # measure a day's drift again
    retrain: Asset  # a person or a program requests a new model; carries no day
    challenger: Asset  # a version was trained and evaluated; carries no day
    champion: Asset  # the alias champion has moved; carries no day


def assets_of(model: str) -> Assets:
    """The assets of the model called `model`."""
    return Assets(
        noticed=Asset(
            f"{model}.noticed",
            watchers=[AssetWatcher(name="landing_queue", trigger=StorageQueueTrigger(QUEUE_CONN_ID))],
        ),
        asked=Asset(f"{model}.asked"),
        landed=Asset(f"{model}.landed"),
        ingested=Asset(f"{model}.ingested"),
        restate=Asset(f"{model}.restate"),
        featured=Asset(f"{model}.featured"),
        rescore=Asset(f"{model}.rescore"),
        scored=Asset(f"{model}.scored"),
        remeasure=Asset(f"{model}.remeasure"),
        retrain=Asset(f"{model}.retrain"),
        challenger=Asset(f"{model}.challenger"),
        champion=Asset(f"{model}.champion"),
    )
