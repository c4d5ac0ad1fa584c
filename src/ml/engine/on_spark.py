"""Queries on Spark, in the session that `SPARK_REMOTE` or the cluster provides.

`SparkSession.builder.getOrCreate()` finds it: on Databricks (a job's own session, or Databricks Connect), on any Spark
Connect server such as Sail, or in a JVM in this process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from ml.engine import digest, query, types
from ml.engine.interface import QueryError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ml.engine.interface import Table, Value


class SparkEngine:
    """Tables are sent as Arrow after their filter was applied, and are visible to one query only."""

    def __init__(self) -> None:
        self.session = _session()
        self._lock = threading.Lock()  # a session has one name space for temporary views

    def run(self, query_name: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None) -> pa.Table:
        """See `ml.engine.Engine.run`."""
        from pyspark.errors import PySparkException

        loaded = query.load(query_name)
        loaded.check(tables, values or {})
        views: list[str] = []
        with self._lock:
            try:
                for name in loaded.tables:
                    self._create_view(name, tables[name])
                    views.append(name)
                result = self.session.sql(loaded.spark, args=dict(values or {})).toArrow()
            except PySparkException as error:
                raise QueryError(f"{loaded.path}: Spark: {error}") from error
            finally:
                for name in views:
                    self.session.catalog.dropTempView(name)
        return types.to_plain(result, str(loaded.path))

    def stream(
        self, query_name: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None
    ) -> Iterator[pa.Table]:
        """See `ml.engine.Engine.stream`. Here the driver holds the whole result first."""
        yield self.run(query_name, tables, values)

    def digest(self, rows: Table, by: str) -> dict[Any, str]:
        """See `ml.engine.Engine.digest`."""
        from pyspark.errors import PySparkException

        schema = rows.projected_schema if isinstance(rows, ds.Scanner) else rows.schema
        with self._lock:
            self._create_view("rows_to_digest", rows)
            try:
                result = self.session.sql(digest.digest_sql(schema, "rows_to_digest", by, "spark")).toArrow()
            except PySparkException as error:
                raise QueryError(f"digest by {by}: Spark: {error}") from error
            finally:
                self.session.catalog.dropTempView("rows_to_digest")
        return digest.read_digests(result, by)

    def _create_view(self, name: str, table: Table) -> None:
        from pyspark.sql.pandas.types import from_arrow_schema

        rows = table if isinstance(table, pa.Table) else table.to_table()
        if not rows.num_rows:
            rows = rows.schema.empty_table()  # with an empty chunk: classic Spark fails on a column without chunks
        schema = from_arrow_schema(
            rows.schema, prefer_timestamp_ntz=True
        )  # explicit: it cannot be inferred from an empty table
        self.session.createDataFrame(rows, schema=schema).createOrReplaceTempView(name)


def _session() -> SparkSession:
    from pyspark.sql import SparkSession

    session: SparkSession = SparkSession.builder.getOrCreate()
    session.conf.set("spark.sql.session.timeZone", "UTC")
    session.conf.set("spark.sql.ansi.enabled", "true")  # a cast that fails stops the query, as on DuckDB
    return session
