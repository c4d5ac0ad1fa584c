"""The Spark engine for tests, on whatever Spark there is, and queries on both engines."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from ml.engine import Engine, open_engine


@pytest.fixture(scope="session")
def spark() -> Iterator[Engine]:
    """What `SPARK_REMOTE` names; else a Sail server started here; else, where Sail is not installed, a JVM."""
    with pytest.MonkeyPatch.context() as environment:
        server = None
        if "SPARK_REMOTE" not in os.environ and importlib.util.find_spec("pysail"):
            from pysail.spark import SparkConnectServer

            server = SparkConnectServer(ip="127.0.0.1", port=0)
            server.start(background=True)
            address, port = server.listening_address
            environment.setenv("SPARK_REMOTE", f"sc://{address}:{port}")
        engine = open_engine("spark")
        yield engine
        engine.session.stop()  # type: ignore[attr-defined]
        if server:
            server.stop()


@pytest.fixture(scope="session")
def both(spark: Engine) -> Callable[..., pa.Table]:
    """Run a query on both engines, compare their results, and return the common one."""
    duckdb = open_engine("duckdb")

    def run(query: str, tables: dict[str, pa.Table], **values: Any) -> pa.Table:
        of_duckdb, of_spark = (engine.run(query, tables, values) for engine in (duckdb, spark))
        assert of_duckdb.schema == of_spark.schema
        assert of_duckdb.num_rows == of_spark.num_rows
        for name in of_duckdb.column_names:
            assert of_duckdb[name].to_pylist() == of_spark[name].to_pylist(), name
        return of_duckdb

    return run
