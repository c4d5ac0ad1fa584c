"""May this version become champion? Every rule is tried and every reason told; what was not measured has failed.

`decide` is pure. The stage binds a decision to the evaluation it read, to the rules of the config and
to the champion of that moment, and keeps it in `ops.decisions` (see `ml.audit`) and as a tag of the version. A
rejection is a result, not an error.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ml import config as configs
from ml import gate_rules
from ml.cli import StageError
from ml.config_gate import Gate
from ml.gate_rules import Check

if TYPE_CHECKING:
    from ml import audit
    from ml.registry import Version

TAG = "decision"  # of a version in MLflow, for people who look there; what counts stands in `ops.decisions`


@dataclass(frozen=True)
class Decision:
    approved: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    against: str  # a sentence: how it stands to the champion


def decide(gate: Gate, evaluation: Mapping[str, Any]) -> Decision:
    """Try every rule, so that one rejection names all its causes.

    `evaluation` is what `ml.evaluate` gives. Whether there is a champion to beat is told by its
    `champion`, a version or None: one that is not told, or not measured, fails the rules that compare with it.
    """
    champion = evaluation.get("champion", "that is not named")
    checks = [*gate_rules.evidence(gate, evaluation), gate_rules.validation(evaluation), gate_rules.schema(evaluation)]
    checks += gate_rules.out_of_time(evaluation, champion)
    if champion is not None:
        checks.append(gate_rules.not_itself(evaluation, champion))
    for rule in gate.rules:
        checks.append(gate_rules.bound(rule, evaluation))
        if rule.max_loss is not None and champion is not None:
            checks.append(gate_rules.loss(rule, evaluation, champion))
    if champion is not None:
        checks.append(gate_rules.equal(gate, evaluation, champion))
    checks += [gate_rules.fairness(rule, evaluation) for rule in gate.fairness]
    checks += [gate_rules.behaviour(name, most, evaluation) for name, most in sorted(gate.max_violations.items())]
    checks += gate_rules.cost(gate, evaluation)
    reasons = tuple(check.reason for check in checks if not check.passed)
    return Decision(not reasons, reasons, tuple(checks), _against(gate, evaluation, champion))


def _against(gate: Gate, evaluation: Mapping[str, Any], champion: str | None) -> str:
    """Better, worse or equal, as far as the paired intervals can tell."""
    if champion is None:
        return "there is no champion to be compared with"
    gains = [gate_rules.gain(rule, evaluation) for rule in gate.rules if rule.max_loss is not None]
    if not all(by.measured for by in gains):
        return f"not measured against champion {champion}"
    better, worse = any(by.better for by in gains), any(by.high < -gate_rules.SLACK for by in gains)
    word = "neither better nor worse than" if better == worse else "better than" if better else "worse than"
    return f"{word} champion {champion}: {', '.join(map(str, gains))}"


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


def _key(version: Version, evaluation: bytes, gate: Gate) -> str:
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
