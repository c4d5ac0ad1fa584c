"""The tables that a query gets for one day, lazily, from pinned versions of the tables in silver.

A query sees facts up to the day, within the window of its edge, and none after it, whatever it does. Of a snapshot it
sees the rows as known on the day: those of the newest one up to the day, without the columns that say where a row came
from. Before the first snapshot the first one counts, and the log says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from ml.config import Edge, FeatureTableConfig, Project, SourceConfig
from ml.errors import StageError
from ml.features.silver_schema import empty_table, with_added_columns
from ml.graph import Contents
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import DeltaTable

log = logging.getLogger(__name__)

NOT_OF_A_SNAPSHOT = ("day", "_file", "_row")  # columns of a snapshot in silver that no query gets
INPUTS = "_inputs"  # column of a training set: the version of each table that the rows were built from, as JSON text


def pin_versions(project: Project, names: Iterable[str], may_be_absent: Collection[str] = ()) -> dict[str, int]:
    """The newest version of each of these tables in silver.

    Raises StageError for one that does not exist, unless it `may_be_absent`: then it has no version.
    """
    versions = {}
    for name in dict.fromkeys(names):
        if tables.exists(name):
            versions[name] = tables.table(name).version()
        elif name not in may_be_absent:
            source = project.source_of(name).source
            raise StageError(
                f"{name} does not exist at {tables.uri(name)}: no day of the source {source} is ingested. "
                f"Run ingest --source {source} first"
            )
    return versions


def absent_tables(table: FeatureTableConfig) -> list[str]:
    """The inputs without which days are built, too: a source that has not sent anything yet holds nothing up."""
    return [name for name, edge in table.inputs.items() if edge.missing == "carry" or edge.wait_until is not None]


def recorded_versions(rows: pa.Table, where: str) -> dict[str, int]:
    """The table versions that all rows of a training set name. Raises StageError unless they name one set of versions.

    Training sets of releases before 0.3 name one table in silver, in a column `<short name>_version`.
    """
    import pyarrow.compute as pc

    if INPUTS in rows.schema.names:
        texts = pc.unique(rows[INPUTS]).to_pylist()
        if len(texts) == 1 and texts[0] is not None:
            versions: dict[str, int] = json.loads(texts[0])
            return versions
        raise StageError(f"{where}: all rows must name the same table versions in {INPUTS}; found {texts[:3]}")
    versions = {}
    for name in before_0_3_columns(rows.schema.names):
        numbers = pc.unique(rows[name]).to_pylist()
        if len(numbers) != 1 or numbers[0] is None:
            raise StageError(f"{where}: all rows must name one version in {name}; found {numbers[:3]}")
        versions[f"silver.{name.removesuffix('_version')}"] = int(numbers[0])
    if not versions:
        raise StageError(f"{where}: no column {INPUTS} names the table versions that the rows were built from")
    return versions


def before_0_3_columns(names: Iterable[str]) -> list[str]:
    """The columns of a training set written before release 0.3 that name a version of a table in silver."""
    listed = list(names)
    others = ("features_version", "label_export_version")
    if "features_version" not in listed:
        return []
    return [name for name in listed if name.endswith("_version") and name not in others]


def feature_inputs(
    project: Project, table: FeatureTableConfig, day: date, versions: Mapping[str, int], *, until: date | None = None
) -> dict[str, pa.Table | ds.Dataset | ds.Scanner]:
    """The input tables of a feature table's query, by the short names that it uses.

    `versions` has the version of each; one that has never been ingested has none. `until` is the last day of facts (default: `day`); a later one shows whether
    the query depends on facts after `day`. Raises StageError for a version that no longer exists.
    """
    return {
        tables.short_name(name): _feature_input(project, name, edge, day, versions, until or day)
        if name in versions or name not in absent_tables(table)
        else _absent(project.source_of(name), name)
        for name, edge in table.inputs.items()
    }


def _feature_input(
    project: Project, name: str, edge: Edge, day: date, versions: Mapping[str, int], until: date
) -> ds.Dataset | ds.Scanner:
    opened, source = _open(name, versions), project.source_of(name)
    rows = with_added_columns(tables.scan(opened), source, name)
    if source.kind == "snapshot":
        return _snapshot(name, opened, rows, day, edge)
    back = edge.window.back if edge.window else None
    return _facts(opened, rows, None if back is None else _days_before(day, back - 1), until)


def _absent(source: SourceConfig, name: str) -> pa.Table:
    """A table of a source that has never been ingested, without rows."""
    log.warning(
        "%s does not exist yet: no day of the source %s is ingested, and its columns are empty", name, source.name
    )
    rows = empty_table(source, name)
    if source.kind == "snapshot":
        return rows.drop_columns([column for column in NOT_OF_A_SNAPSHOT if column in rows.schema.names])
    return rows


def facts_until(
    project: Project, names: Iterable[str], last: date, versions: Mapping[str, int]
) -> dict[str, ds.Dataset]:
    """The facts of these tables up to the day `last`, by their short names."""
    facts = {}
    for name in names:
        opened = _open(name, versions)
        rows = with_added_columns(tables.scan(opened), project.source_of(name), name)
        facts[tables.short_name(name)] = _facts(opened, rows, None, last)
    return facts


def _open(name: str, versions: Mapping[str, int]) -> DeltaTable:
    if name not in versions:
        raise StageError(f"no version of {name} is recorded; recorded are {', '.join(versions) or 'none'}")
    version = versions[name]
    try:
        return tables.table(name, version)
    except FileNotFoundError:
        raise StageError(f"{name} does not exist") from None
    except Exception as error:  # delta-rs has no error class of its own for a version that does not exist
        raise StageError(f"{name} no longer has version {version}: {str(error).splitlines()[0]}") from error


def _facts(opened: DeltaTable, rows: ds.Dataset, first: date | None, last: date) -> ds.Dataset:
    """The rows of the days `first` to `last`. Files of other months are not opened if the table is partitioned by month."""
    import pyarrow.dataset as ds

    wanted = ds.field("day") <= last
    if first is not None:
        wanted &= ds.field("day") >= first
    if "month" in opened.metadata().partition_columns:
        wanted &= ds.field("month") <= last.replace(day=1)
        if first is not None:
            wanted &= ds.field("month") >= first.replace(day=1)
    return rows.filter(wanted)


def _snapshot(name: str, opened: DeltaTable, rows: ds.Dataset, day: date, edge: Edge) -> ds.Scanner:
    """The rows of the snapshot that is in force on `day`; no rows when there is none, or it is older than `max_age`."""
    import pyarrow.dataset as ds

    in_force = _snapshot_in_force(name, _snapshot_days(opened, rows), day, edge.max_age)
    columns = [column for column in rows.schema.names if column not in NOT_OF_A_SNAPSHOT]
    return rows.scanner(columns=columns, filter=ds.field("day") == ds.scalar(in_force or date.min))


def _snapshot_in_force(name: str, days: list[date], day: date, max_age: int | None) -> date | None:
    """The snapshot that counts, by the rule of the input digests; what is unusual about it is logged."""
    snapshots = Contents(dict.fromkeys(days, "rows"))
    in_force = snapshots.in_force(day, max_age)
    if not days:
        log.warning("%s has no snapshot: its columns are empty as of %s", name, day)
    elif in_force is None:
        newest = snapshots.in_force(day)
        log.warning(
            "%s: the newest snapshot up to %s is of %s, and max_age is %sd: none counts", name, day, newest, max_age
        )
    elif in_force > day:
        log.warning("%s has no snapshot up to %s: the first one, of %s, counts", name, day, in_force)
    return in_force


def _snapshot_days(opened: DeltaTable, rows: ds.Dataset) -> list[date]:
    """The days of the snapshots that have rows, oldest first; from the table's log if it is partitioned by day."""
    import pyarrow.compute as pc

    if opened.metadata().partition_columns == ["day"]:
        partitions: list[dict[str, Any]] = opened.partitions()
        return sorted({date.fromisoformat(str(partition["day"])) for partition in partitions})
    return sorted(pc.unique(rows.to_table(columns=["day"])["day"]).to_pylist())


def _days_before(day: date, count: int) -> date:
    return day - timedelta(count) if (day - date.min).days >= count else date.min
