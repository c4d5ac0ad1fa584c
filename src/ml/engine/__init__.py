"""Runs the SQL of `include/sql/`: on DuckDB on one machine, on Spark on several; same text, same rows.

Queries are Spark SQL. A query names its input tables without a schema (`FROM transactions`) and its parameters as
`:name`; both are bound when it runs, never inserted into the text. A query ends in `ORDER BY` its keys, so that both
engines return the same table, row for row (tests/ml/engine/test_parity.py).
"""

from __future__ import annotations

import os

from ml.engine.digest import EMPTY_DIGEST
from ml.engine.interface import Engine, QueryError

__all__ = ["EMPTY_DIGEST", "KINDS", "Engine", "QueryError", "open_engine"]

KINDS = ("duckdb", "spark")


def open_engine(kind: str | None = None) -> Engine:
    """The engine of a kind ('duckdb' or 'spark'; default: what `ML_ENGINE` names, else DuckDB). Raises QueryError."""
    kind = kind or os.environ.get("ML_ENGINE") or "duckdb"
    if kind == "duckdb":
        from ml.engine.on_duckdb import DuckDBEngine

        return DuckDBEngine()
    if kind == "spark":
        from ml.engine.on_spark import SparkEngine

        return SparkEngine()
    raise QueryError(f"ML_ENGINE: found {kind!r}; allowed: {', '.join(KINDS)}")
