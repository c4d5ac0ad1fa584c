"""Which version is in production: a log of entries, one file each, of which the last one counts.

MLflow's aliases have no compare-and-set, so they cannot be the source of truth. Here an entry is a file that is created
only if it does not exist yet (Blob Storage: `If-None-Match: *`; a folder: a hard link). A process that read entry n as
the last one writes entry n + 1: of any number of processes at once exactly one succeeds, and the others read its entry.
That one write is the promotion. Nothing before it needs undoing. What follows from it (the row of `ops.decisions`, the
aliases and tags in MLflow) is written from the entry by `settle`; when the writer has died, the next process does it.
Every stage that needs the champion reads this log. An alias moved by hand puts nothing into production.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from ml.errors import StageError
from ml.ops import decisions
from ml.registry import model_versions
from ml.storage import stores, tables

if TYPE_CHECKING:
    from ml.registry.model_versions import Version

NO_CHAMPION = "no champion yet: no version of {model} is in production, so there is nothing to {do} with"
PROMOTED = "promotion"  # tag of a version in MLflow: when, after which version and by which run it was promoted
TAKEN_BACK = "taken_back"  # tag of a version that was rolled back; it is not promoted again


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One change of what is in production."""

    number: int  # 1, 2, …
    kind: Literal["promotion", "rollback"]
    model: str
    version: str  # in production from now on
    before: str | None  # the version it replaces
    digest: str  # sha256 of the version's files; only files with this digest are served
    run_key: str
    run: str  # <dag id>/<run id>; empty when a person ran the command
    by: str
    why: tuple[str, ...]
    decision: str | None = None  # id of the gate's event that approved it
    approval: str | None = None  # id of the event in which a person approved it
    approver: str | None = None
    evaluation: str | None = None
    training_set_version: str | None = None
    at: str = ""  # UTC; set by `claim`
    token: str = ""  # random, makes the content unique to its writer; set by `claim`

    def __str__(self) -> str:
        origin = f"{self.run or 'by hand'}, run key {self.run_key!r}"
        return f"{self.kind} {self.number} of {self.model}: version {self.version} since {self.at} ({origin})"

    @property
    def moment(self) -> datetime:
        return datetime.fromisoformat(self.at)

    @property
    def event(self) -> str:
        """The id of its row in `ops.decisions`."""
        return f"{self.model}-production-{self.number}"


_cache: dict[tuple[str, str, str], Entry] = {}


def _folder(model: str) -> str:
    return f"ops/_production/{model}/"


def read_history(model: str) -> list[Entry]:
    """Every change of what is in production, oldest first."""
    lake, address = stores.lake(), f"{tables.root()} {os.environ.get('AZURE_STORAGE_ACCOUNT_NAME', '')}"
    entries = []
    for blob in lake.list(_folder(model)):
        key = (address, blob.name, blob.etag)
        if key not in _cache:  # an entry is written once and never changed
            _cache[key] = _parse_entry(lake.read(blob.name))
        entries.append(_cache[key])
    return entries


def current_entry(model: str) -> Entry | None:
    """The last change, whose version is in production; None before the first promotion."""
    lake = stores.lake()
    files = lake.list(_folder(model))  # numbers have leading zeros, so the order by name is the order by number
    return _parse_entry(lake.read(files[-1].name)) if files else None


def get_champion(model: str) -> Version | None:
    """The registered version in production, pinned to the digest it was promoted with. None before the first promotion."""
    now = current_entry(model)
    return None if now is None else pinned_version(now)


def pinned_version(entry: Entry) -> Version:
    """An entry's version, with the digest of the entry instead of MLflow's: files are checked against it when loaded."""
    version = model_versions.get_version(entry.model, entry.version)
    return replace(version, tags={**version.tags, model_versions.DIGEST: entry.digest})


def _parse_entry(content: bytes) -> Entry:
    fields: dict[str, Any] = json.loads(content)
    return Entry(**fields | {"why": tuple(fields["why"])})


def claim(entry: Entry, last: Entry | None) -> Entry:
    """Write `entry` after `last`, the newest entry that was read: the one step in which a promotion happens.

    Raises StageError naming the other entry when another process wrote first.
    """
    now = datetime.now(UTC)
    if last is not None:  # clocks of two machines may differ; later entries must have later times
        now = max(now, last.moment + timedelta(microseconds=1))
    number = last.number + 1 if last else 1
    entry = replace(entry, number=number, at=now.isoformat(timespec="microseconds"), token=secrets.token_hex(8))
    content = json.dumps(asdict(entry), sort_keys=True, indent=1).encode()
    name = f"{_folder(entry.model)}{number:08}.json"
    if stores.lake().create(name, content):
        return entry
    winner = _parse_entry(stores.lake().read(name))
    raise StageError(
        f"{entry.model} version {entry.version} was not put into production in place of "
        f"{f'version {last.version}' if last else 'none'}, because another change came first: {winner}. Evaluate and decide again "
        f"against version {winner.version}"
    )


def previous_version(entries: Sequence[Entry]) -> str | None:
    """The version that the one in production replaced when it was promoted."""
    now = entries[-1].version
    return next(
        (entry.before for entry in reversed(entries) if entry.version == now and entry.kind == "promotion"), None
    )


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
