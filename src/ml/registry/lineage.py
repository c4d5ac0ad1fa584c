"""Lineage: from a score back to the table versions and the commit behind it, and from a table version to its consumers.

Read from what each stage recorded when it ran: the rows' own columns, the journal of built days, the tags of a version.
Versions of the silver tables are matched by the order of commits, since one ingestion writes `silver.transactions` and
then `silver.customer_days`; Delta keeps that order as long as it keeps its log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.console import print_table
from ml.errors import StageError
from ml.ops import built_days
from ml.ops.built_days import BuiltDay
from ml.ops.ingested_days import CUSTOMER_DAYS, SILVER
from ml.registry import model_versions, production
from ml.storage import tables

if TYPE_CHECKING:
    from ml.config import ModelConfig
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


def trace_score(config: ModelConfig, day: date, customer: str) -> dict[str, Any]:
    """Facts: score (the row), scored, in_production (the entry that put the model there), features, model, sources."""
    import pyarrow.dataset as ds

    key, scores = config.features.key, config.score.table
    where = (ds.field("score_date") == day) & (ds.field(key) == customer)
    rows = tables.read(scores, where=where).to_pylist() if tables.exists(scores) else []
    if not rows:
        raise StageError(f"{scores} has no score of {key} {customer!r} on {day}")
    row = rows[0]
    entries = built_days.read_entries(config.model, day=day)
    scored = _last_entry(entries, "score", lambda entry: entry.run_key == row["run_key"])
    features = _last_entry(entries, "features", lambda entry: entry.version <= row["feature_table_version"])
    version = model_versions.get_version(config.model, row["model_version"])
    serving = [
        entry
        for entry in production.read_history(config.model)
        if entry.version == version.number and (scored is None or scored.at is None or entry.moment <= scored.at)
    ]
    sources = dict(features.sources) if features else {}
    lineage = {
        "score": {name: value for name, value in row.items() if name != key},
        "scored": {"at": scored.at, "because": list(scored.because)} if scored else None,
        "in_production": {"since": serving[-1].at, "why": list(serving[-1].why), "run": serving[-1].run}
        if serving
        else None,
        "features": {"version": features.version, "at": features.at, "run_key": features.run_key} if features else None,
        "sources": sources | _silver_version(config, sources),
        "model": _recorded_tags(version),
    }
    print(f"{key} {customer} on {day}: score {row['score']:.4f}")
    print_table(
        [(f"{part}.{name}", value) for part, facts in lineage.items() if facts for name, value in facts.items()]
    )
    return {"day": day, "customer": customer, **lineage}


def _last_entry(entries: Sequence[BuiltDay], stage: str, matches: Callable[[BuiltDay], bool]) -> BuiltDay | None:
    return next((entry for entry in reversed(entries) if entry.stage == stage and matches(entry)), None)


def _recorded_tags(version: Version) -> dict[str, Any]:
    """The tags that record how a version was trained."""
    tags = {name: version.tags.get(name) for name in VERSION_TAGS}
    sources = {name: value for name, value in version.tags.items() if name.startswith("source.")}
    return {"version": version.number, **tags, **sources}


def _silver_version(config: ModelConfig, sources: dict[str, int]) -> dict[str, int]:
    """The version of `silver.transactions` from which the used version of `silver.customer_days` was built."""
    if config.features.source != CUSTOMER_DAYS or CUSTOMER_DAYS not in sources:
        return {}
    committed = _commit_times(CUSTOMER_DAYS).get(sources[CUSTOMER_DAYS])
    earlier = [version for version, at in _commit_times(SILVER).items() if committed is not None and at <= committed]
    return {SILVER: max(earlier)} if earlier else {}


def _commit_times(name: str) -> dict[int, int]:
    """When each version of a table was committed (ms since 1970), for the versions that are still in its log."""
    if not tables.exists(name):
        return {}
    log = tables.table(name).history()
    return {int(commit["version"]): int(commit["timestamp"]) for commit in log if "version" in commit}


def trace_table_version(config: ModelConfig, name: str, first: int, last: int) -> dict[str, Any]:
    """What was built from the versions `first` to `last` of a table.

    Facts: table, versions, features (day and version), training_sets, models, production (entries), score_days.
    Raises StageError for a table whose consumers are not recorded, and for versions that do not exist.
    """
    if last < first:
        raise StageError(f"versions {first} to {last}: the last version is lower than the first")
    source, features, sets = config.features.source, config.features.table, config.train.table
    known = [*([SILVER] if source == CUSTOMER_DAYS else []), source, features, sets]
    if name not in known:
        raise StageError(f"{name}: its consumers are not recorded; name one of {', '.join(dict.fromkeys(known))}")
    if (newest := tables.table(name).version()) < last or first < 0:
        raise StageError(f"{name} has no version {last if newest < last else first}; the newest is {newest}")
    read_table, read_versions = name, range(first, last + 1)
    if name == SILVER and source != SILVER:
        read_table, read_versions = source, _customer_days_versions(read_versions)
    entries = built_days.read_entries(config.model)
    built = _features_built_from(entries, read_table, read_versions, features) if read_table != sets else []
    scored = {entry.day for entry, until in built for score in entries if _has_read(score, entry, until, features)}
    tag = {
        source: f"source.{tables.short_name(source)}_version",
        features: "source.features_version",
        sets: "training_set_version",
    }[read_table]
    versions = [
        version
        for version in model_versions.list_versions(config.model)
        if (tagged := version.tags.get(tag, "")).isdigit() and int(tagged) in read_versions
    ]
    numbers = [version.number for version in versions]
    by_models = {entry.day for entry in entries if entry.stage == "score" and entry.model_version in numbers}
    served = [entry for entry in production.read_history(config.model) if entry.version in numbers]
    training_sets = sorted({int(version.tags["training_set_version"]) for version in versions})
    print(f"{name} version {first}" + (f" to {last}" if last > first else "") + " was used by")
    print_table(
        [
            ("features", _days_in_words(sorted({entry.day for entry, _ in built}))),
            ("training sets", ", ".join(map(str, training_sets)) or "none"),
            ("models", ", ".join(numbers) or "none"),
            ("in production", ", ".join(f"{entry.version} since {entry.at}" for entry in served) or "none"),
            ("scores, by its features", _days_in_words(sorted(scored))),
            ("scores, by its models", _days_in_words(sorted(by_models))),
        ]
    )
    return {
        "table": name,
        "versions": [first, last],
        "features": [{"day": entry.day, "version": entry.version, "run_key": entry.run_key} for entry, _ in built],
        "training_sets": training_sets,
        "models": numbers,
        "production": [{"version": entry.version, "since": entry.at, "kind": entry.kind} for entry in served],
        "score_days": {"by_its_features": sorted(scored), "by_its_models": sorted(by_models)},
    }


def _customer_days_versions(silver_versions: range) -> range:
    """The versions of `silver.customer_days` that were built from these versions of `silver.transactions`.

    They were committed after the first of these and before the one that follows the last.
    """
    silver = _commit_times(SILVER)
    if silver_versions[0] not in silver:
        raise StageError(
            f"{SILVER} version {silver_versions[0]}: its commit is no longer in the table's log; "
            f"name a version of {CUSTOMER_DAYS}"
        )
    start, end = silver[silver_versions[0]], silver.get(silver_versions[-1] + 1)
    versions = [
        version for version, at in _commit_times(CUSTOMER_DAYS).items() if at >= start and (end is None or at < end)
    ]
    return range(min(versions), max(versions) + 1) if versions else range(0)


def _features_built_from(
    entries: Sequence[BuiltDay], name: str, versions: range, features: str
) -> list[tuple[BuiltDay, float]]:
    """Days whose features were built from these versions (or are them), each with the version that replaced it."""
    result = []
    builds = [entry for entry in entries if entry.stage == "features"]
    for place, build in enumerate(builds):
        version = build.version if name == features else build.sources.get(name)
        if version in versions:
            later = (other.version for other in builds[place + 1 :] if other.day == build.day)
            result.append((build, next(later, float("inf"))))
    return result


def _has_read(score: BuiltDay, build: BuiltDay, until: float, features: str) -> bool:
    """Whether this scoring of the day read this build of its features."""
    read = score.sources.get(features)
    return score.stage == "score" and score.day == build.day and read is not None and build.version <= read < until


def _days_in_words(days: Sequence[date]) -> str:
    if not days:
        return "none"
    return str(days[0]) if len(days) == 1 else f"{len(days)} days from {days[0]} to {days[-1]}"
