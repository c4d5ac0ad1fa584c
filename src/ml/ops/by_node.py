"""Opens the ops tables, which are keyed by node; those of an earlier release are refused with the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml.errors import StageError
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow.dataset as ds


def scan(name: str, key: str, version: int | None = None) -> ds.Dataset:
    """One version of an ops table, lazily. `key` is the column that says whose day a row is. Raises StageError."""
    rows = tables.dataset(name, version)
    if key not in rows.schema.names:
        raise StageError(
            f"{name} has the form of an earlier release, without the column {key}: pause the Dags, wait for their runs, "
            "then run python -m ml migrate"
        )
    return rows
