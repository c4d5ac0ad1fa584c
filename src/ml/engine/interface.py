"""The interface of every engine, and the error that it raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    Table: TypeAlias = pa.Table | ds.Dataset | ds.Scanner

Value: TypeAlias = date | int | float | str | bool


class Engine(Protocol):
    """Runs queries. It keeps no tables between queries, so threads may share it."""

    def run(self, query: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None) -> pa.Table:
        """Run `include/sql/<query>.sql` over named tables with its `:name` parameters bound to `values`.

        A table is in memory (`pa.Table`) or lazy (`Dataset`, whose `filter(…)` reaches the scan; `Scanner`, whose
        columns are computed while it is read). The result has only columns of the types bool, int64, float64, date32,
        timestamp[us, UTC], string and list<string>. Raises QueryError naming the query and the cause.
        """

    def stream(
        self, query: str, tables: Mapping[str, Table], values: Mapping[str, Value] | None = None
    ) -> Iterator[pa.Table]:
        """The same rows in pieces, in the query's order: for results larger than memory."""

    def digest(self, rows: Table, by: str) -> dict[Any, str]:
        """The digest (32 hex digits) of the rows of each value of column `by`: see `ml.engine.digest`.

        A value without rows has none; EMPTY_DIGEST stands for it.
        """


class QueryError(RuntimeError):
    """A query that cannot run; the message names its file and the cause."""
