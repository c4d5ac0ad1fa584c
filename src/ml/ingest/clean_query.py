"""A source's cleaning query: what it is given, which columns it gives, and whether its result can be believed.

The query reads `bronze`: every column as text, trimmed, NULL where empty, and `_id`, `_day`, `_file`, `_row`. Its
parameters are the source's `clean.settings`, and `timezone` if it names that. It gives each row of bronze once, ordered
by `_id`, with its outcome: `silver`, `quarantined` (with reason and remedy) or `duplicate`. Its other columns are those
of the silver table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml.config import ConfigError, SourceConfig
from ml.config.load import config_path
from ml.engine import QueryError, open_engine, query
from ml.engine.types import TIMESTAMP
from ml.ingest import bronze

if TYPE_CHECKING:
    from ml.engine.interface import Table, Value

OUTCOMES = ("silver", "quarantined", "duplicate")
OUTCOME_TYPES = {"_id": pa.int64()} | dict.fromkeys(("outcome", "refused_column", "reason", "remedy"), pa.string())
ROW_TYPES = {"day": pa.date32(), "_file": pa.string(), "_row": pa.int64()}
RECEIVED_NAMES = {"day": "_day", "_file": "_file", "_row": "_row"}  # of the same columns in bronze
TIMEZONE = "timezone"  # the parameter that a source has besides its settings


@dataclass(frozen=True)
class CleanQuery:
    """A query that can be run: `silver` has the columns of the silver table, in the query's order."""

    name: str
    path: Path
    values: Mapping[str, Value]
    silver: pa.Schema

    def stream(self, rows: Table) -> Iterator[pa.Table]:
        """The outcome of each of the rows, in pieces; not checked yet."""
        return open_engine().stream(self.name, {"bronze": rows}, self.values)

    def check(self, piece: pa.Table, received: pa.Table) -> None:
        """Raise ConfigError unless a piece of the result is about exactly the `received` rows, and complete."""
        self._check_rows(piece["_id"], received)
        for name, received_name in RECEIVED_NAMES.items():
            if not piece[name].equals(received[received_name]):
                raise ConfigError(
                    f"{self.path}: {name} is not that of the row of bronze; give {received_name} unchanged"
                )
        unknown = set(pc.unique(piece["outcome"]).to_pylist()) - set(OUTCOMES)
        if unknown:
            names = ", ".join(sorted("NULL" if name is None else repr(name) for name in unknown))
            raise ConfigError(f"{self.path}: found the outcome {names}; allowed: {', '.join(OUTCOMES)}")
        refused = piece.filter(pc.equal(piece["outcome"], "quarantined"))
        for name in ("reason", "remedy"):
            if refused[name].null_count:
                raise ConfigError(f"{self.path}: a refused row has no {name}; each needs one")

    def _check_rows(self, ids: pa.ChunkedArray, received: pa.Table) -> None:
        expected, given = received["_id"].to_numpy(), ids.to_numpy()
        same = expected == given[: len(expected)] if len(expected) <= len(given) else np.zeros(0, bool)
        if len(expected) == len(given) and same.all():
            return
        place = int(np.argmin(same)) if not same.all() else len(expected)
        at = f"row {received['_row'][place]} of {received['_file'][place]}" if place < len(expected) else "the last row"
        raise ConfigError(
            f"{self.path}: gives no outcome for {at}, or more than one, or in another order: every row of bronze is needed "
            "once, ordered by _id"
        )

    def lost(self, rows: int) -> ConfigError:
        """The error of a query that ends `rows` rows of bronze too early."""
        return ConfigError(
            f"{self.path}: gives no outcome for the last {rows} rows of bronze; every row is needed once"
        )


def load_clean_query(source: SourceConfig) -> CleanQuery:
    """A source's query, run once over no rows for the columns that it gives.

    Raises ConfigError for a query that is missing or gives other columns than ingestion needs, and for settings that it
    does not use or that are missing.
    """
    name = source.clean.query
    values: dict[str, Value] = dict(source.clean.settings)
    if TIMEZONE in values:
        raise ConfigError(f"{_place(source)}: clean.settings.{TIMEZONE}: the source's own timezone has this name")
    if TIMEZONE in check_query(name).parameters:
        values[TIMEZONE] = source.timezone
    loaded = check_query(name, {"bronze"}, values)
    numbered = bronze.schema(source).append(pa.field("_id", pa.int64())).empty_table()
    given = open_engine().run(name, {"bronze": numbered}, values).schema
    _check_columns(source, loaded.path, given)
    silver = pa.schema(field for field in given if field.name not in OUTCOME_TYPES)
    return CleanQuery(name, loaded.path, values, silver)


def check_query(
    name: str, tables: Collection[str] | None = None, values: Mapping[str, Any] | None = None
) -> query.Query:
    """Load a query; when `tables` are given, check that it reads no others and needs exactly `values`.

    Raises ConfigError: a query that is wrong stays wrong, so its run is not retried.
    """
    try:
        loaded = query.load(name)
        if tables is not None:
            loaded.check(tables, values or {})
    except QueryError as error:
        raise ConfigError(str(error)) from error
    return loaded


def _place(source: SourceConfig) -> str:
    return str(config_path("source", source.name))


def _check_columns(source: SourceConfig, path: Path, given: pa.Schema) -> None:
    """Raise ConfigError unless the query gives what ingestion needs, with the right types."""
    if repeated := sorted({name for name in given.names if given.names.count(name) > 1}):
        raise ConfigError(f"{path}: gives {', '.join(repeated)} more than once")
    needed = OUTCOME_TYPES | ROW_TYPES
    if missing := [name for name in needed if name not in given.names]:
        raise ConfigError(f"{path}: gives no {', '.join(missing)}; found {', '.join(given.names)}")
    if source.time is not None:
        if source.time not in given.names:
            columns = ", ".join(_silver_columns(given))
            raise ConfigError(f"{_place(source)}: time: {path} gives no column {source.time}; found {columns}")
        needed |= {source.time: TIMESTAMP}
    for name, kind in needed.items():
        if given.field(name).type != kind:
            raise ConfigError(f"{path}: {name} is {given.field(name).type}; {kind} is needed")


def _silver_columns(given: pa.Schema) -> Iterable[str]:
    return (name for name in given.names if name not in OUTCOME_TYPES)
