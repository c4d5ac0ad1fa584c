"""Promotes an approved version: one atomic entry in the production log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, load_model
from ml.errors import StageError

if TYPE_CHECKING:
    from ml.ops.decisions import Event
    from ml.registry.model_versions import Version
    from ml.registry.production import Entry


def promote_version(model: str, number: str, *, run_key: str, run: str = "", by: str = "") -> dict[str, Any]:
    """Promote once; asked again while the version is in production, or with the same run key, it changes nothing.

    Facts: before and after (versions), changed, and a note when nothing was. Raises StageError without an approval
    that still holds (of these files, as evaluated, against this champion), and when another promotion came first.
    """
    from ml.registry import model_versions, production

    config = load_model(model)
    version = model_versions.version(config.model, number)
    now = production.settle(config.model)  # whatever died before this one is completed first
    if done := _done(config.model, version.number, run_key, now):
        return done
    decision = require_approval(config, version, now)
    model_versions.verify(version)
    entry = production.claim(_entry(config, version, decision, now, run_key, run, by), now)
    production.settle(config.model)
    return {"before": entry.before, "after": entry.version, "changed": True}


def _done(model: str, number: str, run_key: str, now: Entry | None) -> dict[str, Any] | None:
    """The facts of a promotion that has happened: of the version that is in production, or by this run key."""
    from ml.registry import production

    if now is None:
        return None
    if now.version == number:
        note = f"{model} version {number} is champion already"
        return {"before": now.before, "after": number, "changed": False, "note": note}
    for entry in production.history(model):
        if (entry.kind, entry.version, entry.run_key) == ("promotion", number, run_key):
            note = f"this run key has promoted it before; since then: {now}"
            return {"before": entry.before, "after": number, "changed": False, "note": note}
    return None


def _entry(
    config: ModelConfig, version: Version, decision: Event, now: Entry | None, run_key: str, run: str, by: str
) -> Entry:
    from ml.promote import approval
    from ml.registry import production

    agreed = approval.granted(config, decision)
    why = f"approved by the gate against {now.version if now else 'none'} (decision {decision.id})"
    said = (f"approved by {agreed.approver} (approval {agreed.id})",) if agreed else ()
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
        why=(why, *said),
        decision=decision.id,
        approval=agreed.id if agreed else None,
        approver=agreed.approver if agreed else None,
        evaluation=decision.evaluation,
        training_set_version=decision.training_set_version,
    )


def require_approval(config: ModelConfig, version: Version, now: Entry | None) -> Event:
    """The decision that approves this version, with these files, as evaluated, against this champion.

    Raises StageError when there is none, or a person's is missing.
    """
    from ml.evaluate import record
    from ml.ops import decisions
    from ml.promote import approval
    from ml.registry import model_versions, production

    champion = now.version if now else None
    for entry in production.history(config.model):
        if entry.kind == "rollback" and entry.before == version.number:
            raise StageError(
                f"{version} was champion and was taken back ({'; '.join(entry.why)}): its approval does not count any "
                "more. Train another version"
            )
    decision = decisions.newest(config.model, "gate", version.number)
    if decision is None:
        raise StageError(f"{version} has no recorded decision: run the stage 'gate' first")
    if not decision.approved:
        raise StageError(f"{version} was rejected by the gate: {'; '.join(decision.reasons)}")
    if decision.before != champion:
        raise StageError(
            f"{version} was approved against champion {decision.before or 'none'}, and the champion is now "
            f"{champion or 'none'} ({now or 'nothing was promoted'}): evaluate and decide again"
        )
    if decision.evaluation != record.digest(model_versions.artifact(version, record.FILE)):
        raise StageError(f"{version} was evaluated again after the decision: run the stage 'gate' again")
    if decision.model_digest != version.digest:
        raise StageError(
            f"{version} was approved with files of digest {decision.model_digest}, and its record says {version.digest} "
            "now: somebody has changed it. Train another version"
        )
    approval.granted(config, decision)
    return decision
