"""`python -m tests.support.machines.storage_client COMMAND ARGUMENT…`: calls of `ml.storage` in a process of its own.

Such a process has the environment of a machine under test, which the tests' own process does not have.
Each command prints its result as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import date
from typing import Any

from ml.landing import listing
from ml.ops import ingested_days
from ml.storage import stores, tables


def write_landing(name: str) -> None:
    """Write standard input to a file of the landing store."""
    stores.landing().write(name, sys.stdin.buffer.read())


def read_table(table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tables.read(table).to_pylist()
    return rows


def read_day(table: str, column: str, day: str) -> list[dict[str, Any]]:
    """The rows of one day's partition."""
    import pyarrow.compute as pc

    in_partition = pc.field(column) == date.fromisoformat(day)
    rows: list[dict[str, Any]] = tables.read(table, where=in_partition).to_pylist()
    return rows


def empty_day(day: str, day_columns: str) -> None:
    """Remove every row of one day. `day_columns` is JSON: the day's column by table name."""
    for table, column in json.loads(day_columns).items():
        schema = tables.dataset(table).schema
        tables.replace(table, schema.empty_table(), tables.day_predicate(column, [date.fromisoformat(day)]))


def newest_day(source: str) -> str:
    """The newest day of a source that has landed or is ingested."""
    landed = (landed.day for landed in listing.list_landing(source).days)
    return max([*ingested_days.read_ingested_days(source), *landed]).isoformat()


def leased_blobs() -> list[str]:
    """Names of the lake's blobs on which somebody holds a lease."""
    lake = stores.lake()
    assert isinstance(lake, stores.AzureStore)
    return [blob.name for blob in lake.client.list_blobs() if blob.lease.state == "leased"]


def report_pages() -> list[str]:
    return [blob.name for blob in stores.reports().list() if blob.name.endswith(".html")]


def ask_landing_once() -> None:
    """Read the properties of the landing container, without retries."""
    landing = stores.landing()
    assert isinstance(landing, stores.AzureStore)
    landing.client.get_container_properties(retry_total=0)


COMMANDS: dict[str, Callable[..., Any]] = {
    command.__name__: command
    for command in (
        write_landing,
        read_table,
        read_day,
        empty_day,
        newest_day,
        leased_blobs,
        report_pages,
        ask_landing_once,
    )
}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](*sys.argv[2:]), default=str))
