"""Queries on DuckDB: in this process, over Arrow memory and Delta files, in parallel, spilling to disk when needed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from ml.engine import digest, query, types
from ml.engine.interface import QueryError

if TYPE_CHECKING:
    from ml.engine.interface import Table, Value

# Unless ML_MEMORY_LIMIT is set: the processes beside it (a worker, the database, a model server) keep the other half,
# and queries that need more spill to disk.
MEMORY_LIMIT = "50%"
BATCH_ROWS = 50_000  # of a streamed result


class DuckDBEngine:
    """Each query has a connection of its own (about 1 ms): queries share nothing and leave nothing behind."""

    def run(self, query_name: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None) -> pa.Table:
        """See `ml.engine.Engine.run`."""
        with _relation(query_name, tables, values or {}) as (relation, path):
            return types.to_plain(relation.to_arrow_table(), path)

    def stream(
        self, query_name: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None
    ) -> Iterator[pa.Table]:
        """See `ml.engine.Engine.stream`. What does not fit into memory (a sort, a window) spills to disk."""
        with _relation(query_name, tables, values or {}) as (relation, path):
            for batch in relation.to_arrow_reader(BATCH_ROWS):
                yield types.to_plain(pa.Table.from_batches([batch]), path)

    def digest(self, rows: Table, by: str) -> dict[Any, str]:
        """See `ml.engine.Engine.digest`."""
        schema = rows.projected_schema if isinstance(rows, ds.Scanner) else rows.schema
        with _connect() as connection:
            connection.register("rows_to_digest", rows)
            try:
                result = connection.sql(digest.digest_sql(schema, "rows_to_digest", by, "duckdb")).to_arrow_table()
            except (duckdb.Error, pa.ArrowException) as error:
                raise QueryError(f"digest by {by}: DuckDB: {error}") from error
        return digest.read_digests(result, by)


@contextmanager
def _relation(
    query_name: str, tables: Mapping[str, Table], values: Mapping[str, Value]
) -> Iterator[tuple[duckdb.DuckDBPyRelation, str]]:
    """The query's result, not computed yet, and the path of its file for errors."""
    loaded = query.load(query_name)
    loaded.check(tables, values)
    with _connect() as connection:
        for name in loaded.tables:
            connection.register(name, tables[name])
        try:
            yield connection.sql(loaded.duckdb, params=dict(values)), str(loaded.path)
        except (duckdb.Error, pa.ArrowException) as error:
            raise QueryError(f"{loaded.path}: DuckDB: {error}") from error


def _connect() -> duckdb.DuckDBPyConnection:
    spill = Path(tempfile.gettempdir()) / f"ml-duckdb-{os.getpid()}"
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",  # queries need no extension outside the wheel; nothing is downloaded
            "temp_directory": str(spill),
            "preserve_insertion_order": "false",  # saves memory; every query orders its result itself
        }
    )
    connection.execute("SET memory_limit = ?", [os.environ.get("ML_MEMORY_LIMIT") or MEMORY_LIMIT])
    connection.execute(
        "SET TimeZone = 'UTC'"
    )  # else timestamps are read, and assigned to days, in the machine's time zone
    return connection
