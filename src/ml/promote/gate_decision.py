"""The gate's decision on a registered version, bound to its evaluation, rules and champion, and recorded.

The record is in `ops.decisions` (see `ml.ops.decisions`). A copy for people is a tag of the version in MLflow.
A rejection is a result, not an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ml.config import load_model
from ml.config.gate import Gate
from ml.errors import StageError
from ml.evaluate import record
from ml.gate.decide import Decision, decide
from ml.ops import decisions
from ml.registry import model_versions, production

if TYPE_CHECKING:
    from ml.registry.model_versions import Version

TAG = "decision"  # of a version in MLflow, for people; the row in `ops.decisions` is what counts


def decide_version(model: str, number: str, *, run: str = "", by: str = "") -> dict[str, Any]:
    """Decide on a registered version by its evaluation, and record the decision.

    With the same evaluation, rules and files the recorded decision is returned. `run` (a Dag run) and `by` (who
    requested it) are recorded. Raises StageError when the evaluation compared it with another champion than today's.
    """
    config = load_model(model)
    version = model_versions.get_version(config.model, number)
    content = model_versions.read_artifact(version, record.FILE)
    evaluation = json.loads(content)
    decision_id = _decision_id(version, content, config.gate)
    recorded = decisions.read_newest(config.model, "gate", version.number)
    champion = production.settle(config.model)
    serving = champion.version if champion else None
    if serving == version.number and recorded is not None:
        return _facts(recorded)  # already decided and promoted
    if serving != evaluation["champion"]:
        raise StageError(
            f"champion changed since evaluation: {version} was compared with {evaluation['champion'] or 'none'}, "
            f"the champion is now {serving or 'none'}; evaluate again "
            f"(python -m ml evaluate --model {config.model} --version {version.number})"
        )
    if recorded is None or recorded.id != decision_id:
        decision = decide(config.gate, evaluation)
        recorded = _record_decision(
            version, decision, evaluation, record.digest(content), decision_id=decision_id, run=run, by=by
        )
    if (version.json_tag(TAG) or {}).get("id") != recorded.id:
        model_versions.set_tag(version, TAG, {"id": recorded.id, **_facts(recorded)})
    return _facts(recorded)


def _decision_id(version: Version, evaluation: bytes, gate: Gate) -> str:
    """One decision per version, its files, its evaluation and the gate's rules."""
    digest = hashlib.sha256(evaluation).hexdigest()
    return decisions.event_id("gate", version.model, version.number, version.digest, gate.model_dump_json(), digest)


def _record_decision(
    version: Version,
    decision: Decision,
    evaluation: Mapping[str, Any],
    evaluation_digest: str,
    *,
    decision_id: str,
    run: str,
    by: str,
) -> decisions.Event:
    """Add the decision to `ops.decisions`; an existing one (a process died before tagging) is returned instead."""
    return decisions.record(
        decisions.Event(
            id=decision_id,
            event="gate",
            model=version.model,
            version=version.number,
            before=evaluation["champion"],
            after=evaluation["champion"],
            approved=decision.approved,
            reasons=decision.reasons,
            evaluation=evaluation_digest,
            model_digest=version.digest,
            training_set_version=str(evaluation["training_set_version"]),
            rules=tuple(asdict(check) for check in decision.checks),
            by=by,
            run_key=evaluation["run_key"],
            run=run,
        )
    )


def _facts(recorded: decisions.Event) -> dict[str, Any]:
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
