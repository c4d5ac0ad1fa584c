"""Delta tables by name (`silver.transactions`). Each write replaces exactly its partition.

A re-run, a retry and a backfill are the same operation: `replace` swaps the rows that a predicate selects for the new
ones in one commit, so a second call has no further effect. Source: the Delta protocol through delta-rs
(https://delta-io.github.io/delta-rs/).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ml.storage import leases, stores
from ml.storage.leases import Lease

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import DeltaTable

TABLE_WAIT_SECONDS = 900  # for another run on the table; a day takes seconds, a training's cut-offs a minute
# for files that are only streamed: by default Arrow reads sixteen batches of 131,072 rows ahead, hundreds of megabytes
STREAMING: dict[str, int] = {"batch_size": 16_384, "batch_readahead": 1, "fragment_readahead": 1}
ATTEMPTS = 8  # a commit that lost a race is retried: two days of one table may finish together


def root() -> str:
    return os.environ.get("LAKE_URI", "az://lake").rstrip("/")


def uri(name: str) -> str:
    """`silver.transactions` → `<lake>/silver/transactions`."""
    layer, _, table = name.partition(".")
    if not (layer.isidentifier() and table.isidentifier()):
        raise ValueError(f"table name {name!r}: <layer>.<table> is needed")
    return f"{root()}/{layer}/{table}"


def short_name(name: str) -> str:
    """`silver.customer_days` → `customer_days`: the name that queries use."""
    return name.partition(".")[2]


def storage_options() -> dict[str, str]:
    """What delta-rs needs to reach the lake; empty for a plain folder."""
    if not root().startswith("az://"):
        return {}
    options = {"account_name": os.environ["AZURE_STORAGE_ACCOUNT_NAME"]}
    endpoint = stores.account_url()
    if key := os.environ.get("AZURE_STORAGE_ACCOUNT_KEY"):
        options["account_key"] = key
    if endpoint.startswith("http://"):
        options |= {"azure_storage_endpoint": endpoint, "allow_http": "true"}
    return options


def exists(name: str) -> bool:
    from deltalake import DeltaTable

    return DeltaTable.is_deltatable(uri(name), storage_options())


def table(name: str, version: int | None = None) -> DeltaTable:
    """Open a table at a version (default: the newest). Raises FileNotFoundError when it does not exist."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        return DeltaTable(uri(name), version=version, storage_options=storage_options())
    except TableNotFoundError as error:
        raise FileNotFoundError(
            f"table {name} does not exist at {uri(name)}: run the stage that writes it first"
        ) from error


def dataset(name: str, version: int | None = None) -> ds.Dataset:
    """A table for a lazy scan: engines push columns and filters into it."""
    return scan(table(name, version))


def scan(opened: DeltaTable) -> ds.Dataset:
    """An opened table for a lazy scan, at its version.

    Uses Arrow's own file systems. The one of delta-rs is written in Python, and Arrow's threads close its files after
    the scan: a process that ended in that moment was aborted (18 of 40 short processes; with Arrow's own, 0 of 40).
    """
    from pyarrow.fs import AzureFileSystem, LocalFileSystem, SubTreeFileSystem

    where = urlsplit(opened.table_uri)
    if where.scheme != "az":
        return opened.to_pyarrow_dataset(filesystem=SubTreeFileSystem(url2pathname(where.path), LocalFileSystem()))
    endpoint, account = urlsplit(stores.account_url()), os.environ["AZURE_STORAGE_ACCOUNT_NAME"]
    # an emulator has the account in the path, where a cloud has it in the host name
    is_emulator = endpoint.path.strip("/") == account
    emulator = {
        f"{service}_storage_{part}": value
        for service in ("blob", "dfs")
        for part, value in (("authority", endpoint.netloc), ("scheme", endpoint.scheme))
    }
    key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY") or None
    azure = AzureFileSystem(account_name=account, account_key=key, **(emulator if is_emulator else {}))
    return opened.to_pyarrow_dataset(filesystem=SubTreeFileSystem(f"{where.netloc}{where.path}", azure))


def read(
    name: str, *, version: int | None = None, columns: Sequence[str] | None = None, where: ds.Expression | None = None
) -> pa.Table:
    """The rows of a table that match `where`, a pyarrow expression."""
    return dataset(name, version).to_table(columns=list(columns) if columns else None, filter=where)


def partition_days(name: str, column: str) -> list[date]:
    """The days that a table has partitions for, oldest first. Read from its log, not from its data."""
    return sorted({date.fromisoformat(partition[column]) for partition in table(name).partitions()})


