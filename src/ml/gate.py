"""May this version become champion? Every rule is tried and every reason told; what was not measured has failed.

`decide` is pure. The stage binds a decision to the evaluation it read, to the rules of the config and
to the champion of that moment, and keeps it in `ops.decisions` (see `ml.audit`) and as a tag of the version. A
rejection is a result, not an error.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ml import config as configs
from ml.cli import StageError

if TYPE_CHECKING:
    from ml import audit
    from ml.registry import Version

TAG = "decision"  # of a version in MLflow, for people who look there; what counts stands in `ops.decisions`
SLACK = 1e-9  # 0.84 - 0.82 is a hair above 0.02 in floating point; at the limit is within it


@dataclass(frozen=True)
class Check:
    """One rule tried. Numbers are None where they were not measured or do not apply."""

    rule: str
    measured: float | None
    bound: str
    champion: float | None
    passed: bool
    reason: str  # why it failed; empty when it passed


@dataclass(frozen=True)
class Decision:
    approved: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]


def decide(gate: configs.Gate, evaluation: Mapping[str, Any]) -> Decision:
    """Try every rule, so that one rejection names all its causes.

    `evaluation` is what `ml.evaluate` gives. Whether there is a champion to beat is told by its
    `champion` being a version: a champion without measurements fails the rules that compare with it.
    """
    metrics = evaluation.get("metrics") or {}
    new = metrics.get("challenger") or {}
    old = (metrics.get("champion") or {}) if evaluation.get("champion") is not None else None
    rows = evaluation.get("rows") or 0
    enough = rows >= gate.min_rows
    why = "" if enough else f"evaluated on {rows} rows; {gate.min_rows} needed"
    checks = [Check("rows", rows, f"at least {gate.min_rows}", None, enough, why)]
    for rule in gate.rules:
        checks.append(_bound(rule, _value(new, rule.metric)))
        if rule.max_loss is not None and old is not None:
            checks.append(_loss(rule, _value(new, rule.metric), _value(old, rule.metric), evaluation["champion"]))
    reasons = tuple(check.reason for check in checks if not check.passed)
    return Decision(not reasons, reasons, tuple(checks))


def _value(metrics: Mapping[str, Any], name: str) -> float:
    """A measured metric; NaN, which passes no comparison, when it was not measured."""
    value = (metrics.get(name) or {}).get("value")
    return math.nan if value is None else float(value)


def _told(value: float) -> float | None:
    return None if math.isnan(value) else value


def _bound(rule: configs.Rule, new: float) -> Check:
    if rule.at_least is not None:
        bound, passed = f"at least {rule.at_least:g}", new >= rule.at_least - SLACK
    else:
        assert rule.at_most is not None  # the config sees to it that one of the two is set
        bound, passed = f"at most {rule.at_most:g}", new <= rule.at_most + SLACK
    if math.isnan(new):
        why = f"{rule.metric} was not measured; must be {bound}"
    else:
        why = "" if passed else f"{rule.metric} is {new:.4f}; must be {bound}"
    return Check(rule.metric, _told(new), bound, None, passed, why)


def _loss(rule: configs.Rule, new: float, old: float, champion: str) -> Check:
    loss = old - new if rule.at_least is not None else new - old
    passed = loss <= (rule.max_loss or 0) + SLACK
    bound = f"at most {rule.max_loss:g} worse than champion {champion}"
    if math.isnan(old):
        why = f"{rule.metric} of champion {champion} was not measured; the challenger must be {bound}"
    elif math.isnan(new):
        why = f"{rule.metric} was not measured; must be {bound}, which has {old:.4f}"
    else:
        why = "" if passed else f"{rule.metric} is {new:.4f}, {loss:.4f} worse than the champion; must be {bound}"
    return Check(f"{rule.metric} against the champion", _told(new), bound, _told(old), passed, why)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", required=True, help="registered version to decide on")


def run(args: argparse.Namespace) -> dict[str, Any]:
    return decide_version(args.model, args.version)


def decide_version(model: str, number: str, *, run: str = "", by: str = "") -> dict[str, Any]:
    """Decide on a registered version by its evaluation, and record it; the same question gives the recorded answer.

    `run` (a Dag's run) and `by` (who asked) are kept with it. Raises StageError when the evaluation compared it with
    another champion than today's.
    """
    from ml import audit, evaluate, production, registry

    config = configs.load(model)
    version = registry.version(config.model, number)
    content = registry.artifact(version, evaluate.FILE)
    evaluation = json.loads(content)
    key = _key(version, content, config.gate)
    recorded = audit.newest(config.model, "gate", version.number)
    champion = production.settle(config.model)
    serving = champion.version if champion else None
    if serving == version.number and recorded is not None:
        return _facts(recorded)  # decided, promoted, and asked again
    if serving != evaluation["champion"]:
        raise StageError(
            f"champion changed since evaluation: {version} was compared with {evaluation['champion'] or 'none'}, "
            f"the champion is now {serving or 'none'}; evaluate again "
            f"(python -m ml evaluate --model {config.model} --version {version.number})"
        )
    if recorded is None or recorded.id != key:
        recorded = _record(version, evaluation, key, evaluate.digest(content), decide(config.gate, evaluation), run, by)
    if (version.json_tag(TAG) or {}).get("id") != recorded.id:
        registry.tag(version, TAG, {"id": recorded.id, **_facts(recorded)})
    return _facts(recorded)


def _key(version: Version, evaluation: bytes, gate: configs.Gate) -> str:
    """One decision per version, its files, evaluation and set of rules."""
    from ml.audit import event_id

    digest = hashlib.sha256(evaluation).hexdigest()
    return event_id("gate", version.model, version.number, version.digest, gate.model_dump_json(), digest)


def _record(
    version: Version,
    evaluation: Mapping[str, Any],
    key: str,
    digest: str,
    decision: Decision,
    run: str,
    by: str,
) -> audit.Event:
    """Keep a decision in `ops.decisions`; one already there (a process died before tagging) is the one that counts."""
    from ml import audit

    return audit.record(
        audit.Event(
            id=key,
            event="gate",
            model=version.model,
            version=version.number,
            before=evaluation["champion"],
            after=evaluation["champion"],
            approved=decision.approved,
            reasons=decision.reasons,
            evaluation=digest,
            model_digest=version.digest,
            training_set_version=str(evaluation["training_set_version"]),
            rules=tuple(asdict(check) for check in decision.checks),
            by=by,
            run_key=evaluation["run_key"],
            run=run,
        )
    )


def _facts(recorded: audit.Event) -> dict[str, Any]:
    return {
        "id": recorded.id,
        "approved": recorded.approved,
        "reasons": list(recorded.reasons),
        "checks": [dict(rule) for rule in recorded.rules],
        "version": recorded.version,
        "champion": recorded.before,
        "evaluation": recorded.evaluation,
        "decided_at": recorded.at.isoformat() if recorded.at else None,
    }
