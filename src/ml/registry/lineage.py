"""Lineage: from a score back to the table versions and the commit behind it, and from a table version to its consumers.

Read from what each stage recorded when it ran: the rows' own columns, the journal of built days, the tags of a version.
One ingestion writes a source's main table and then its daily tables, so their versions are matched by the order of
commits; Delta keeps that order as long as it keeps its log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.console import print_table
from ml.errors import StageError
from ml.graph import build_graph, score_id
from ml.ops import built_days, production_log
from ml.ops.built_days import BuiltDay
from ml.registry import model_versions
from ml.storage import tables

if TYPE_CHECKING:
    from ml.config import ModelConfig, Project
    from ml.registry.model_versions import Version

VERSION_TAGS = (
    "training_set_version",
    "trained_through",
    "commit",
    "config_digest",
    "algorithm",
    "run_key",
    model_versions.DIGEST,
)


def trace_score(config: ModelConfig, project: Project, day: date, key: str) -> dict[str, Any]:
    """Facts: score (the row), scored, in_production (the entry that put the model there), features, sources, model.

    `features` has the build of each feature table, `sources` the version of each table in silver. `key` is the entity of
    the row. Raises StageError when the day has no score of it.
    """
    row = _read_score(config, day, key)
    scorings = built_days.read_entries(node=score_id(config.model), day=day)
    scored = next((entry for entry in reversed(scorings) if entry.run_key == row["run_key"]), None)
    version = model_versions.get_version(config.model, row["model_version"])
    serving = [
        entry
        for entry in production_log.read_history(config.model)
        if entry.version == version.number and (scored is None or scored.at is None or entry.moment <= scored.at)
    ]
    read = _tables_read(config, row, scored)
    builds = {name: _build_before(name, day, number) for name, number in read.items() if name.startswith("features.")}
    sources = {name: number for name, number in read.items() if name not in builds}
    for build in builds.values():
        sources |= dict(build.sources) if build else {}
    lineage = {
        "score": {name: value for name, value in row.items() if name != config.entity},
        "scored": {"at": scored.at, "because": list(scored.because)} if scored else None,
        "in_production": {"since": serving[-1].at, "why": list(serving[-1].why), "run": serving[-1].run}
        if serving
        else None,
        "features": {
            name: {"version": build.version, "at": build.at, "run_key": build.run_key}
            for name, build in builds.items()
            if build
        },
        "sources": sources | _main_versions(project, sources),
        "model": _recorded_tags(version),
    }
    print(f"{config.entity} {key} on {day}: score {row['score']:.4f}")
    print_table(
        [(f"{part}.{name}", value) for part, facts in lineage.items() if facts for name, value in facts.items()]
    )
    return {"day": day, "key": key, **lineage}


def _read_score(config: ModelConfig, day: date, key: str) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.dataset as ds

    scores = config.score.table
    where = (ds.field("score_date") == day) & (ds.field(config.entity).cast(pa.string()) == key)
    rows = tables.read(scores, where=where).to_pylist() if tables.exists(scores) else []
    if not rows:
        raise StageError(f"{scores} has no score of {config.entity} {key!r} on {day}")
    row: dict[str, Any] = rows[0]
    return row


def _tables_read(config: ModelConfig, row: Mapping[str, Any], scored: BuiltDay | None) -> dict[str, int]:
    """The version of each table that a row was scored from."""
    if recorded := row.get("_inputs"):
        versions: dict[str, int] = json.loads(recorded)
        return versions
    if scored is not None and scored.sources:
        return dict(scored.sources)
    first = next(iter(config.features), None)  # a row of an earlier release names one version only
    return {f"features.{first}": row["feature_table_version"]} if first else {}


def _build_before(table: str, day: date, version: int) -> BuiltDay | None:
    """The build of a feature table's day that this version of the table holds."""
    builds = [entry for entry in built_days.read_entries(node=table, day=day) if entry.version <= version]
    return builds[-1] if builds else None


def _recorded_tags(version: Version) -> dict[str, Any]:
    """The tags that record how a version was trained."""
    tags = {name: version.tags.get(name) for name in VERSION_TAGS}
    sources = {name: value for name, value in version.tags.items() if name.startswith("source.")}
    return {"version": version.number, **tags, **sources}


def _main_versions(project: Project, versions: Mapping[str, int]) -> dict[str, int]:
    """Per daily table, the version of its source's main table that it was made from."""
    main = {}
    for table, version in versions.items():
        source = project.source_by_table.get(table)
        if source is None or table == source.table or source.table in versions:
            continue
        committed = _commit_times(table).get(version)
        earlier = [number for number, at in _commit_times(source.table).items() if committed and at <= committed]
        if earlier:
            main[source.table] = max(earlier)
    return main


def _commit_times(name: str) -> dict[int, int]:
    """When each version of a table was committed (ms since 1970), for the versions that are still in its log."""
    if not tables.exists(name):
        return {}
    log = tables.table(name).history()
    return {int(commit["version"]): int(commit["timestamp"]) for commit in log if "version" in commit}


@dataclass(frozen=True)
class _FeatureBuild:
    """A build of a day of a feature table, and the version that replaced it."""

    table: str
    entry: BuiltDay
    until: float


