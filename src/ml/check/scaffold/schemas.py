"""The columns that queries give, found by running them over no rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ml.check.arrivals import bronze_rows
from ml.check.days import CUTOFF
from ml.check.sources import OUTCOME_COLUMNS
from ml.config import FeatureTableConfig, Project, SourceConfig
from ml.engine import QueryError, open_engine, query
from ml.errors import StageError
from ml.features.inputs import NOT_OF_A_SNAPSHOT

if TYPE_CHECKING:
    import pyarrow as pa


def silver_schema(source: SourceConfig, table: str) -> pa.Schema:
    """The columns of a table of a source: its clean rows, or a daily table. Raises StageError."""
    bronze = bronze_rows(source.column_names, [])
    cleaned = _run(source.clean.query, {"bronze": bronze}, {"timezone": source.timezone, **source.clean.settings})
    silver = cleaned.drop_columns([name for name in OUTCOME_COLUMNS if name in cleaned.schema.names])
    if table == source.table:
        return silver.schema
    return _run(source.daily[table], {source.source: silver}, {}).schema


def feature_schema(project: Project, table: FeatureTableConfig) -> pa.Schema:
    """The columns of a feature table. Raises StageError."""
    inputs = {}
    for name in table.inputs:
        source = project.source_of(name)
        rows = silver_schema(source, name).empty_table()
        if source.kind == "snapshot":
            rows = rows.drop_columns([each for each in NOT_OF_A_SNAPSHOT if each in rows.schema.names])
        inputs[name.rpartition(".")[2]] = rows
    return _run(table.query, inputs, {"as_of": CUTOFF, **table.settings}).schema


def _run(name: str, tables: dict[str, pa.Table], values: dict[str, Any]) -> pa.Table:
    try:
        parameters = query.load(name).parameters
        return open_engine("duckdb").run(name, tables, {key: values[key] for key in values if key in parameters})
    except QueryError as error:
        raise StageError(f"{error}. Run check first") from error
