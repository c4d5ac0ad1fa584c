"""Queries on DuckDB: in this process, over Arrow memory and Delta files, in parallel, spilling when it must."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from ml.engine import QueryError, query, types

if TYPE_CHECKING:
    from ml.engine import Table, Value

# Half of the machine unless told: the process beside it (a worker, the database, a model server) keeps the
# rest, and what needs more spills to disk.
MEMORY_LIMIT = "50%"
STREAMED_ROWS = 50_000


class DuckDBEngine:
    """Each query has a connection of its own (about 1 ms): nothing is shared and nothing is left behind."""

    def run(self, query_name: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None) -> pa.Table:
        """See `ml.engine.Engine.run`."""
        with _asked(query_name, tables, values or {}) as (found, path):
            return types.plain(found.to_arrow_table(), path)

    def stream(
        self, query_name: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None
    ) -> Iterator[pa.Table]:
        """See `ml.engine.Engine.stream`. What does not fit into memory (a sort, a window) is on disk meanwhile."""
        with _asked(query_name, tables, values or {}) as (found, path):
            for batch in found.to_arrow_reader(STREAMED_ROWS):
                yield types.plain(pa.Table.from_batches([batch]), path)


@contextmanager
def _asked(
    query_name: str, tables: Mapping[str, Table], values: Mapping[str, Value]
) -> Iterator[tuple[duckdb.DuckDBPyRelation, str]]:
    """The query's result, not computed yet, and the file that its errors name."""
    asked = query.load(query_name)
    asked.check(tables, values)
    with _connect() as connection:
        for name in asked.tables:
            connection.register(name, tables[name])
        try:
            yield connection.sql(asked.duckdb, params=dict(values)), str(asked.path)
        except (duckdb.Error, pa.ArrowException) as error:
            raise QueryError(f"{asked.path}: DuckDB: {error}") from error


def _connect() -> duckdb.DuckDBPyConnection:
    spill = Path(tempfile.gettempdir()) / f"ml-duckdb-{os.getpid()}"
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",  # what a query needs is in the wheel; nothing is downloaded
            "temp_directory": str(spill),
            "preserve_insertion_order": "false",  # every query orders its result itself; saves memory
        }
    )
    connection.execute("SET memory_limit = ?", [os.environ.get("ML_MEMORY_LIMIT") or MEMORY_LIMIT])
    connection.execute("SET TimeZone = 'UTC'")  # else a timestamp is read and cut into days in the machine's zone
    return connection
