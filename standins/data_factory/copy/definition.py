"""The definition of a Copy activity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_PARALLEL_COPIES = 4  # default number of files at once; Data Factory chooses its own


@dataclass(frozen=True)
class Copy:
    """A Copy activity with all expressions evaluated.

    `source` and `sink` are those of the activity, `source_dataset` and `sink_dataset` the properties of their datasets.
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
        """The number of files that are copied at once."""
        return int(self.type_properties.get("parallelCopies") or MAX_PARALLEL_COPIES)
