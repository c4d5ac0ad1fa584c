"""Checks the queries of a source: the outcome of every received row, and the daily tables made from the clean ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.check import arrivals, typed
from ml.check.days import fact_days, snapshot_days
from ml.check.queries import Queries, Use
from ml.check.text import Text
from ml.config import Project, SourceConfig
from ml.config.project import source_file

if TYPE_CHECKING:
    import pyarrow as pa

OUTCOMES = ("silver", "quarantined", "duplicate")
OUTCOME_COLUMNS = {
    "_id": "int64",
    "outcome": "string",
    "refused_column": "string",
    "reason": "string",
    "remedy": "string",
}
ROW_COLUMNS = {"day": "date32[day]", "_file": "string", "_row": "int64"}
NAMES = ("among all days", "alone")


class _QueryFailedError(RuntimeError):
    """The cleaning query failed on a generated row; the finding says why."""


def check_source(
    queries: Queries, project: Project, source: SourceConfig, numbers: Iterable[Any], literals: Iterable[str]
) -> dict[str, pa.Table]:
    """Check a source's queries. Returns generated rows of each silver table that could be computed, by full name.

    `numbers` and `literals` are those of the queries and settings built on the source: spans of days among the numbers get
    days at their edges, and the literals are values that columns may have.
    """
    use = Use(
        source_file(source.source), "clean.query", source.clean.query, {"bronze": "columns"}, (),
        source.clean.settings, "clean.settings", given=("timezone",), needed=("bronze",),
    )  # fmt: skip
    daily = {
        table: (each, queries.load(each))
        for table, name in source.daily.items()
        for each in [_daily_use(source, table, name)]
    }
    text = queries.load(use)
    if text is None:
        return {}
    try:
        rows = _clean(queries, project, source, use, text, list(numbers), [*text.texts, *literals])
    except _QueryFailedError:
        return {}
    if rows is None:
        return {}
    tables = {source.table: rows}
    for table, (daily_use, daily_text) in daily.items():
        if daily_text is not None and (result := _make_daily(queries, source, daily_use, daily_text, rows)) is not None:
            tables[table] = result
    return tables


def _daily_use(source: SourceConfig, table: str, query: str) -> Use:
    files = (f"include/sql/{source.clean.query}.sql",)
    key = f"daily.{table}"
    return Use(source_file(source.source), key, query, {source.source: key}, files, needed=(source.source,))


def _clean(
    queries: Queries,
    project: Project,
    source: SourceConfig,
    use: Use,
    text: Text,
    numbers: Sequence[Any],
    literals: Sequence[str],
) -> pa.Table | None:
    values = {"timezone": source.timezone}

    def run(bronze: pa.Table) -> pa.Table:
        result = queries.run(use, text, {"bronze": bronze}, values)
        if result is None:
            raise _QueryFailedError
        return result

    schema = run(arrivals.bronze_rows(source.column_names, [])).schema
    if not _gives_what_ingestion_needs(queries, source, use, schema):
        return None
    keys, ids = _keys_of(project, source)
    accepted = arrivals.find_accepted(source.column_names, ids, literals, source.clean.settings, run)
    days = snapshot_days() if source.kind == "snapshot" else fact_days(numbers)
    if accepted is None:
        queries.findings.notes.append(
            f"{use.sql}: it accepts no generated row, so what is built on {source.table} was checked with rows that "
            "have its types only"
        )
        silver = _silver_schema(schema)
        return typed.typed_rows(silver, days, literals, ids, source.timezone, source.required_columns)
    make = arrivals.snapshot_rows if source.kind == "snapshot" else arrivals.fact_rows
    received = make(accepted, keys or ids[:1], days)
    result = queries.compare_engines(use, text, {"bronze": received}, values, ("_id",))
    if result is None or not _is_complete(queries, use, received, result):
        return None
    _check_days_alone(queries, use, text, "bronze", "_day", received, result, values)
    return _accepted_rows(result)


def _keys_of(project: Project, source: SourceConfig) -> tuple[list[str], list[str]]:
    """Columns by which features or scores are made, and all columns that hold ids or are joined to another source."""
    entities = {table.entity for table in project.feature_tables.values()}
    entities |= {model.entity for model in project.models.values()}
    others = {name for other in project.sources.values() if other is not source for name in other.columns}
    keys = [name for name in source.columns if name in entities]
    ids = [name for name in source.columns if name in others or name == "id" or name.endswith("_id")]
    return keys, list(dict.fromkeys([*keys, *ids]))


def _gives_what_ingestion_needs(queries: Queries, source: SourceConfig, use: Use, schema: pa.Schema) -> bool:
    before = len(queries.findings.problems)
    needed = OUTCOME_COLUMNS | ROW_COLUMNS
    right = True
    for name, kind in needed.items():
        if name not in schema.names:
            queries.add(use, f"it gives no column {name}; ingestion needs {', '.join(needed)}: add it")
            right = False
        elif str(schema.field(name).type) != kind:
            queries.add(use, f"it gives {name} as {schema.field(name).type}; cast it to {kind}")
            right = False
    if repeated := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        queries.add(use, f"it gives {', '.join(repeated)} more than once; name each column once")
        right = False
    if source.time is not None and source.time not in schema.names:
        message = f"{use.sql} gives no column {source.time}; it gives {', '.join(_silver_schema(schema).names)}"
        queries.findings.add(use.file, "time", message, use.sql)
    elif source.time is not None and "timestamp" not in str(schema.field(source.time).type):
        message = f"{use.sql} gives {source.time} as {schema.field(source.time).type}; cast it to a timestamp"
        queries.findings.add(use.file, "time", message, use.sql)
    return right and (len(queries.findings.problems) == before or right)


def _silver_schema(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([field for field in schema if field.name not in OUTCOME_COLUMNS])


def _accepted_rows(result: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    return result.filter(pc.equal(result["outcome"], "silver")).select(_silver_schema(result.schema).names)


def _is_complete(queries: Queries, use: Use, received: pa.Table, result: pa.Table) -> bool:
    """Whether each received row has exactly one outcome, with reason and remedy where it is refused."""
    import pyarrow.compute as pc

    if result["_id"].to_pylist() != received["_id"].to_pylist():
        queries.add(
            use,
            f"it gives {result.num_rows} rows for {received.num_rows} received ones, or in another order; each received "
            "row needs exactly one outcome, ordered by _id",
        )
        return False
    if others := set(pc.unique(result["outcome"]).to_pylist()) - set(OUTCOMES):
        queries.add(use, f"it gives the outcomes {sorted(map(str, others))}; allowed are {', '.join(OUTCOMES)}")
        return False
    refused = result.filter(pc.equal(result["outcome"], "quarantined"))
    for name in ("refused_column", "reason", "remedy"):
        if missing := refused[name].null_count:
            queries.add(
                use, f"{missing} refused rows have no {name}; every refusal says which column, why, and what to do"
            )
    return True


def _check_days_alone(
    queries: Queries, use: Use, text: Text, table: str, column: str, rows: pa.Table, result: pa.Table, values: Any
) -> None:
    """A day that comes alone must give the rows that it gives among others: days arrive in any company."""
    import pyarrow as pa
    import pyarrow.compute as pc

    days: list[date] = sorted(pc.unique(rows[column]).to_pylist())
    chosen = pa.array(days[::3], pa.date32())
    alone = rows.filter(pc.is_in(rows[column], chosen))
    if "_id" in rows.schema.names:
        alone = alone.set_column(rows.schema.get_field_index("_id"), "_id", pa.array(range(alone.num_rows), pa.int64()))
    expected = result.filter(pc.is_in(result["day"], chosen))
    other = queries.run(use, text, {table: alone}, values)
    if other is None:
        return
    names = [name for name in expected.schema.names if name != "_id"]
    queries.same_as(
        use, expected.select(names), other.select(names), ("day", "_file", "_row"), NAMES,
        "a day depends on the rows of other days: …; partition every window, join and group by the day",
    )  # fmt: skip


def _make_daily(queries: Queries, source: SourceConfig, use: Use, text: Text, rows: pa.Table) -> pa.Table | None:
    tables = {source.source: rows}
    result = queries.compare_engines(use, text, tables, {}, ("day",))
    if result is None:
        return None
    if "day" not in result.schema.names or str(result.schema.field("day").type) != ROW_COLUMNS["day"]:
        queries.add(use, "it gives no column day of type date; a daily table is partitioned by it, so add it")
        return None
    _check_days_alone(queries, use, text, source.source, "day", rows, result, {})
    return result
