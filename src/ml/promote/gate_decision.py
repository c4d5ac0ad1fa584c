"""A gate decision on a registered version, bound to its evaluation, rules and champion, and recorded.

It is kept in `ops.decisions` (see `ml.ops.decisions`) and, for people who look there, as a tag of the version.
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
from ml.gate.decide import Decision, decide

if TYPE_CHECKING:
    from ml.ops import decisions
    from ml.registry.model_versions import Version

TAG = "decision"  # of a version in MLflow, for people who look there; what counts stands in `ops.decisions`


def decide_version(model: str, number: str, *, run: str = "", by: str = "") -> dict[str, Any]:
    """Decide on a registered version by its evaluation, and record it; the same question gives the recorded answer.

    `run` (a Dag's run) and `by` (who asked) are kept with it. Raises StageError when the evaluation compared it with
    another champion than today's.
    """
    from ml.evaluate import record
    from ml.ops import decisions
    from ml.registry import model_versions, production

    config = load_model(model)
    version = model_versions.version(config.model, number)
    content = model_versions.artifact(version, record.FILE)
    evaluation = json.loads(content)
    key = _key(version, content, config.gate)
    recorded = decisions.newest(config.model, "gate", version.number)
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
        recorded = _record(version, evaluation, key, record.digest(content), decide(config.gate, evaluation), run, by)
    if (version.json_tag(TAG) or {}).get("id") != recorded.id:
        model_versions.tag(version, TAG, {"id": recorded.id, **_facts(recorded)})
    return _facts(recorded)


def _key(version: Version, evaluation: bytes, gate: Gate) -> str:
    """One decision per version, its files, evaluation and set of rules."""
    from ml.ops.decisions import event_id

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
) -> decisions.Event:
    """Keep a decision in `ops.decisions`; one already there (a process died before tagging) is the one that counts."""
    from ml.ops import decisions

    return decisions.record(
        decisions.Event(
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