def trace_table_version(config: ModelConfig, project: Project, name: str, first: int, last: int) -> dict[str, Any]:
    """What of this model was built from the versions `first` to `last` of a table.

    Facts: table, versions, features (table, day and version), training_sets, models, production (entries), score_days.
    Raises StageError for a table that the model is not built from, and for versions that do not exist.
    """
    if last < first:
        raise StageError(f"versions {first} to {last}: the last version is lower than the first")
    feature_tables = _feature_tables(config)
    silver = _silver_tables(config, project, feature_tables)
    known = [*silver, *feature_tables, config.train.table]
    if name not in known:
        raise StageError(
            f"{name}: its consumers are not recorded for {config.model}; name one of {', '.join(dict.fromkeys(known))}"
        )
    if (newest := tables.table(name).version()) < last or first < 0:
        raise StageError(f"{name} has no version {last if newest < last else first}; the newest is {newest}")
    read = {name: range(first, last + 1), **_daily_versions(project, silver, name, first, last)}
    builds = [build for table in feature_tables for build in _builds_from(table, read)]
    scorings = built_days.read_entries(node=score_id(config.model))
    scored = {score.day for score in scorings if _has_read(score, read, builds)}
    versions = [
        version for version in model_versions.list_versions(config.model) if _learnt_from(config, version, read)
    ]
    numbers = [version.number for version in versions]
    by_models = {score.day for score in scorings if score.model_version in numbers}
    served = [entry for entry in production_log.read_history(config.model) if entry.version in numbers]
    training_sets = sorted({int(version.tags["training_set_version"]) for version in versions})
    print(f"{name} version {first}" + (f" to {last}" if last > first else "") + f" was used by {config.model}")
    print_table(
        [
            *(
                (table, _days_in_words(sorted({build.entry.day for build in builds if build.table == table})))
                for table in feature_tables
            ),
            ("training sets", ", ".join(map(str, training_sets)) or "none"),
            ("models", ", ".join(numbers) or "none"),
            ("in production", ", ".join(f"{entry.version} since {entry.at}" for entry in served) or "none"),
            ("scores, by their rows", _days_in_words(sorted(scored))),
            ("scores, by their models", _days_in_words(sorted(by_models))),
        ]
    )
    return {
        "table": name,
        "versions": [first, last],
        "features": [
            {"table": b.table, "day": b.entry.day, "version": b.entry.version, "run_key": b.entry.run_key}
            for b in builds
        ],
        "training_sets": training_sets,
        "models": numbers,
        "production": [{"version": entry.version, "since": entry.at, "kind": entry.kind} for entry in served],
        "score_days": {"by_its_features": sorted(scored), "by_its_models": sorted(by_models)},
    }


def _feature_tables(config: ModelConfig) -> list[str]:
    """The feature tables that the model's file names, and those that its champions read."""
    named = [f"features.{name}" for name in config.features]
    served = [table for entry in production_log.read_history(config.model) for table in entry.tables or ()]
    return list(dict.fromkeys([*named, *(table for table in served if table.startswith("features."))]))


def _silver_tables(config: ModelConfig, project: Project, feature_tables: Sequence[str]) -> list[str]:
    """The tables in silver that scores and labels are built from, with the main tables that daily ones are made from."""
    graph = build_graph(project)
    read = [each.table for table in feature_tables if table in graph.nodes for each in graph.nodes[table].inputs]
    read += [each.table for each in graph.nodes[score_id(config.model)].inputs if each.table.startswith("silver.")]
    read += config.label.inputs
    return list(dict.fromkeys([*(project.source_of(table).table for table in read), *read]))


def _daily_versions(project: Project, silver: Sequence[str], name: str, first: int, last: int) -> dict[str, range]:
    """The versions of a source's daily tables that were made from these versions of its main table.

    They were committed after the first of these and before the one that follows the last.
    """
    source = project.source_by_table.get(name)
    daily = [table for table in silver if source is not None and name == source.table and table in source.daily]
    if not daily:
        return {}
    committed = _commit_times(name)
    if first not in committed:
        raise StageError(
            f"{name} version {first}: its commit is no longer in the table's log; name a version of {', '.join(daily)}"
        )
    start, end = committed[first], committed.get(last + 1)
    made = {}
    for table in daily:
        versions = [
            version for version, at in _commit_times(table).items() if at >= start and (end is None or at < end)
        ]
        made[table] = range(min(versions), max(versions) + 1) if versions else range(0)
    return made


def _builds_from(table: str, read: Mapping[str, range]) -> Iterator[_FeatureBuild]:
    """The builds of a feature table from these versions (or that are them)."""
    entries = built_days.read_entries(node=table)
    for place, entry in enumerate(entries):
        if entry.version in read.get(table, ()) or any(entry.sources.get(name) in read[name] for name in read):
            later = (other.version for other in entries[place + 1 :] if other.day == entry.day)
            yield _FeatureBuild(table, entry, next(later, float("inf")))


def _has_read(score: BuiltDay, read: Mapping[str, range], builds: Sequence[_FeatureBuild]) -> bool:
    """Whether this scoring read one of the versions itself, or one of these builds of its day."""
    if any(name.startswith("silver.") and version in read.get(name, ()) for name, version in score.sources.items()):
        return True
    return any(
        build.entry.day == score.day and build.entry.version <= score.sources.get(build.table, -1) < build.until
        for build in builds
    )


def _learnt_from(config: ModelConfig, version: Version, read: Mapping[str, range]) -> bool:
    """Whether a version's training set was built from these versions, or is one of them."""
    return any(
        (tagged := version.tags.get(tag, "")).isdigit() and int(tagged) in versions
        for name, versions in read.items()
        for tag in _tags_of(config, name)
    )


def _tags_of(config: ModelConfig, name: str) -> tuple[str, ...]:
    """The tags of a version that name a table's version; earlier releases named it by a column of the training set."""
    if name == config.train.table:
        return ("training_set_version",)
    if name.startswith("features."):
        return (f"source.{name}", "source.features_version")
    return (f"source.{name}", f"source.{tables.short_name(name)}_version")


def _days_in_words(days: Sequence[date]) -> str:
    if not days:
        return "none"
    return str(days[0]) if len(days) == 1 else f"{len(days)} days from {days[0]} to {days[-1]}"
