"""Computes the features of some days from one version of their source, writes their partitions and the journal.

`include/sql/<features.query>.sql` defines each feature. A day's features are computed from the source's facts up to
that day and from no later ones. Computing them again, today or in a year, gives the same rows, unless a day up to it
was corrected since: a correction counts whenever it came, facts of later days never do.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from ml import console
from ml.config import ModelConfig
from ml.days import input_digests
from ml.engine import Engine, QueryError, open_engine, query
from ml.errors import StageError
from ml.features.source import list_ingested_days, rows_until
from ml.ops import built_days, ingested_days
from ml.ops.ingested_days import INGESTED_DAYS
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.storage.leases import Lease

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuiltFeatures:
    """The features of some days."""

    rows: pa.Table
    version: int  # of the feature table, after their partitions were written


def build_days(
    config: ModelConfig, *, as_of: Sequence[date], run_key: str, last_ingested: date, lease: Lease
) -> dict[str, Any]:
    """Replace the partitions of these days in one commit, then write their journal entries.

    `lease` is that of the feature table, `last_ingested` what `find_last_ingested_day` gives for these days.
    Facts: as_of, customers and active (of all these days together), feature_table_version, source_version,
    last_ingested_day, because (why each day was built).
    """
    import pyarrow.compute as pc

    # Marks are read before the source: a day that is ingested meanwhile makes these features stale and is not missed.
    sources = {INGESTED_DAYS: tables.table(INGESTED_DAYS).version()} if tables.exists(INGESTED_DAYS) else {}
    sources[config.features.source] = source_version = tables.table(config.features.source).version()
    note = {"stage": "features", "run_key": run_key, "days": ",".join(map(str, as_of))}
    built = build_partitions(open_engine(), config, as_of, source_version, lease, note=note)
    entries = _journal_entries(config, built, as_of=as_of, run_key=run_key, sources=sources)
    lease.check()
    built_days.write(entries)
    return {
        "as_of": [day.isoformat() for day in as_of],
        "customers": built.rows.num_rows,
        "active": pc.sum(built.rows["active"]).as_py() or 0,
        "feature_table_version": built.version,
        "source_version": source_version,
        "last_ingested_day": last_ingested.isoformat(),
        "because": {entry.day.isoformat(): "; ".join(entry.because) for entry in entries},
    }


def find_last_ingested_day(config: ModelConfig, as_of: Sequence[date]) -> date:
    """The newest ingested day up to the newest of these.

    The features of a day that is not ingested are computed too, since a day may have no files; the log has a warning.
    Raises StageError for a day before the first ingested one, of which nothing is known.
    """
    ingested = list_ingested_days(config)
    for day in as_of:
        if not ingested or ingested[0] > day:
            state = f"the first ingested day is {ingested[0]}" if ingested else "no day is ingested at all"
            raise StageError(f"no features as of {day}: {state}. Ingest the days up to {day} first")
        if day not in ingested:
            log.warning("%s itself is not ingested: its features include no facts of that day", day)
    return max(day for day in ingested if day <= max(as_of))


def build_new_partitions(
    engine: Engine, config: ModelConfig, days: Sequence[date], source_version: int, *, holder: str
) -> BuiltFeatures:
    """Compute the features of these days, and write those that the journal does not have, under the table's lease.

    A day in the journal keeps its partition, because the journal records what that partition was built from. `holder`
    names the caller to others who wait for the lease.
    """
    with tables.hold(config.features.table, holder) as lease:
        journalled = built_days.read_newest(config.model)["features"]
        return build_partitions(engine, config, days, source_version, lease, unwritten=journalled)


def build_partitions(
    engine: Engine,
    config: ModelConfig,
    days: Sequence[date],
    source_version: int,
    lease: Lease,
    *,
    unwritten: Collection[date] = (),
    note: Mapping[str, str] | None = None,
) -> BuiltFeatures:
    """Compute the features of these days from one version of their source and replace their partitions.

    `lease` is that of the feature table. The features of the days in `unwritten` are computed, not written. `note` is
    kept with the commit in the table's history.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = config.features.table
    rows = pa.concat_tables([compute_features(engine, config, day, source_version) for day in days])
    written_days = [day for day in days if day not in unwritten]
    if not written_days:
        return BuiltFeatures(rows, tables.table(table).version())
    written = rows.filter(pc.is_in(rows["as_of"], pa.array(written_days, pa.date32()))) if unwritten else rows
    where = tables.day_predicate("as_of", written_days)
    lease.check()
    return BuiltFeatures(rows, tables.replace(table, written, where, partition_by=["as_of"], note=note))


def compute_features(
    engine: Engine, config: ModelConfig, day: date, source_version: int, *, until: date | None = None
) -> pa.Table:
    """The features as of a day from one version of their source; nothing is written.

    `until` is the last day of facts that the query gets (default: `day`). A later one shows whether the query depends
    on facts after `day`. Raises StageError when the query fails.
    """
    source = config.features.source
    rows = rows_until(source, until or day, source_version)
    try:
        return engine.run(config.features.query, {tables.short_name(source): rows}, _query_settings(config, day))
    except QueryError as error:
        raise StageError(str(error)) from error


def _query_settings(config: ModelConfig, day: date) -> dict[str, date | int | float | str | bool]:
    return {"as_of": day, "active_days": config.features.active_days}


def _recipe(config: ModelConfig) -> str:
    """A digest of 16 hex digits that changes with the query or its settings."""
    settings = {name: value for name, value in _query_settings(config, date.min).items() if name != "as_of"}
    text = query.load(config.features.query).spark + repr(sorted(settings.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _journal_entries(
    config: ModelConfig, built: BuiltFeatures, *, as_of: Sequence[date], run_key: str, sources: dict[str, int]
) -> list[built_days.BuiltDay]:
    """The journal's entry for each of the days that were just written."""
    import pyarrow as pa
    import pyarrow.compute as pc

    marks = ingested_days.read_ingested_days(sources.get(INGESTED_DAYS))
    inputs = input_digests.chain({day: mark.content for day, mark in marks.items()})
    previous, recipe = built_days.read_newest(config.model)["features"], _recipe(config)
    return [
        built_days.BuiltDay(
            stage="features",
            day=day,
            run_key=run_key,
            inputs=input_digests.as_of(inputs, day),
            version=built.version,
            rows=pc.sum(pc.equal(built.rows["as_of"], pa.scalar(day))).as_py() or 0,
            because=_reasons(previous.get(day), day, input_digests.as_of(inputs, day), recipe, marks),
            own=marks[day].content if day in marks else "",
            recipe=recipe,
            sources=sources,
            model=config.model,
        )
        for day in as_of
    ]


def _reasons(
    previous: built_days.BuiltDay | None,
    day: date,
    inputs: str,
    recipe: str,
    marks: Mapping[date, ingested_days.IngestedDay],
) -> tuple[str, ...]:
    """Why the day's features are built (again): what has changed since its previous journal entry."""
    from deltalake.exceptions import DeltaError

    if previous is None:
        return ("first",)
    reasons = []
    if previous.inputs != inputs:
        try:
            then = ingested_days.read_ingested_days(previous.sources[INGESTED_DAYS])
            reasons.append(f"changed since: {console.days_in_words(input_digests.changed_days(then, marks, day))}")
        except (DeltaError, OSError, KeyError):  # vacuum has removed the version that it was built from
            reasons.append("days up to it have changed; which ones is no longer known")
    if previous.recipe != recipe:
        reasons.append("the query or its settings have changed")
    return tuple(reasons) or ("requested again",)
