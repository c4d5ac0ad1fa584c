"""From releases before 0.3, whose ops tables are keyed by day alone, to tables keyed by node.

Those releases had one chain: the source `transactions` with `silver.transactions` and `silver.customer_days`, features of
one table per model, scores and drift. Contents are digested again from the stored rows, and an entry that was current by
the old rule is recorded as current by the new one: after the migration nothing is stale that was not stale before.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.config import ConfigError, Project
from ml.days.state import State
from ml.engine import EMPTY_DIGEST, open_engine
from ml.errors import StageError
from ml.graph import build_graph, monitor_id, score_id
from ml.ops import built_days, held_days, ingested_days
from ml.ops.built_days import BuiltDay
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

SOURCE = "transactions"  # the only one that earlier releases had
STAGE_TABLES = {"features": "as_of", "score": "score_date", "monitor": "day"}  # the day's column in a stage's table


@dataclass(frozen=True)
class OldDay:
    """A row of `ops.ingested_days` as earlier releases wrote it."""

    row: Mapping[str, Any]

    @property
    def day(self) -> date:
        day: date = self.row["day"]
        return day

    @property
    def content(self) -> str:
        return str(self.row.get("content") or self.row["fingerprint"])


def is_needed() -> bool:
    """Does the lake have an ops table in the form of an earlier release?"""
    return any(_is_old(name, column) for name, column in _KEYS.items())


_KEYS = {built_days.TABLE: "node", held_days.HELD_DAYS: "source", ingested_days.INGESTED_DAYS: "source"}


def _is_old(name: str, column: str) -> bool:
    return tables.exists(name) and column not in {field.name for field in tables.table(name).schema().fields}


def migrate(project: Project) -> dict[str, int]:
    """Rewrite the ops tables that have the old form; the number of rows of each.

    Each table is one commit, and `ops.ingested_days`, from which the others are derived, is the last: a process that
    dies in between leaves a lake that is migrated by the next call. Raises StageError when the files of the project do
    not describe what the lake holds.
    """
    if not is_needed():
        return {}
    if SOURCE not in project.sources:
        raise StageError(f"the lake holds days of the source {SOURCE}, and config/sources/{SOURCE}.yaml does not exist")
    written = {}
    old_days = _read_old_days(project)
    new_days = {SOURCE: {old.day: _to_ingested_day(old, contents) for old, contents in old_days}}
    if _is_old(built_days.TABLE, "node"):
        entries = _to_entries(project, [old for old, _ in old_days], new_days)
        rows = [
            vars(entry) | {"because": list(entry.because), "sources": json.dumps(dict(entry.sources))}
            for entry in entries
        ]
        written[built_days.TABLE] = _rewrite(built_days.TABLE, rows, built_days.schema(), "node")
    if _is_old(held_days.HELD_DAYS, "source"):
        rows = [row | {"source": SOURCE} for row in tables.read(held_days.HELD_DAYS).to_pylist()]
        written[held_days.HELD_DAYS] = _rewrite(held_days.HELD_DAYS, rows, held_days.SCHEMA, "source")
    if _is_old(ingested_days.INGESTED_DAYS, "source"):
        names = ingested_days.schema().names
        rows = [
            {name: old.row.get(name) for name in names}
            | {"source": SOURCE, "contents": json.dumps(contents, sort_keys=True)}
            | {"follow": bool(old.row.get("follow")), "run_key": old.row.get("run_key") or ""}
            for old, contents in old_days
        ]
        written[ingested_days.INGESTED_DAYS] = _rewrite(
            ingested_days.INGESTED_DAYS, rows, ingested_days.schema(), "source"
        )
    return written


def _rewrite(name: str, rows: list[dict[str, Any]], schema: pa.Schema, partition: str) -> int:
    import pyarrow as pa
    from deltalake import write_deltalake

    table = pa.Table.from_pylist(rows, schema)
    write_deltalake(
        tables.uri(name),
        table,
        mode="overwrite",
        schema_mode="overwrite",
        partition_by=[partition],
        storage_options=tables.storage_options(),
    )
    return table.num_rows


def _read_old_days(project: Project) -> list[tuple[OldDay, dict[str, str]]]:
    """Each ingested day, and the digest of its rows in each table of the source."""
    if not tables.exists(ingested_days.INGESTED_DAYS):
        return []
    engine = open_engine()
    digests = {
        name: engine.digest(tables.dataset(name), "day") if tables.exists(name) else {}
        for name in project.sources[SOURCE].tables
    }
    days = [OldDay(row) for row in tables.read(ingested_days.INGESTED_DAYS).to_pylist()]
    return [
        (old, {name: of_table.get(old.day, EMPTY_DIGEST) for name, of_table in digests.items()})
        for old in sorted(days, key=lambda old: old.day)
    ]


def _to_ingested_day(old: OldDay, contents: Mapping[str, str]) -> ingested_days.IngestedDay:
    return ingested_days.IngestedDay(
        contents=contents,
        fingerprint=old.row["fingerprint"],
        follow=bool(old.row.get("follow")),
        run_key=old.row.get("run_key") or "",
    )


def _chain(old_days: list[OldDay]) -> dict[date, str]:
    """The input digests of earlier releases: per day, of the contents of all days up to it."""
    digests, so_far = {}, b""
    for old in old_days:
        so_far = hashlib.sha256(so_far + f"{old.day}|{old.content}\n".encode()).digest()
        digests[old.day] = so_far.hex()[:16]
    return digests


def _to_entries(
    project: Project,
    old_days: list[OldDay],
    new_days: Mapping[str, Mapping[date, ingested_days.IngestedDay]],
) -> list[BuiltDay]:
    """The journal by node. The newest entry of a day that was current gets today's digest, an older one keeps its own."""
    old_rows = sorted(tables.read(built_days.TABLE).to_pylist(), key=lambda row: (row["version"], row["at"]))
    newest: dict[tuple[str, str | None, date], dict[str, Any]] = {}
    for row in old_rows:
        newest[row["stage"], row.get("model"), row["day"]] = row
    graph, chain = build_graph(project), _chain(old_days)
    contents_before = {old.day: old.content for old in old_days}
    entries: list[BuiltDay] = []
    built: defaultdict[str, dict[date, BuiltDay]] = defaultdict(dict)
    state = State(graph=graph, ingested=new_days, built=built)
    for stage in ("validate", "features", "score", "monitor"):
        state = State(graph=graph, ingested=new_days, built={node: dict(days) for node, days in built.items()})
        digests: dict[str, Mapping[Any, str]] = {}
        for row in (row for row in old_rows if row["stage"] == stage):
            model, day = row.get("model"), row["day"]
            node = _node_of(project, stage, model)
            entry = _to_entry(row, node)
            if row is newest[stage, model, day]:
                if node not in digests and stage in STAGE_TABLES:
                    digests[node] = _digests_of(graph.nodes[node].tables[0], STAGE_TABLES[stage])
                entry = replace(entry, content=digests.get(node, {}).get(day, "") if row["version"] >= 0 else "")
                if stage == "validate":
                    if row["inputs"] == contents_before.get(day):
                        entry = replace(entry, inputs=new_days[SOURCE][day].content)
                elif _was_current(row, newest, chain):
                    inputs = state.inputs(node, day)
                    entry = replace(entry, inputs=inputs.digest)
                    if stage == "features" and row["own"] == contents_before.get(day, ""):
                        entry = replace(entry, own=inputs.own)
                built[node][day] = entry
            entries.append(entry)
    return entries


