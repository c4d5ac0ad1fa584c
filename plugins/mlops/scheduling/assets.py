"""What the Dags hand to one another, each asset declared once and named `<model>.<state>`.

An asset event with a day's key is what moves that day on: landed → ingested → featured → scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.sdk import Asset, AssetWatcher

from mlops.services.storage_queue import StorageQueueTrigger

if TYPE_CHECKING:
    pass

QUEUE_CONN_ID = "landing_queue"


@dataclass(frozen=True)
class Assets:
    """The assets of one model."""

    noticed: Asset  # something was written to the landing container; carries no day
    asked: Asset  # which days were asked for, when (its events' extra)
    landed: Asset  # a day's files are there, new or changed
    ingested: Asset  # a day is in silver
    restate: Asset  # a day's features are to be made again: a day before it was corrected, or its event was lost
    featured: Asset  # a day's features are there
    rescore: Asset  # a day is to be scored again, with the features it has
    scored: Asset  # a day's scores are there
    remeasure: Asset  # a day's drift is to be measured again
    retrain: Asset  # somebody or something wants a new model; carries no day
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
