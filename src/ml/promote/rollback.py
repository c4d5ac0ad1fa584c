"""Rolls back to a version that served before: one atomic entry in the production log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, load_model
from ml.errors import StageError
from ml.ops import built_days

if TYPE_CHECKING:
    from ml.registry.production import Entry


def roll_back(
    model: str, why: str, *, run_key: str, version: str | None = None, run: str = "", by: str = ""
) -> dict[str, Any]:
    """Put the version that served before (or an earlier one that did) into production, and take today's out for good.

    Facts: before and after (versions), changed, why. Raises StageError when there is no such version, when its files
    are not what they were, and when the champion has moved since this run key went back.
    """
    from ml.registry import model_versions, production

    config = load_model(model)
    if not why.strip():
        raise StageError("say why the champion is wrong: it is kept with the decision")
    now = production.settle(config.model)
    if now is None:
        raise StageError(f"{config.model} has no champion: there is nothing to go back from")
    entries = production.history(config.model)
    for entry in entries:
        if (entry.kind, entry.run_key) == ("rollback", run_key):
            if entry.number != now.number:
                raise StageError(
                    f"run key {run_key!r} has replaced version {entry.before} by {entry.version} at {entry.at}, and "
                    f"since then there is another champion ({now}): somebody promoted meanwhile. If that one is wrong "
                    "too, ask again with a new run key"
                )
            return {"before": entry.before, "after": entry.version, "changed": False, "why": entry.why[0]}
    target = _served_before(config, entries, version)
    model_versions.verify(production.bound(target))
    entry = production.claim(
        production.Entry(
            number=0,
            kind="rollback",
            model=config.model,
            version=target.version,
            before=now.version,
            digest=target.digest,
            run_key=run_key,
            run=run,
            by=by,
            why=(why,),
            decision=target.decision,
            approval=target.approval,
            approver=target.approver,
            evaluation=target.evaluation,
            training_set_version=target.training_set_version,
        ),
        now,
    )
    production.settle(config.model)
    return {"before": entry.before, "after": entry.version, "changed": True, "why": why}


def _served_before(config: ModelConfig, entries: Sequence[Entry], wanted: str | None) -> Entry:
    """The newest entry of another version that has scored a day and was not taken back itself."""
    served = {entry.model_version for entry in built_days.entries(config.model, stage="score")}
    now = entries[-1]
    wrong = {entry.before for entry in entries if entry.kind == "rollback"}
    for entry in reversed(entries):
        if entry.version != now.version and entry.version in served - wrong and wanted in (None, entry.version):
            return entry
    if wanted is not None:
        raise StageError(
            f"{config.model} version {wanted} is no earlier champion that has scored a day and was not taken back: "
            f"python -m ml registry history --model {config.model} tells which there are"
        )
    raise StageError(
        f"no version served before {config.model} version {now.version}: there is nothing to go back to; train another one"
    )
