"""What an auditor asks: `python -m ml registry production | history | compare | lineage | feeds`.

Every answer is read from what was recorded when it happened (`ml.registry.production`, `ml.ops.decisions`, `ml.ops.built_days`, the tags of a
version), never guessed from how things are now. Lines for people first; the facts are the last line, as of every stage.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ml.config import load_model
from ml.console import parse_day, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asks = parser.add_subparsers(dest="question", required=True, metavar="question")
    one = asks.add_parser("production", help="which version is, or was at a moment, in production, and why")
    one.add_argument("--at", type=_moment, help="a moment, such as 2026-11-03T10:00Z (default: now)")
    asks.add_parser("history", help="every decision: gate, approval, promotion, rollback")
    one = asks.add_parser("compare", help="two versions: what they learnt from, how they measured, what was decided")
    one.add_argument("versions", nargs=2, metavar="version")
    one = asks.add_parser("lineage", help="from a customer's score back to table versions and commit")
    one.add_argument("--score-day", type=parse_day, required=True)
    one.add_argument("--customer", required=True, help="the customer's key, as in the score table")
    one = asks.add_parser("feeds", help="what a table's version went into: features, training sets, models, scores")
    one.add_argument("--table", required=True, help="such as silver.customer_days")
    one.add_argument("--version", type=int, required=True)
    one.add_argument("--through", type=int, help="up to this version, which put things right (default: only the one)")


def _moment(text: str) -> datetime:
    try:
        told = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: a moment such as 2026-11-03T10:00Z is needed") from error
    return told.replace(tzinfo=told.tzinfo or UTC)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ml.registry import lineage, production

    config = load_model(args.model)
    production.settle(config.model)  # what a run that died has left undone is done before it is told
    match args.question:
        case "production":
            return in_production(config.model, args.at)
        case "history":
            return history(config.model)
        case "compare":
            return compare(config.model, *args.versions)
        case "lineage":
            return lineage.of_score(config, args.score_day, args.customer)
    return lineage.feeds(config, args.table, args.version, args.version if args.through is None else args.through)


def in_production(model: str, at: datetime | None) -> dict[str, Any]:
    """Facts: version (None before the first promotion), since, until, kind, before, why, by, run, approver, digest, …"""
    from ml.registry import production

    entries = production.history(model)
    past = [entry for entry in entries if at is None or entry.moment <= at]
    when = f"at {at.isoformat()}" if at else "now"
    if not past:
        print(f"{model}: no version was in production {when}")
        return {"version": None, "at": at, "first": entries[0].at if entries else None}
    entry = past[-1]
    until = entries[len(past)].at if len(past) < len(entries) else None
    told = {
        "version": entry.version,
        "since": entry.at,
        "until": until,
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
    }
    print(f"{model} version {entry.version} is in production {when}")
    print_table([(name, "; ".join(value) if isinstance(value, list) else value) for name, value in told.items()])
    return told


def history(model: str) -> dict[str, Any]:
    """Facts: events, oldest first, each as it stands in `ops.decisions`."""
    from ml.ops import decisions

    found = decisions.events(model)
    rows: list[Sequence[object]] = [("at", "event", "version", "in production", "result", "by", "why")]
    for one in found:
        moved = one.before or "none" if one.before == one.after else f"{one.before or 'none'} → {one.after}"
        result = "yes" if one.approved else "no"
        at = f"{one.at:%Y-%m-%d %H:%M:%S}" if one.at else ""
        rows.append((at, one.event, one.version, moved, result, one.approver or one.by, "; ".join(one.reasons)))
    print_table(rows)
    return {"events": [_plain(one) for one in found]}


def _plain(event: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(event)


def compare(model: str, one: str, other: str) -> dict[str, Any]:
    """Facts: versions, and of each what it came from, its metrics and its last decision; whether the test rows are the same."""
    from ml.evaluate import record
    from ml.ops import decisions
    from ml.registry import model_versions

    found = {}
    for number in (one, other):
        version = model_versions.version(model, number)
        evaluation = json.loads(model_versions.artifact(version, record.FILE))
        decision = decisions.newest(model, "gate", version.number)
        told = {
            name: version.tags.get(name) for name in ("algorithm", "commit", "config_digest", model_versions.DIGEST)
        }
        told |= {name: value for name, value in version.tags.items() if name.startswith("source.")}
        told |= {
            "training_set_version": version.tags.get("training_set_version"),
            "test": ", ".join(evaluation["test_as_of"]),
            "test_rows": evaluation["rows"],
            "gate": "not asked"
            if decision is None
            else "approved"
            if decision.approved
            else "; ".join(decision.reasons),
            **{name: (value or {}).get("value") for name, value in evaluation["metrics"]["challenger"].items()},
        }
        found[number] = told
    names = list(dict.fromkeys([*found[one], *found[other]]))
    print_table(
        [("", f"version {one}", f"version {other}"), *((n, found[one].get(n), found[other].get(n)) for n in names)]
    )
    compared = ("training_set_version", "test", "test_rows")
    same = all(found[one][name] == found[other][name] for name in compared)
    if not same:
        print("their metrics are of different test rows: evaluate the newer one again to compare on the same rows")
    return {"versions": found, "same_test_rows": same}
