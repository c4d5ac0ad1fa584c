"""Queries on Spark: whichever session `SPARK_REMOTE` or the cluster gives.

Databricks (a job's own session, or Databricks Connect), any Spark Connect server such as Sail, or a
JVM in this process: `SparkSession.builder.getOrCreate()` finds it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from ml.engine import QueryError, query, types

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ml.engine import Table, Value


class SparkEngine:
    """Tables are sent as Arrow after their filter was applied, and seen by one query only."""

    def __init__(self) -> None:
        self.session = _session()
        self._one_at_a_time = threading.Lock()  # a session has one name space for temporary views

    def run(self, query_name: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None) -> pa.Table:
        """See `ml.engine.Engine.run`."""
        from pyspark.errors import PySparkException

        asked = query.load(query_name)
        asked.check(tables, values or {})
        views: list[str] = []
        with self._one_at_a_time:
            try:
                for name in asked.tables:
                    self._view(name, tables[name])
                    views.append(name)
                found = self.session.sql(asked.spark, args=dict(values or {})).toArrow()
            except PySparkException as error:
                raise QueryError(f"{asked.path}: Spark: {error}") from error
            finally:
                for name in views:
                    self.session.catalog.dropTempView(name)
        return types.plain(found, str(asked.path))

    def stream(
        self, query_name: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None
    ) -> Iterator[pa.Table]:
        """See `ml.engine.Engine.stream`. Past one machine, a driver holds the whole result first."""
        yield self.run(query_name, tables, values)

    def _view(self, name: str, table: Table) -> None:
        from pyspark.sql.pandas.types import from_arrow_schema

        rows = table if isinstance(table, pa.Table) else table.to_table()
        if not rows.num_rows:
            rows = rows.schema.empty_table()  # with an empty chunk: classic Spark cannot take a column of none
        schema = from_arrow_schema(rows.schema, prefer_timestamp_ntz=True)  # given: an empty table has none to infer
        self.session.createDataFrame(rows, schema=schema).createOrReplaceTempView(name)


def _session() -> SparkSession:
    from pyspark.sql import SparkSession

    session: SparkSession = SparkSession.builder.getOrCreate()
    session.conf.set("spark.sql.session.timeZone", "UTC")
    session.conf.set("spark.sql.ansi.enabled", "true")  # a cast that fails stops the query, as on DuckDB
    return session