def _node_of(project: Project, stage: str, model: str | None) -> str:
    if stage == "validate":
        return project.sources[SOURCE].table
    if model is None or model not in project.models:
        raise ConfigError(f"the journal has days of the model {model}, and config/models/{model}.yaml does not exist")
    if stage == "features":
        return project.feature_tables[next(iter(project.models[model].features))].table_name
    return score_id(model) if stage == "score" else monitor_id(model)


def _was_current(
    row: Mapping[str, Any],
    newest: Mapping[tuple[str, str | None, date], Mapping[str, Any]],
    chain: Mapping[date, str],
) -> bool:
    """By the rule of earlier releases: were features of the days that there are, scores of the features, drift of the scores?"""
    stage, model, day = row["stage"], row.get("model"), row["day"]
    if stage == "features":
        known = max((each for each in chain if each <= day), default=None)
        return bool(row["inputs"] == ("" if known is None else chain[known]))
    before = newest.get(("features" if stage == "score" else "score", model, day))
    return before is not None and bool(row["inputs"] == before["inputs"])


def _to_entry(row: Mapping[str, Any], node: str) -> BuiltDay:
    """An entry of the new journal. Versions of `ops.ingested_days` from before have the old form: nobody can read them."""
    sources = json.loads(row["sources"] or "{}")
    return BuiltDay(
        node=node,
        day=row["day"],
        run_key=row["run_key"],
        inputs=row["inputs"] or "",
        version=row["version"],
        rows=row["rows"],
        because=tuple(row["because"] or ()),
        own=row["own"] or "",
        model_version=row["model_version"],
        sources={name: number for name, number in sources.items() if name != ingested_days.INGESTED_DAYS},
        at=row["at"],
    )


def _digests_of(table: str, by: str) -> Mapping[Any, str]:
    return open_engine().digest(tables.dataset(table), by) if tables.exists(table) else {}
