"""From a score back to the table versions and the commit it came from, and from a table's version on to what it fed.

Read from what each stage noted when it ran: the rows' own columns, the journal of built days, the tags of a version.
Silver's own versions are matched by the order of commits, since one ingestion writes `silver.transactions` and then
`silver.customer_days`; Delta keeps that order as long as it keeps its log.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.console import print_table
from ml.errors import StageError
from ml.features.source import CUSTOMER_DAYS, short_name
from ml.ops import built_days
from ml.storage import tables

if TYPE_CHECKING:
    from ml.config import ModelConfig
    from ml.registry.model_versions import Version


def of_score(config: ModelConfig, day: date, customer: str) -> dict[str, Any]:
    """Facts: score (the row), scored, in_production (the entry that put the model there), features, model, sources."""
    import pyarrow.dataset as ds

    from ml.registry import model_versions, production

    key, scores = config.features.key, config.score.table
    where = (ds.field("score_date") == day) & (ds.field(key) == customer)
    found = tables.read(scores, where=where).to_pylist() if tables.exists(scores) else []
    if not found:
        raise StageError(f"{scores} has no score of {key} {customer!r} on {day}")
    row = found[0]
    entries = built_days.entries(config.model, day=day)
    scored = _last(entries, "score", lambda one: one.run_key == row["run_key"])
    made = _last(entries, "features", lambda one: one.version <= row["feature_table_version"])
    version = model_versions.version(config.model, row["model_version"])
    serving = [
        one
        for one in production.history(config.model)
        if one.version == version.number and (scored is None or scored.at is None or one.moment <= scored.at)
    ]
    sources = dict(made.sources) if made else {}
    told = {
        "score": {name: value for name, value in row.items() if name != key},
        "scored": {"at": scored.at, "because": list(scored.because)} if scored else None,
        "in_production": {"since": serving[-1].at, "why": list(serving[-1].why), "run": serving[-1].run}
        if serving
        else None,
        "features": {"version": made.version, "at": made.at, "run_key": made.run_key} if made else None,
        "sources": sources | _silver_of(config, sources),
        "model": _learnt_from(version),
    }
    print(f"{key} {customer} on {day}: score {row['score']:.4f}")
    print_table([(f"{part}.{name}", value) for part, facts in told.items() if facts for name, value in facts.items()])
    return {"day": day, "customer": customer, **told}


def _last(entries: Sequence[built_days.BuiltDay], stage: str, fits: Any) -> built_days.BuiltDay | None:
    return next((one for one in reversed(entries) if one.stage == stage and fits(one)), None)


def _learnt_from(version: Version) -> dict[str, Any]:
    """What a version's tags say of how it was made."""
    from ml.registry import model_versions

    kept = (
        "training_set_version",
        "trained_through",
        "commit",
        "config_digest",
        "algorithm",
        "run_key",
        model_versions.DIGEST,
    )
    told = {name: version.tags.get(name) for name in kept}
    sources = {name: value for name, value in version.tags.items() if name.startswith("source.")}
    return {"version": version.number, **told, **sources}


def _silver_of(config: ModelConfig, sources: dict[str, int]) -> dict[str, int]:
    """The version of `silver.transactions` from which the read version of `silver.customer_days` was made."""
    from ml.ingest.tables import SILVER

    if config.features.source != CUSTOMER_DAYS or CUSTOMER_DAYS not in sources:
        return {}
    commits = _commits(CUSTOMER_DAYS)
    at = commits.get(sources[CUSTOMER_DAYS])
    before = [version for version, made in _commits(SILVER).items() if at is not None and made <= at]
    return {SILVER: max(before)} if before else {}


def _commits(name: str) -> dict[int, int]:
    """When each version of a table was committed, as far as its log still says."""
    if not tables.exists(name):
        return {}
    return {int(one["version"]): int(one["timestamp"]) for one in tables.table(name).history() if "version" in one}


