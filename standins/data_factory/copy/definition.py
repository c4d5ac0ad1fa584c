"""A Copy activity as its pipeline defines it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_PARALLEL_COPIES = 4  # files at once where the activity does not say: Data Factory chooses by itself then


@dataclass(frozen=True)
class Copy:
    """One Copy activity with every expression evaluated.

    `source` and `sink` are the activity's, `source_dataset` and `sink_dataset` the properties of
    the datasets they read and write.
    """

    name: str
    run_id: str  # of the activity
    source: dict[str, Any]
    source_dataset: dict[str, Any]
    sink: dict[str, Any]
    sink_dataset: dict[str, Any]
    type_properties: dict[str, Any]

    @property
    def parallel(self) -> int:
        """Files at once."""
        return int(self.type_properties.get("parallelCopies") or MAX_PARALLEL_COPIES)
