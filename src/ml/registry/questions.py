"""Answers to an auditor: which version is or was in production and why, every decision, and two versions compared.

Every answer is read from what was recorded at the time (`ml.registry.production`, `ml.ops.decisions`, the tags of a
version), never derived from the present state. Each function prints lines for people and returns the facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from ml.console import print_table
from ml.ops import decisions
from ml.registry import model_versions, production
from ml.registry.model_versions import Version


def read_production(model: str, at: datetime | None = None) -> dict[str, Any]:
    """The entry of the production log that was in force at a moment (default: now).

    Facts: version (None before the first promotion), since, until, kind, before, why, by, run, approver, digest, …
    """
    entries = production.read_history(model)
    past = [entry for entry in entries if at is None or entry.moment <= at]
    when = f"at {at.isoformat()}" if at else "now"
    if not past:
        print(f"{model}: no version was in production {when}")
        return {"version": None, "at": at, "first": entries[0].at if entries else None}
    entry = past[-1]
    facts = {
        "version": entry.version,
        "since": entry.at,
        "until": entries[len(past)].at if len(past) < len(entries) else None,
        "kind": entry.kind,
        "before": entry.before,
        "why": list(entry.why),
        "by": entry.by,
        "run": entry.run,
        "run_key": entry.run_key,
        "approver": entry.approver,
        "decision": entry.decision,
        "model_digest": entry.digest,
        "training_set_version": entry.training_set_version,
        "features": None
        if entry.features is None
        else {table: list(columns) for table, columns in entry.features.items()},
    }
    print(f"{model} version {entry.version} is in production {when}")
    print_table([(name, "; ".join(value) if isinstance(value, list) else value) for name, value in facts.items()])
    return facts


def list_decisions(model: str) -> dict[str, Any]:
    """Facts: events, oldest first, each as recorded in `ops.decisions`."""
    events = decisions.read_events(model)
    rows: list[Sequence[object]] = [("at", "event", "version", "in production", "approved", "by", "why")]
    for event in events:
        before = event.before or "none"
        champion = before if event.before == event.after else f"{before} → {event.after}"
        at = f"{event.at:%Y-%m-%d %H:%M:%S}" if event.at else ""
        approved = "yes" if event.approved else "no"
        by = event.approver or event.by
        rows.append((at, event.event, event.version, champion, approved, by, "; ".join(event.reasons)))
    print_table(rows)
    return {"events": [asdict(event) for event in events]}


def compare_versions(versions: Sequence[Version], evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare versions of one model, each with the content of its `evaluation.json`.

    Facts: versions (of each its tags, training set, metrics and last decision), and same_test_rows.
    """
    columns = {
        version.number: _describe(version, evaluation)
        for version, evaluation in zip(versions, evaluations, strict=True)
    }
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    print_table(
        [
            ("", *(f"version {version.number}" for version in versions)),
            *((name, *(columns[version.number].get(name) for version in versions)) for name in names),
        ]
    )
    same = all(
        len({column[name] for column in columns.values()}) == 1
        for name in ("training_set_version", "test", "test_rows")
    )
    if not same:
        print("metrics are of different test rows: evaluate the newer version again to compare on the same rows")
    return {"versions": columns, "same_test_rows": same}


def _describe(version: Version, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """How a version was trained, how it measured, and what the gate last decided on it."""
    tags = {name: version.tags.get(name) for name in ("algorithm", "commit", "config_digest", model_versions.DIGEST)}
    return {
        **tags,
        **{name: value for name, value in version.tags.items() if name.startswith("source.")},
        "training_set_version": version.tags.get("training_set_version"),
        "test": ", ".join(evaluation["test_as_of"]),
        "test_rows": evaluation["rows"],
        "gate": _last_verdict(version),
        **{name: (metric or {}).get("value") for name, metric in evaluation["metrics"]["challenger"].items()},
    }


def _last_verdict(version: Version) -> str:
    decision = decisions.read_newest(version.model, "gate", version.number)
    if decision is None:
        return "not decided"
    return "approved" if decision.approved else "; ".join(decision.reasons)
