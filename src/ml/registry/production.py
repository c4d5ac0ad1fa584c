"""The version in production, and everything that follows from the production log (`ml.ops.production_log`).

The log's entry is the promotion, and nothing before it needs undoing. What follows from it (the row of `ops.decisions`,
the aliases and tags in MLflow) is written from the entry by `settle`; when the writer has died, the next process does it.
Every stage that needs the champion reads the log. An alias moved by hand puts nothing into production.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ml.errors import StageError
from ml.ops import decisions
from ml.ops.production_log import Entry, claim, current_entry, previous_version, read_history
from ml.registry import model_versions

if TYPE_CHECKING:
    from ml.registry.model_versions import Version

__all__ = [
    "Entry",
    "claim",
    "current_entry",
    "get_champion",
    "pinned_version",
    "previous_version",
    "read_history",
    "settle",
]

NO_CHAMPION = "no champion yet: no version of {model} is in production, so there is nothing to {do} with"
PROMOTED = "promotion"  # tag of a version in MLflow: when, after which version and by which run it was promoted
TAKEN_BACK = "taken_back"  # tag of a version that was rolled back; it is not promoted again


def get_champion(model: str) -> Version | None:
    """The registered version in production, pinned to the digest it was promoted with. None before the first promotion."""
    now = current_entry(model)
    return None if now is None else pinned_version(now)


def pinned_version(entry: Entry) -> Version:
    """An entry's version, with the digest of the entry instead of MLflow's: files are checked against it when loaded."""
    version = model_versions.get_version(entry.model, entry.version)
    return replace(version, tags={**version.tags, model_versions.DIGEST: entry.digest})


def settle(model: str) -> Entry | None:
    """Complete everything that follows from the log (decision rows, aliases, tags), and return the last entry.

    Safe at any time and from several processes at once: each reads the log again after it has written the aliases, so
    the last writer of an alias has seen the newest entry.
    """
    while True:
        entries = read_history(model)
        if not entries:
            return None
        _record_event(entries[-1])
        _update_mlflow(entries)
        now = current_entry(model)
        if now is None or now.number == entries[-1].number:
            return now


def _record_event(entry: Entry) -> None:
    """Write the entry's row of `ops.decisions`, unless it exists."""
    if decisions.is_recorded(entry.event):
        return
    decisions.record(
        decisions.Event(
            id=entry.event,
            event=entry.kind,
            model=entry.model,
            version=entry.version,
            before=entry.before,
            after=entry.version,
            approved=True,
            reasons=entry.why,
            evaluation=entry.evaluation,
            model_digest=entry.digest,
            training_set_version=entry.training_set_version,
            approver=entry.approver,
            by=entry.by,
            run_key=entry.run_key,
            run=entry.run,
            told={"entry": entry.number, "decision": entry.decision, "approval": entry.approval},
            at=entry.moment,
        )
    )


def _update_mlflow(entries: Sequence[Entry]) -> None:
    """Set tags and aliases in MLflow, for people who look there."""
    entry = entries[-1]
    facts: dict[str, Any] = {"at": entry.at, "run_key": entry.run_key}
    if entry.kind == "promotion":
        _set_tag(entry.model, entry.version, PROMOTED, facts | {"before": entry.before})
    elif entry.before is not None:
        _set_tag(entry.model, entry.before, TAKEN_BACK, facts | {"to": entry.version, "why": "; ".join(entry.why)})
    aliases = model_versions.get_aliases(entry.model)
    older = previous_version(entries)
    if older is not None and _find_version(entry.model, older) is None:
        older = None
    if aliases.get(model_versions.CHAMPION) != entry.version:
        model_versions.move_alias(entry.model, model_versions.CHAMPION, entry.version)
    if older is None:
        if model_versions.PREVIOUS in aliases:
            model_versions.drop_alias(entry.model, model_versions.PREVIOUS)
    elif aliases.get(model_versions.PREVIOUS) != older:
        model_versions.move_alias(entry.model, model_versions.PREVIOUS, older)


def _set_tag(model: str, number: str, key: str, value: dict[str, Any]) -> None:
    version = _find_version(model, number)
    if version is not None and version.json_tag(key) != value:
        model_versions.set_tag(version, key, value)


def _find_version(model: str, number: str) -> Version | None:
    """A registered version; None when somebody has deleted it, which must not stop other promotions."""
    try:
        return model_versions.get_version(model, number)
    except StageError:
        return None
