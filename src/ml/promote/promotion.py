"""Promotes an approved version: one atomic entry in the production log (`ml.registry.production`).

The entry also records which feature tables and columns the version reads, so it switches model and tables together.
Before that write nothing has happened, and after it everything else follows from it: when a process dies on the way, the
next one completes the promotion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, load_model
from ml.errors import StageError
from ml.evaluate import record
from ml.ops import decisions
from ml.promote import approval
from ml.registry import model_versions, pins, production

if TYPE_CHECKING:
    from ml.ops.decisions import Event
    from ml.registry.model_versions import Version
    from ml.registry.production import Entry


def promote_version(model: str, number: str, *, run_key: str, run: str = "", by: str = "") -> dict[str, Any]:
    """Put an approved version into production. Repeated while it is champion, or with the same run key: no effect.

    Facts: before and after (versions), changed, and a note when nothing was changed. Raises StageError without a valid
    approval (of these files, this evaluation, against this champion), and when another promotion came first.
    """
    config = load_model(model)
    version = model_versions.get_version(config.model, number)
    now = production.settle(config.model)  # completes the promotion of a process that died
    if facts := _already_promoted(config.model, version.number, run_key, now):
        return facts
    decision = require_approval(config, version, now)
    model_versions.verify(version)
    entry = production.claim(_build_entry(config, version, decision, now, run_key=run_key, run=run, by=by), now)
    production.settle(config.model)
    return {"before": entry.before, "after": entry.version, "changed": True}


def _already_promoted(model: str, number: str, run_key: str, now: Entry | None) -> dict[str, Any] | None:
    """The facts of an earlier promotion: of the version that is in production, or by this run key."""
    if now is None:
        return None
    if now.version == number:
        note = f"{model} version {number} is already champion"
        return {"before": now.before, "after": number, "changed": False, "note": note}
    for entry in production.read_history(model):
        if (entry.kind, entry.version, entry.run_key) == ("promotion", number, run_key):
            note = f"this run key has already promoted version {number}; the newest change since then: {now}"
            return {"before": entry.before, "after": number, "changed": False, "note": note}
    return None


def _build_entry(
    config: ModelConfig, version: Version, decision: Event, now: Entry | None, *, run_key: str, run: str, by: str
) -> Entry:
    granted = approval.require_granted(config, decision)
    by_gate = f"approved by the gate against {now.version if now else 'none'} (decision {decision.id})"
    by_person = (f"approved by {granted.approver} (approval {granted.id})",) if granted else ()
    return production.Entry(
        number=0,
        kind="promotion",
        model=config.model,
        version=version.number,
        before=now.version if now else None,
        digest=version.digest,
        run_key=run_key,
        run=run,
        by=by,
        why=(by_gate, *by_person),
        decision=decision.id,
        approval=granted.id if granted else None,
        approver=granted.approver if granted else None,
        evaluation=decision.evaluation,
        training_set_version=decision.training_set_version,
        **pins.record(pins.read_pins(version)),
    )


def require_approval(config: ModelConfig, version: Version, now: Entry | None) -> Event:
    """The gate's decision that approves this version, with these files, this evaluation and against this champion.

    Raises StageError when there is none, or when the approval of a person is missing.
    """
    champion = now.version if now else None
    for entry in production.read_history(config.model):
        if entry.kind == "rollback" and entry.before == version.number:
            raise StageError(
                f"{version} was champion and was rolled back ({'; '.join(entry.why)}): its approval is no longer valid. "
                "Train another version"
            )
    decision = decisions.read_newest(config.model, "gate", version.number)
    if decision is None:
        raise StageError(f"{version} has no recorded decision: run the stage 'gate' first")
    if not decision.approved:
        raise StageError(f"{version} was rejected by the gate: {'; '.join(decision.reasons)}")
    if decision.before != champion:
        raise StageError(
            f"{version} was approved against champion {decision.before or 'none'}, and the champion is now "
            f"{champion or 'none'} ({now or 'no version was ever promoted'}): evaluate and decide again"
        )
    if decision.evaluation != record.digest(model_versions.read_artifact(version, record.FILE)):
        raise StageError(f"{version} was evaluated again after the decision: run the stage 'gate' again")
    if decision.model_digest != version.digest:
        raise StageError(
            f"{version} was approved with files of digest {decision.model_digest}, but its recorded digest is now "
            f"{version.digest}: somebody has changed it. Train another version"
        )
    approval.require_granted(config, decision)
    return decision