def day_predicate(column: str, days: Sequence[date]) -> str:
    """SQL that selects these days, for `replace`. Days are dates, so no text gets in."""
    if not days:
        raise ValueError("no days to replace")
    listed = ", ".join(f"DATE '{day.isoformat()}'" for day in sorted(days))
    return f"{column} IN ({listed})"


def text_predicate(**values: str) -> str:
    """SQL that selects exactly these values of columns; a quote in a value is doubled, so it stays a value."""
    quoted = {column: value.replace("'", "''") for column, value in values.items()}
    return " AND ".join(f"{column} = '{value}'" for column, value in quoted.items())


def replace(
    name: str,
    rows: pa.Table | ds.Dataset,
    where: str,
    *,
    partition_by: Sequence[str] = (),
    note: Mapping[str, str] | None = None,
    may_lack: bool = False,
) -> int:
    """Replace the rows that `where` selects by `rows`, in one commit. Creates the table when it does not exist.

    Every row must satisfy `where`. Columns that the table does not have yet are added; earlier rows have NULL there.
    Rows that lack a column of the table are refused by delta-rs, unless `may_lack`: then they have NULL there.
    A commit that lost a race against another day's commit is retried. `note` (stage, run key, days) is written into
    the table's history beside the commit. Returns the version that holds the rows.
    """
    return _write(name, rows, where, partition_by, note, may_lack=may_lack)


def replace_all(
    name: str, rows: pa.Table, *, partition_by: Sequence[str] = (), note: Mapping[str, str] | None = None
) -> int:
    """Replace all rows of a table, and its columns with them, in one commit; earlier versions keep theirs.

    The table stays partitioned as it was created. Returns the version that holds the rows.
    """
    return _write(name, rows, None, partition_by, note)


def _write(
    name: str,
    rows: pa.Table | ds.Dataset,
    where: str | None,
    partition_by: Sequence[str],
    note: Mapping[str, str] | None,
    *,
    may_lack: bool = False,
) -> int:
    """Commit the rows, again after a lost race. `where` is None: they replace all rows, and the columns."""
    import pyarrow as pa
    from deltalake import CommitProperties, write_deltalake
    from deltalake.exceptions import CommitFailedError, DeltaError

    for attempt in range(1, ATTEMPTS + 1):
        is_new_table = not exists(name)
        source = rows if isinstance(rows, pa.Table) else rows.scanner(**STREAMING).to_reader()  # read while written
        try:
            write_deltalake(
                uri(name),
                source,
                mode="error" if is_new_table else "overwrite",
                schema_mode=None if is_new_table else _schema_mode(name, rows, where, may_lack),
                predicate=None if is_new_table else where,
                partition_by=list(partition_by) or None,
                storage_options=storage_options(),
                commit_properties=CommitProperties(custom_metadata=dict(note)) if note else None,
            )
            return table(name).version()
        except DeltaError as error:
            # another commit came first, or another process has just created the table
            lost_race = isinstance(error, CommitFailedError) or (is_new_table and exists(name))
            if not lost_race or attempt == ATTEMPTS:
                raise
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable")


def _schema_mode(
    name: str, rows: pa.Table | ds.Dataset, where: str | None, may_lack: bool
) -> Literal["overwrite", "merge"] | None:
    """How delta-rs treats columns that only the rows, or only the table, have; None: it refuses both."""
    if where is None:
        return "overwrite"
    columns, stored = set(rows.schema.names), {field.name for field in table(name).schema().fields}
    return "merge" if columns != stored and (may_lack or columns > stored) else None


def hold(name: str, who: str) -> AbstractContextManager[Lease]:
    """Acquire the table's exclusive write lease: for a Dag's run, a backfill or a person. `who` names the holder.

    Call `check` on it before each commit. Raises LeaseError after TABLE_WAIT_SECONDS of waiting for another holder;
    the lease of a process that died ends by itself.
    """
    return leases.hold(stores.lake(), f"{leases.FOLDER}/{name}", who, TABLE_WAIT_SECONDS)


def compact(name: str, files: int, **partition: str) -> None:
    """Merge the small files of one partition of a table when it has more than `files`. Its rows do not change.

    When another commit comes first, nothing is merged; the next call does it.
    """
    from deltalake.exceptions import CommitFailedError

    opened = table(name)
    filters = [(column, "=", value) for column, value in partition.items()]
    if len(opened.file_uris(filters)) > files:
        try:
            opened.optimize.compact(filters)
        except CommitFailedError:
            pass


def table_id(table: Any) -> str:
    """The id of a Delta table, different for another table of the same name."""
    return str(table.metadata().id)
