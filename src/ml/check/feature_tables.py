"""Checks a feature table: one row per entity as of a day, computed from nothing that came after that day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING

from ml.check.days import CUTOFFS
from ml.check.futures import other_futures, until
from ml.check.queries import Queries, Use
from ml.check.text import Text
from ml.config import FeatureTableConfig, Project
from ml.config.project import feature_file, source_file
from ml.features.inputs import NOT_OF_A_SNAPSHOT
from ml.graph import Contents

if TYPE_CHECKING:
    import pyarrow as pa

WITHOUT = "without the rows after it"


def table_files(project: Project, table: FeatureTableConfig) -> tuple[str, ...]:
    """The files that a feature table's rows depend on."""
    sources = [project.source_by_table[name] for name in table.inputs if name in project.source_by_table]
    files = [feature_file(table.table), f"include/sql/{table.query}.sql"]
    for source in sources:
        queries = (source.clean.query, *source.daily.values())
        files += [source_file(source.source), *(f"include/sql/{name}.sql" for name in queries)]
    return tuple(dict.fromkeys(files))


def check_feature_table(
    queries: Queries, project: Project, table: FeatureTableConfig, silver: Mapping[str, pa.Table]
) -> pa.Table | None:
    """Check a feature table's query. Returns its rows as of both cut-offs; None when they cannot be computed."""
    import pyarrow as pa

    shorts = {name.rpartition(".")[2]: f"inputs.{name}" for name in table.inputs}
    use = Use(
        feature_file(table.table), "query", table.query, shorts, table_files(project, table),
        table.settings, "settings", given=("as_of",), needed=tuple(shorts),
    )  # fmt: skip
    text = queries.load(use)
    if text is None or any(name not in silver for name in table.inputs):
        return None
    results: list[pa.Table] = []
    looks_past = False
    for day in CUTOFFS:
        rows = _rows_as_of(queries, project, table, silver, use, text, day)
        if rows is None:
            return None
        looks_past = looks_past or _looks_past(queries, project, table, silver, use, text, day, rows)
        results.append(rows)
    rows = pa.concat_tables(results)
    if not rows.num_rows:
        queries.findings.notes.append(
            f"{use.sql}: it gives no row for the generated ones, so it was not checked whether it looks past as_of"
        )
    return rows


def _rows_as_of(
    queries: Queries, project: Project, table: FeatureTableConfig, silver: Mapping[str, pa.Table], use: Use, text: Text,
    day: date,
) -> pa.Table | None:  # fmt: skip
    keys = (table.entity, "as_of")
    rows = queries.compare_engines(use, text, _inputs(project, table, silver, day), {"as_of": day}, keys)
    return rows if rows is not None and _has_keys(queries, use, table, rows, day) else None


def _looks_past(
    queries: Queries, project: Project, table: FeatureTableConfig, silver: Mapping[str, pa.Table], use: Use, text: Text,
    day: date, rows: pa.Table,
) -> bool:  # fmt: skip
    """Whether the rows of a day are others in another future; which is then among the findings."""
    keys = (table.entity, "as_of")
    for name, future in _futures(project, table, silver, day):
        other = queries.run(use, text, _inputs(project, table, future, day, limited=False), {"as_of": day})
        why = "it looks past as_of: …; read only rows WHERE day <= :as_of"
        if not queries.same_as(use, rows, other, keys, (WITHOUT, name), why):
            return True
    return False


def _inputs(
    project: Project, table: FeatureTableConfig, silver: Mapping[str, pa.Table], day: date, *, limited: bool = True
) -> dict[str, pa.Table]:
    """What the query gets, by short name: facts within the window, and each snapshot as known on the day."""
    import pyarrow.compute as pc

    inputs = {}
    for name, edge in table.inputs.items():
        rows = silver[name]
        if project.source_of(name).kind == "snapshot":
            contents = Contents({each: str(each) for each in pc.unique(rows["day"]).to_pylist()})
            in_force = contents.in_force(day, edge.max_age)
            rows = rows.filter(pc.equal(rows["day"], in_force)) if in_force else rows.slice(0, 0)
            rows = rows.drop_columns([each for each in NOT_OF_A_SNAPSHOT if each in rows.schema.names])
        else:
            back = edge.window.back if edge.window else None
            if back is not None:
                rows = rows.filter(pc.greater(rows["day"], day - timedelta(back)))
            rows = until(rows, day) if limited else rows
        inputs[name.rpartition(".")[2]] = rows
    return inputs


def _futures(
    project: Project, table: FeatureTableConfig, silver: Mapping[str, pa.Table], day: date
) -> list[tuple[str, dict[str, pa.Table]]]:
    """Other futures of all facts together, and of the snapshots: newer ones have no influence."""
    futures: list[tuple[str, dict[str, pa.Table]]] = []
    by_table = {name: list(other_futures(silver[name], day)) for name in table.inputs}
    kinds = {name: project.source_of(name).kind for name in table.inputs}
    for place in range(max(map(len, by_table.values()))):
        tables = {
            name: versions[min(place, len(versions) - 1)][1] if kinds[name] == "facts" else silver[name]
            for name, versions in by_table.items()
        }
        facts = next((versions for name, versions in by_table.items() if kinds[name] == "facts"), None)
        if facts is not None:
            futures.append((facts[min(place, len(facts) - 1)][0], tables))
    for name, versions in by_table.items():
        if kinds[name] == "snapshot" and until(silver[name], day).num_rows:
            limited = {
                each: until(rows, day) if kinds[each] == "facts" else rows
                for each, rows in silver.items()
                if each in by_table
            }
            futures += [(f"with other snapshots of {name} after it", limited | {name: rows}) for _, rows in versions]
    return futures


def _has_keys(queries: Queries, use: Use, table: FeatureTableConfig, rows: pa.Table, day: date) -> bool:
    """Whether there is one row per entity, as of the day."""
    import pyarrow.compute as pc

    for name in (table.entity, "as_of"):
        if name not in rows.schema.names:
            queries.add(use, f"it gives no column {name}, which is part of the table's key; add it")
            return False
    if str(rows.schema.field("as_of").type) != "date32[day]":
        queries.add(use, f"it gives as_of as {rows.schema.field('as_of').type}; write CAST(:as_of AS DATE) AS as_of")
        return False
    if set(pc.unique(rows["as_of"]).to_pylist()) - {day}:
        queries.add(use, "it gives rows as of another day; write CAST(:as_of AS DATE) AS as_of")
        return False
    values = rows[table.entity].to_pylist()
    if repeated := len(values) - len(set(values)):
        example = next(value for value in values if values.count(value) > 1)
        queries.add(
            use,
            f"it gives {repeated} rows too many, such as for {table.entity} {example}; group by {table.entity} alone",
        )
        return False
    if None in values:
        queries.add(use, f"it gives a row without {table.entity}; leave out rows WHERE {table.entity} IS NULL")
        return False
    return True
