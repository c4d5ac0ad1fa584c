"""The columns of a source's tables in silver, found by running its queries over no rows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ml.config import SourceConfig
from ml.engine import QueryError, open_engine, query
from ml.errors import StageError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    from ml.engine.interface import Value

log = logging.getLogger(__name__)

NOT_OF_SILVER = ("_id", "outcome", "refused_column", "reason", "remedy")  # columns of the cleaning query's result


def with_added_columns(rows: ds.Dataset, source: SourceConfig, table: str) -> ds.Dataset:
    """A version of one of a source's tables with every column that its queries give now.

    A column that was added later is NULL in it: nothing is ingested since, or the version is older.
    """
    import pyarrow as pa

    try:
        key = (source.model_dump_json(), table, _texts(source, table))
        if key not in _fields:
            _fields[key] = list(empty_table(source, table).schema)
    except StageError as error:  # ingestion refuses such a source; what it has stored can be read
        log.warning("%s: columns that were added later are not known: %s", table, error)
        return rows
    added = [field for field in _fields[key] if field.name not in rows.schema.names]
    return rows.replace_schema(pa.schema([*rows.schema, *added])) if added else rows


_fields: dict[tuple[str, str, str], list[pa.Field]] = {}  # by source, table and the texts of the queries that give them


def _texts(source: SourceConfig, table: str) -> str:
    names = [source.clean.query, *([source.daily[table]] if table in source.daily else [])]
    try:
        return "\n".join(query.load(name).spark for name in names)
    except QueryError as error:
        raise StageError(f"sources/{source.source}.yaml: {error}") from error


def empty_table(source: SourceConfig, table: str) -> pa.Table:
    """One of a source's tables without rows, as if nothing had been ingested yet. Raises StageError for a query that fails."""
    import pyarrow as pa

    received: dict[str, pa.DataType] = dict.fromkeys(source.columns, pa.string())
    numbered = {"_id": pa.int64(), "_day": pa.date32(), "_file": pa.string(), "_row": pa.int64()}
    bronze = pa.schema(received | numbered).empty_table()
    try:
        values: dict[str, Value] = {"timezone": source.timezone, **source.clean.settings}
        parameters = query.load(source.clean.query).parameters
        used = {name: value for name, value in values.items() if name in parameters}
        cleaned = open_engine().run(source.clean.query, {"bronze": bronze}, used)
        silver = cleaned.drop_columns([name for name in NOT_OF_SILVER if name in cleaned.schema.names])
        if table == source.table:
            return silver
        return open_engine().run(source.daily[table], {source.source: silver})
    except QueryError as error:
        raise StageError(f"sources/{source.source}.yaml: {error}") from error
