"""Builds days of a feature table: computes them from one version of each input, writes their partitions and the journal.

Computing a day again gives the same rows, unless a day that reaches it was corrected since: a correction counts whenever
it came, facts of later days never do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml import console
from ml.config import FeatureTableConfig, Project
from ml.days.state import State, read_inputs
from ml.engine import EMPTY_DIGEST, open_engine
from ml.errors import StageError
from ml.features import schema
from ml.features.compute import compute_features
from ml.features.inputs import absent_tables, pin_versions
from ml.features.recipe import table_recipe
from ml.ops import built_days, ingested_days
from ml.ops.built_days import BuiltDay
from ml.ops.ingested_days import INGESTED_DAYS
from ml.storage import tables

if TYPE_CHECKING:
    from ml.ops.ingested_days import IngestedDay
    from ml.storage.leases import Lease

log = logging.getLogger(__name__)


def build_days(
    project: Project, table: FeatureTableConfig, *, as_of: Sequence[date], run_key: str, lease: Lease
) -> dict[str, Any]:
    """Replace the partitions of these days in one commit, then write their journal entries.

    `lease` is that of the feature table. Facts: as_of, rows (of all these days together), feature_table_version, sources
    (version of each table that was read), because (why each day was built). Raises StageError for a change of the query
    that models have not learnt: see `ml.features.schema`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    node = table.table_name
    # Marks are read before the tables: a day that is ingested meanwhile makes these days stale and is not missed.
    state = read_inputs(project, node)
    versions = pin_versions(project, table.inputs, absent_tables(table))
    engine, recipe = open_engine(), table_recipe(table)
    rows = pa.concat_tables([compute_features(engine, project, table, day, versions) for day in as_of])
    schema.check_columns_stay(table, rows)
    journal = built_days.read_newest([node])[node]
    if compared := schema.day_to_compare(table, journal, recipe, state):
        again = compute_features(engine, project, table, compared.day, versions)
        schema.check_values_stay(table, compared.day, again)
    contents = engine.digest(rows, "as_of")
    note = {"stage": "features", "run_key": run_key, "days": ",".join(map(str, as_of))}
    lease.check()
    version = tables.replace(node, rows, tables.day_predicate("as_of", as_of), partition_by=["as_of"], note=note)
    entries = [
        BuiltDay(
            node=node,
            day=day,
            run_key=run_key,
            inputs=state.inputs(node, day).digest,
            own=state.inputs(node, day).own,
            content=contents.get(day, EMPTY_DIGEST),
            recipe=recipe,
            version=version,
            rows=pc.sum(pc.equal(rows["as_of"], pa.scalar(day))).as_py() or 0,
            because=_reasons(state, journal.get(day), node, day, recipe),
            sources={**state.versions, **versions},
        )
        for day in as_of
    ]
    lease.check()
    built_days.write(entries)
    return {
        "as_of": [day.isoformat() for day in as_of],
        "rows": rows.num_rows,
        "feature_table_version": version,
        "sources": versions,
        "because": {entry.day.isoformat(): "; ".join(entry.because) for entry in entries},
    }


def check_inputs(project: Project, table: FeatureTableConfig, as_of: Sequence[date]) -> dict[str, date]:
    """The newest ingested day, up to the newest of `as_of`, of each table of facts that has one.

    A day that is not ingested is built too, since a day may have no files; the log has a warning. Raises StageError for a
    day before the first ingested one of all of them, of which nothing is known.
    """
    facts = [name for name in table.inputs if project.source_of(name).kind == "facts"]
    ingested = {name: sorted(ingested_days.ingested_fingerprints(project.source_of(name).source)) for name in facts}
    first = min((days[0] for days in ingested.values() if days), default=None)
    for day in as_of:
        if first is None or first > day:
            state = f"the first ingested day is {first}" if first else "no day is ingested at all"
            raise StageError(
                f"no {table.table_name} as of {day}: {state} ({', '.join(facts)}). Ingest the days up to {day} first"
            )
        for name, days in ingested.items():
            if day not in days:
                log.warning("%s itself is not ingested: %s has no facts of that day", day, name)
    newest = {name: max((day for day in days if day <= max(as_of)), default=None) for name, days in ingested.items()}
    return {name: day for name, day in newest.items() if day}


def _reasons(state: State, previous: BuiltDay | None, node: str, day: date, recipe: str) -> tuple[str, ...]:
    """Why the day is built (again): what has changed since its previous journal entry."""
    from deltalake.exceptions import DeltaError

    if previous is None:
        return ("first",)
    reasons: list[str] = []
    if previous.inputs != state.inputs(node, day).digest:
        try:
            then = ingested_days.read_all_ingested_days(previous.sources[INGESTED_DAYS])
            reasons += _changes(state, node, day, then)
        except (DeltaError, OSError, KeyError):  # vacuum has removed the version that it was built from
            pass
        reasons = reasons or ["days that reach it have changed; which ones is no longer known"]
    if previous.recipe != recipe:
        reasons.append("the query or its settings have changed")
    return tuple(reasons) or ("requested again",)


def _changes(state: State, node: str, day: date, then: Mapping[str, Mapping[date, IngestedDay]]) -> list[str]:
    """A sentence per input that has changed since `then`."""
    inputs, sentences = state.graph.nodes[node].inputs, []
    for each in inputs:
        days = schema.input_changes(state, each, day, then)
        name = f"{each.table} " if len(inputs) > 1 else ""
        if days and each.kind == "facts":
            sentences.append(f"{name}changed since: {console.days_in_words(days)}")
        elif days:
            in_force = state.contents[each.table].in_force(day, each.max_age)
            which = f"the snapshot of {in_force}" if in_force else "no snapshot"
            sentences.append(f"{name}has changed: {which} is in force")
    return sentences