def feeds(config: ModelConfig, name: str, first: int, last: int) -> dict[str, Any]:
    """What the versions `first` to `last` of a table went into.

    Facts: table, versions, features (day and version), training_sets, models, production (entries), score_days.
    """
    from ml.ingest.tables import SILVER
    from ml.registry import model_versions, production

    if last < first:
        raise StageError(f"versions {first} to {last}: ends before it starts")
    source, features, sets = config.features.source, config.features.table, config.train.table
    known = [*([SILVER] if source == CUSTOMER_DAYS else []), source, features, sets]
    if name not in known:
        raise StageError(f"{name}: what it feeds is not noted; ask for one of {', '.join(dict.fromkeys(known))}")
    if (newest := tables.table(name).version()) < last or first < 0:
        raise StageError(f"{name} has no version {last if newest < last else first}; the newest is {newest}")
    asked, span = name, range(first, last + 1)
    if name == SILVER and source != SILVER:
        asked, span = source, _made_from_silver(span)
    entries = built_days.entries(config.model)
    built = _built(entries, asked, span, features) if asked != sets else []
    scored = {one.day for one, until in built for score in entries if _read(score, one, until, features)}
    tag = {
        source: f"source.{short_name(source)}_version",
        features: "source.features_version",
        sets: "training_set_version",
    }
    versions = [
        one
        for one in model_versions.versions(config.model)
        if (told := one.tags.get(tag[asked], "")).isdigit() and int(told) in span
    ]
    numbers = [one.number for one in versions]
    by_models = {one.day for one in entries if one.stage == "score" and one.model_version in numbers}
    served = [one for one in production.history(config.model) if one.version in numbers]
    found = {
        "table": name,
        "versions": [first, last],
        "features": [{"day": one.day, "version": one.version, "run_key": one.run_key} for one, _ in built],
        "training_sets": sorted({int(one.tags["training_set_version"]) for one in versions}),
        "models": numbers,
        "production": [{"version": one.version, "since": one.at, "kind": one.kind} for one in served],
        "score_days": {"by_its_features": sorted(scored), "by_its_models": sorted(by_models)},
    }
    print(f"{name} version {first}" + (f" to {last}" if last > first else "") + " fed")
    print_table(
        [
            ("features", _days(sorted({one.day for one, _ in built}))),
            ("training sets", ", ".join(map(str, found["training_sets"])) or "none"),
            ("models", ", ".join(numbers) or "none"),
            ("in production", ", ".join(f"{one.version} since {one.at}" for one in served) or "none"),
            ("scores, by its features", _days(sorted(scored))),
            ("scores, by its models", _days(sorted(by_models))),
        ]
    )
    return found


def _made_from_silver(span: range) -> range:
    """The versions of `silver.customer_days` that were committed after the first of these and before the one after the last."""
    from ml.ingest.tables import SILVER

    silver = _commits(SILVER)
    if span[0] not in silver:
        raise StageError(
            f"{SILVER} version {span[0]}: its log no longer says when it was written; ask for {CUSTOMER_DAYS}"
        )
    end = silver.get(span[-1] + 1)
    made = [
        version
        for version, at in _commits(CUSTOMER_DAYS).items()
        if at >= silver[span[0]] and (end is None or at < end)
    ]
    return range(min(made), max(made) + 1) if made else range(0)


def _built(
    entries: Sequence[built_days.BuiltDay], name: str, span: range, features: str
) -> list[tuple[built_days.BuiltDay, float]]:
    """Days whose features were made from these versions (or are them), each with the version that replaced them."""
    found = []
    made = [one for one in entries if one.stage == "features"]
    for place, one in enumerate(made):
        version = one.version if name == features else one.sources.get(name)
        if version in span:
            later = (other.version for other in made[place + 1 :] if other.day == one.day)
            found.append((one, next(later, float("inf"))))
    return found


def _read(score: built_days.BuiltDay, made: built_days.BuiltDay, until: float, features: str) -> bool:
    """Was this scoring of the day made from these features?"""
    read = score.sources.get(features)
    return score.stage == "score" and score.day == made.day and read is not None and made.version <= read < until


def _days(days: Sequence[date]) -> str:
    if not days:
        return "none"
    return str(days[0]) if len(days) == 1 else f"{len(days)} days from {days[0]} to {days[-1]}"
