"""What runs the SQL of `include/sql/`: DuckDB on one machine, Spark past one; same text, same rows.

Queries are Spark SQL. A query names its input tables plainly (`FROM transactions`) and its parameters
as `:name`; both are bound when it runs, never pasted into the text. A query ends in `ORDER BY` its
keys, so that both engines return the same table, row for row (tests/ml/engine/test_parity.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    Table: TypeAlias = pa.Table | ds.Dataset | ds.Scanner

Value: TypeAlias = date | int | float | str | bool

KINDS = ("duckdb", "spark")


class Engine(Protocol):
    """Runs one query at a time; holds no tables between queries, so threads may share it."""

    def run(self, query: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None) -> pa.Table:
        """Run `include/sql/<query>.sql` over named tables with its `:name` parameters bound to `values`.

        A table is in memory (`pa.Table`) or lazy (`Dataset`; narrow one with `dataset.filter(…)`: the
        filter reaches the scan; `Scanner`: its columns are computed while it is read). The result's columns are only ever bool, int64, float64, date32,
        timestamp[us, UTC], string and list<string>. Raises QueryError naming the query and the cause.
        """

    def stream(
        self, query: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None
    ) -> Iterator[pa.Table]:
        """The same rows a piece at a time, in the query's order: for results larger than memory."""


class QueryError(RuntimeError):
    """A query that cannot run; the message names its file and what was wrong."""


def open_engine(kind: str | None = None) -> Engine:
    """The engine called `kind` ('duckdb' or 'spark'), else the one `ML_ENGINE` names, else DuckDB."""
    kind = kind or os.environ.get("ML_ENGINE") or "duckdb"
    if kind == "duckdb":
        from ml.engine.on_duckdb import DuckDBEngine

        return DuckDBEngine()
    if kind == "spark":
        from ml.engine.on_spark import SparkEngine

        return SparkEngine()
    raise QueryError(f"ML_ENGINE: found {kind!r}; allowed: {', '.join(KINDS)}")
