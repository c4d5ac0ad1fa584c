"""Both engines for the checks: DuckDB in this process, and Spark where there is one, or Sail where it is installed."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml.engine import Engine, open_engine

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.engine.interface import Value


@dataclass(frozen=True)
class Engines:
    """`spark` is None where no Spark can be reached; `why_no_spark` then says why, for people."""

    duckdb: Engine
    spark: Engine | None
    why_no_spark: str = ""

    @property
    def names(self) -> list[str]:
        return ["duckdb", "spark"] if self.spark else ["duckdb"]

    def run(self, query: str, tables: Mapping[str, pa.Table], values: Mapping[str, Value]) -> pa.Table:
        """The result on DuckDB. Raises QueryError."""
        return self.duckdb.run(query, tables, values)


@contextmanager
def open_engines(*, spark: bool = True) -> Iterator[Engines]:
    """Both engines. Spark is what `SPARK_REMOTE` names or this process has a session of; else a Sail server started here."""
    duckdb = open_engine("duckdb")
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pyspark about the version of pandas
        if not spark:
            yield Engines(duckdb, None, "not requested")
        elif not _is_installed("pyspark"):
            yield Engines(duckdb, None, "pyspark is not installed here")
        elif "SPARK_REMOTE" not in os.environ and not _has_session() and not _is_installed("pysail"):
            yield Engines(duckdb, None, "SPARK_REMOTE is not set, and pysail is not installed here")
        else:
            yield Engines(duckdb, stack.enter_context(_open_spark()))


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _has_session() -> bool:
    from pyspark.sql import SparkSession

    return SparkSession.getActiveSession() is not None


@contextmanager
def _open_spark() -> Iterator[Engine]:
    with ExitStack() as stack:
        shared = _has_session()
        if not shared and "SPARK_REMOTE" not in os.environ:
            stack.enter_context(_serve())
        engine: Any = open_engine("spark")
        if not shared:
            stack.callback(engine.session.stop)
        yield engine


@contextmanager
def _serve() -> Iterator[None]:
    """A Sail server in this process, which `SPARK_REMOTE` names meanwhile."""
    os.environ.setdefault("RUST_LOG", "error")  # else it logs every session on the terminal
    from pysail.spark import SparkConnectServer  # type: ignore[import-untyped]

    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start(background=True)
    address, port = server.listening_address
    os.environ["SPARK_REMOTE"] = f"sc://{address}:{port}"
    try:
        yield
    finally:
        del os.environ["SPARK_REMOTE"]
        server.stop()
