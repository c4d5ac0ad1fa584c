"""Rolls back to a version that was in production before: one atomic entry in the production log.

The gate does not decide again: that version passed it and has scored days. It reads the feature tables that it read then. A run key makes a repeated rollback have no
effect, and the version that was rolled back cannot be promoted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ml.config import ModelConfig, load_model
from ml.errors import StageError
from ml.ops import built_days
from ml.registry import model_versions, production
from ml.registry.production import Entry


def roll_back(
    model: str, why: str, *, run_key: str, version: str | None = None, run: str = "", by: str = ""
) -> dict[str, Any]:
    """Put an earlier champion that scored a day (by default the last one) into production; the current one is out for good.

    Facts: before and after (versions), changed, why. Raises StageError when there is no such version, when its files
    have changed, and when the champion has changed since this run key rolled back.
    """
    config = load_model(model)
    if not why.strip():
        raise StageError("the reason is empty: say why the champion is wrong; it is recorded with the decision")
    now = production.settle(config.model)
    if now is None:
        raise StageError(f"{config.model} has no champion, so there is nothing to roll back")
    entries = production.read_history(config.model)
    for entry in entries:
        if (entry.kind, entry.run_key) == ("rollback", run_key):
            if entry.number != now.number:
                raise StageError(
                    f"run key {run_key!r} already rolled back version {entry.before} to {entry.version} at {entry.at}, "
                    f"and the champion has changed since then ({now}). If that one is wrong too, use a new run key"
                )
            return {"before": entry.before, "after": entry.version, "changed": False, "why": entry.why[0]}
    target = _find_target(config, entries, version)
    model_versions.verify(production.pinned_version(target))
    entry = production.claim(
        Entry(
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
            features=target.features,
            population=target.population,
        ),
        now,
    )
    production.settle(config.model)
    return {"before": entry.before, "after": entry.version, "changed": True, "why": why}


def _find_target(config: ModelConfig, entries: Sequence[Entry], requested: str | None) -> Entry:
    """The newest entry of another version (the requested one, if any) that scored a day and was not rolled back."""
    scored = {entry.model_version for entry in built_days.read_entries(node=f"{config.model}.score")}
    now = entries[-1]
    rolled_back = {entry.before for entry in entries if entry.kind == "rollback"}
    for entry in reversed(entries):
        usable = entry.version in scored - rolled_back
        if entry.version != now.version and usable and requested in (None, entry.version):
            return entry
    if requested is not None:
        raise StageError(
            f"{config.model} version {requested} cannot be rolled back to: it must be an earlier champion that has "
            f"scored a day and was not rolled back. python -m ml registry history --model {config.model} lists them"
        )
    raise StageError(
        f"{config.model} version {now.version} cannot be rolled back: no earlier champion has scored a day without being "
        "rolled back itself. Train another version"
    )
