"""Computes features of some days from one version of their source, and writes their partitions."""

from __future__ import annotations

import argparse
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
from ml.features.source import ingested_days_of, known_on, short_name
from ml.ops import built_days, ingested_days
from ml.ops.ingested_days import INGESTED_DAYS
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.storage.leases import Lease

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """Partitions of the feature table that were just written."""

    rows: pa.Table
    version: int  # of the feature table that holds them


def build_days(model: ModelConfig, args: argparse.Namespace, last: date, lease: Lease) -> dict[str, Any]:
    import pyarrow.compute as pc

    # the marks first: a day that is ingested in this moment then makes these features stale, and is not missed
    sources = {INGESTED_DAYS: tables.table(INGESTED_DAYS).version()} if tables.exists(INGESTED_DAYS) else {}
    sources[model.features.source] = source = tables.table(model.features.source).version()
    note = {"stage": "features", "run_key": args.run_key, "days": ",".join(map(str, args.as_of))}
    built = build(open_engine(), model, args.as_of, source, lease, note=note)
    entries = _journal_entries(model, args, built, sources)
    lease.check()
    built_days.write(entries)
    return {
        "as_of": [day.isoformat() for day in args.as_of],
        "customers": built.rows.num_rows,
        "active": pc.sum(built.rows["active"]).as_py() or 0,
        "feature_table_version": built.version,
        "source_version": source,
        "last_ingested_day": last.isoformat(),
        "because": {entry.day.isoformat(): "; ".join(entry.because) for entry in entries},
    }


def last_ingested(model: ModelConfig, as_of: Sequence[date]) -> date:
    """The newest ingested day up to the newest of these.

    A day without files has none, so features of a day that was not ingested are computed, with a warning
    in the log. Raises StageError for a day before anything was ingested: there is nothing to know.
    """
    ingested = ingested_days_of(model)
    for day in as_of:
        if not ingested or ingested[0] > day:
            there = f"the first ingested day is {ingested[0]}" if ingested else "no day is ingested at all"
            raise StageError(f"no features as of {day}: {there}. Ingest the days up to {day} first")
        if day not in ingested:
            log.warning("%s itself is not ingested: its features know nothing of that day", day)
    return max(day for day in ingested if day <= max(as_of))


def build(
    engine: Engine,
    model: ModelConfig,
    as_of: Sequence[date],
    source_version: int,
    lease: Lease,
    *,
    leave: Collection[date] = (),
    note: Mapping[str, str] | None = None,
) -> Built:
    """Compute the features of these days from one version of their source and replace their partitions.

    `lease` is that of the feature table. The partitions of the days in `leave` stay as they are; their features are only computed.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = model.features.table
    rows = pa.concat_tables([compute(engine, model, day, source_version) for day in as_of])
    written = [day for day in as_of if day not in leave]
    if not written:
        return Built(rows, tables.table(table).version())
    kept = rows.filter(pc.is_in(rows["as_of"], pa.array(written, pa.date32()))) if leave else rows
    where = tables.day_predicate("as_of", written)
    lease.check()
    return Built(rows, tables.replace(table, kept, where, partition_by=["as_of"], note=note))


def compute(
    engine: Engine, model: ModelConfig, day: date, source_version: int, *, until: date | None = None
) -> pa.Table:
    """The features of a day from one version of their source; nothing is written.

    `until`: the last day that the query is given, for asking whether it looks at later ones; `day` unless told.
    """
    source = model.features.source
    rows = known_on(source, until or day, source_version)
    try:
        return engine.run(model.features.query, {short_name(source): rows}, _settings(model, day))
    except QueryError as error:
        raise StageError(str(error)) from error


def _settings(model: ModelConfig, day: date) -> dict[str, date | int | float | str | bool]:
    return {"as_of": day, "active_days": model.features.active_days}


def _recipe(model: ModelConfig) -> str:
    """16 hex digits that change with the query or its settings."""
    settings = {name: value for name, value in _settings(model, date.min).items() if name != "as_of"}
    text = query.load(model.features.query).spark + repr(sorted(settings.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _journal_entries(
    model: ModelConfig, args: argparse.Namespace, built: Built, sources: dict[str, int]
) -> list[built_days.BuiltDay]:
    """What the journal says of each day that was just written."""
    import pyarrow as pa
    import pyarrow.compute as pc

    marks = ingested_days.read_ingested_days(sources.get(INGESTED_DAYS))
    inputs = input_digests.chain({day: mark.content for day, mark in marks.items()})
    before, recipe = built_days.newest(model.model)["features"], _recipe(model)
    return [
        built_days.BuiltDay(
            stage="features",
            day=day,
            run_key=args.run_key,
            inputs=input_digests.as_of(inputs, day),
            version=built.version,
            rows=pc.sum(pc.equal(built.rows["as_of"], pa.scalar(day))).as_py() or 0,
            because=_because(before.get(day), day, input_digests.as_of(inputs, day), recipe, marks),
            own=marks[day].content if day in marks else "",
            recipe=recipe,
            sources=sources,
            model=model.model,
        )
        for day in args.as_of
    ]


def _because(
    before: built_days.BuiltDay | None,
    day: date,
    inputs: str,
    recipe: str,
    marks: Mapping[date, ingested_days.IngestedDay],
) -> tuple[str, ...]:
    """Why the day's features are made (again): which days have changed since they were made last."""
    from deltalake.exceptions import DeltaError

    if before is None:
        return ("first",)
    why = []
    if before.inputs != inputs:
        try:
            then = ingested_days.read_ingested_days(before.sources[INGESTED_DAYS])
            why.append(f"changed since: {console.days_in_words(input_digests.changed_days(then, marks, day))}")
        except (DeltaError, OSError, KeyError):  # the version it was made from has been cleaned away
            why.append("days up to it have changed; which ones is no longer known")
    if before.recipe != recipe:
        why.append("the query or its settings have changed")
    return tuple(why) or ("asked for again",)
