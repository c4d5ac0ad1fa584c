"""Delta tables by name (`silver.transactions`), each write replacing exactly its partition.

A re-run, a retry and a backfill are the same thing here: `replace` swaps the rows a predicate names
for the given ones in one commit, so doing it twice changes nothing. Source: the Delta protocol
through delta-rs (https://delta-io.github.io/delta-rs/).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import DeltaTable

    from ml.storage.leases import Lease

if TYPE_CHECKING:
    import pyarrow as pa


LEASE_WAIT = 900  # seconds for another run on the table; a day takes seconds, a training's cut-offs a minute
# of files that only pass through: Arrow otherwise reads sixteen pieces of 131,072 rows ahead, hundreds of megabytes
PIECEWISE: dict[str, int] = {"batch_size": 16_384, "batch_readahead": 1, "fragment_readahead": 1}
ATTEMPTS = 8  # commits that lost a race are tried again: two days of one table may finish together


def root() -> str:
    return os.environ.get("LAKE_URI", "az://lake").rstrip("/")


def uri(name: str) -> str:
    """`silver.transactions` → `<lake>/silver/transactions`."""
    layer, _, table = name.partition(".")
    if not (layer.isidentifier() and table.isidentifier()):
        raise ValueError(f"table name {name!r}: <layer>.<table> is needed")
    return f"{root()}/{layer}/{table}"


def storage_options() -> dict[str, str]:
    """What delta-rs needs to reach the lake; empty for a plain folder."""
    if not root().startswith("az://"):
        return {}
    from ml.storage.stores import account_url

    options = {"account_name": os.environ["AZURE_STORAGE_ACCOUNT_NAME"]}
    endpoint = account_url()
    if key := os.environ.get("AZURE_STORAGE_ACCOUNT_KEY"):
        options["account_key"] = key
    if endpoint.startswith("http://"):
        options |= {"azure_storage_endpoint": endpoint, "allow_http": "true"}
    return options


def exists(name: str) -> bool:
    from deltalake import DeltaTable

    return DeltaTable.is_deltatable(uri(name), storage_options())


def table(name: str, version: int | None = None) -> DeltaTable:
    """Open a table, at its newest version unless told. Raises FileNotFoundError when it is not there."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        return DeltaTable(uri(name), version=version, storage_options=storage_options())
    except TableNotFoundError as error:
        raise FileNotFoundError(f"table {name} is not at {uri(name)}: has the stage before run?") from error


def dataset(name: str, version: int | None = None) -> ds.Dataset:
    """A table to be scanned lazily: engines push columns and filters into it."""
    return scan(table(name, version))


def scan(opened: DeltaTable) -> ds.Dataset:
    """An opened table to be scanned lazily, at its version.

    Through Arrow's own file systems: delta-rs's is written in Python, its files are closed by Arrow's threads
    after the scan, and a process that ended in that moment was aborted (18 of 40 short ones were; 0 like this).
    """
    from pyarrow.fs import AzureFileSystem, LocalFileSystem, SubTreeFileSystem

    where = urlsplit(opened.table_uri)
    if where.scheme != "az":
        return opened.to_pyarrow_dataset(filesystem=SubTreeFileSystem(url2pathname(where.path), LocalFileSystem()))
    from ml.storage.stores import account_url

    endpoint, account = urlsplit(account_url()), os.environ["AZURE_STORAGE_ACCOUNT_NAME"]
    own = endpoint.path.strip("/") == account  # not a cloud's host name: the account is part of the path
    local = {
        f"{service}_storage_{part}": value
        for service in ("blob", "dfs")
        for part, value in (("authority", endpoint.netloc), ("scheme", endpoint.scheme))
    }
    key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY") or None
    azure = AzureFileSystem(account_name=account, account_key=key, **(local if own else {}))
    return opened.to_pyarrow_dataset(filesystem=SubTreeFileSystem(f"{where.netloc}{where.path}", azure))


