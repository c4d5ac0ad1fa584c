"""Kinds of the documents that hold the state of Data Factory, and the times in them."""

from __future__ import annotations

from datetime import UTC, datetime

FACTORIES, RUNS = "data_factory.factory", "data_factory.run"
LINKED_SERVICES, DATASETS, PIPELINES = "linkedservices", "datasets", "pipelines"
FINAL = {"Succeeded", "Failed", "Cancelled"}  # the states of a run that has ended


def resource_kind(factory: str, collection: str) -> str:
    """The document kind of a factory's linked services, datasets or pipelines."""
    return f"data_factory.{factory}/{collection}".lower()


def now() -> str:
    """The time as ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """An ISO 8601 time; without a zone it is UTC, as in the service. Raises ValueError."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