def read(
    name: str, *, version: int | None = None, columns: Sequence[str] | None = None, where: ds.Expression | None = None
) -> pa.Table:
    """The rows of a table that `where` (a pyarrow expression) keeps."""
    return dataset(name, version).to_table(columns=list(columns) if columns else None, filter=where)


def partition_days(name: str, column: str) -> list[date]:
    """The days a table has partitions for, oldest first; read from its log, not from its data."""
    return sorted({date.fromisoformat(partition[column]) for partition in table(name).partitions()})


def day_predicate(column: str, days: Sequence[date]) -> str:
    """SQL for "these days": what `replace` swaps. Days are dates, so no text gets in."""
    if not days:
        raise ValueError("no days to replace")
    listed = ", ".join(f"DATE '{day.isoformat()}'" for day in sorted(days))
    return f"{column} IN ({listed})"


def _widens(name: str, rows: pa.Table | ds.Dataset) -> bool:
    """Do rows bring columns besides all that the table has?"""
    return set(rows.schema.names) > {field.name for field in table(name).schema().fields}


def text_predicate(**values: str) -> str:
    """SQL for "these columns have exactly these values"; a quote in a value is doubled, so it stays a value."""
    quoted = {column: value.replace("'", "''") for column, value in values.items()}
    return " AND ".join(f"{column} = '{value}'" for column, value in quoted.items())


def replace(
    name: str,
    rows: pa.Table | ds.Dataset,
    where: str,
    *,
    partition_by: Sequence[str] = (),
    note: Mapping[str, str] | None = None,
) -> int:
    """Swap the rows that `where` names for `rows`, in one commit; create the table when it is not there.

    Every row must satisfy `where`. Columns that the table does not have yet are added; rows from before have
    NULL there. A commit that lost a race against another day's is tried again. `note` (stage, run key, days)
    stands in the table's history beside the commit.
    Returns the version that holds the rows.
    """
    import pyarrow as pa
    from deltalake import CommitProperties, write_deltalake
    from deltalake.exceptions import CommitFailedError, DeltaError

    for attempt in range(1, ATTEMPTS + 1):
        fresh = not exists(name)
        passing = rows if isinstance(rows, pa.Table) else rows.scanner(**PIECEWISE).to_reader()  # read while written
        try:
            write_deltalake(
                uri(name),
                passing,
                mode="error" if fresh else "overwrite",
                schema_mode=None if fresh or not _widens(name, rows) else "merge",
                predicate=None if fresh else where,
                partition_by=list(partition_by) or None,
                storage_options=storage_options(),
                commit_properties=CommitProperties(custom_metadata=dict(note)) if note else None,
            )
            return table(name).version()
        except DeltaError as error:
            # a lost race: another commit came first, or somebody else has just created the table
            lost = isinstance(error, CommitFailedError) or (fresh and exists(name))
            if not lost or attempt == ATTEMPTS:
                raise
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable")


def hold(name: str, who: str) -> AbstractContextManager[Lease]:
    """The one right to write a table's days, whoever asks: a Dag's run, a backfill, a person. `who` tells others.

    `check` it before each commit. Raises LeaseError after waiting LEASE_WAIT for another holder; a dead one's ends.
    """
    from ml.storage import leases, stores

    return leases.hold(stores.lake(), f"ops/_leases/{name}", who, LEASE_WAIT)


def tidy(name: str, files: int) -> None:
    """Put a table's small files together when it has more than `files`. Its rows stay what they are.

    Whoever loses the race against another commit leaves it to the next one.
    """
    from deltalake.exceptions import CommitFailedError

    opened = table(name)
    if len(opened.file_uris()) > files:
        try:
            opened.optimize.compact()
        except CommitFailedError:
            pass


def table_id(table: Any) -> str:
    """What tells a Delta table from another one of the same name."""
    return str(table.metadata().id)
