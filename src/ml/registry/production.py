"""Which version is in production: a log of entries, one file each, of which the last one counts.

MLflow's aliases know no compare-and-set, so they cannot be the truth. Here an entry is a file that is made only if it
is not there yet (Blob Storage: `If-None-Match: *`; a folder: a hard link). Entry n + 1 is written by whoever read entry
n as the last one: of any number at once exactly one comes through, and the others read who it was. That one write is
the promotion. It has nothing before it to be undone, and what follows from it (the row of `ops.decisions`, aliases and
tags in MLflow) is made from the entry by `settle`, by whoever comes next when the writer has died.
Every stage that asks for the champion reads this log. An alias moved by hand puts nothing into production.
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

if TYPE_CHECKING:
    from ml.registry.model_versions import Version

if TYPE_CHECKING:
    pass

PROMOTED = "promotion"  # tag of a version in MLflow: when, from what and by which run it was promoted
TAKEN_BACK = "taken_back"  # tag of a version that was wrong; it is not promoted again


@dataclass(frozen=True)
class Entry:
    """One change of what is in production."""

    number: int  # 1, 2, …
    kind: Literal["promotion", "rollback"]
    model: str
    version: str  # in production from now on
    before: str | None  # the version it replaces
    digest: str  # of the version's files: what is served must have it
    run_key: str
    run: str  # <dag id>/<run id>; empty when a person asked for it at a shell
    by: str
    why: tuple[str, ...]
    decision: str | None = None  # event of the gate that approved it
    approval: str | None = None  # event in which a person agreed
    approver: str | None = None
    evaluation: str | None = None
    training_set_version: str | None = None
    at: str = ""  # UTC; set by `claim`
    token: str = ""  # tells one writer's entry from another's; set by `claim`

    def __str__(self) -> str:
        asked = f"{self.run or 'by hand'}, run key {self.run_key!r}"
        return f"{self.kind} {self.number} of {self.model}: version {self.version} since {self.at} ({asked})"

    @property
    def moment(self) -> datetime:
        return datetime.fromisoformat(self.at)

    @property
    def event(self) -> str:
        """The id of its row in `ops.decisions`."""
        return f"{self.model}-production-{self.number}"


_read: dict[tuple[str, str, str], Entry] = {}


def _folder(model: str) -> str:
    return f"ops/_production/{model}/"


def history(model: str) -> list[Entry]:
    """Every change of what is in production, oldest first."""
    from ml.storage import stores, tables

    place, files = stores.lake(), f"{tables.root()} {os.environ.get('AZURE_STORAGE_ACCOUNT_NAME', '')}"
    found = []
    for blob in place.list(_folder(model)):
        key = (files, blob.name, blob.etag)
        if key not in _read:  # written once and never again: a second reading would say the same
            _read[key] = _entry(place.read(blob.name))
        found.append(_read[key])
    return found


def current(model: str) -> Entry | None:
    """The last change, whose version is in production; None before the first promotion."""
    from ml.storage import stores

    lake = stores.lake()
    files = lake.list(_folder(model))  # numbers have leading zeros: by name is by number
    return _entry(lake.read(files[-1].name)) if files else None


def champion(model: str) -> Version | None:
    """The registered version in production, bound to the digest it was promoted with. None before the first promotion."""

    now = current(model)
    return None if now is None else bound(now)


def bound(entry: Entry) -> Version:
    """An entry's version; what is loaded of it must have the digest that stands in the entry, not one from MLflow."""
    from ml.registry import model_versions

    found = model_versions.version(entry.model, entry.version)
    return replace(found, tags={**found.tags, model_versions.DIGEST: entry.digest})


def _entry(content: bytes) -> Entry:
    told: dict[str, Any] = json.loads(content)
    return Entry(**told | {"why": tuple(told["why"])})


def claim(entry: Entry, last: Entry | None) -> Entry:
    """Write `entry` after `last`, the newest one that was seen; the one step in which a promotion happens.

    Raises StageError naming the entry that came first, when somebody else's did.
    """
    from ml.storage import stores

    now = datetime.now(UTC)
    if last is not None:  # two machines' clocks may differ; the order of entries is the order of their times
        now = max(now, last.moment + timedelta(microseconds=1))
    number = last.number + 1 if last else 1
    entry = replace(entry, number=number, at=now.isoformat(timespec="microseconds"), token=secrets.token_hex(8))
    content = json.dumps(asdict(entry), sort_keys=True, indent=1).encode()
    name = f"{_folder(entry.model)}{number:08}.json"
    if stores.lake().create(name, content):
        return entry
    winner = _entry(stores.lake().read(name))
    raise StageError(
        f"{entry.model} version {entry.version} was to replace {last.version if last else 'none'} and came second: "
        f"{winner}. Evaluate and decide again against version {winner.version}"
    )


def previous(entries: Sequence[Entry]) -> str | None:
    """The version that the one in production replaced when it was promoted."""
    now = entries[-1].version
    return next((one.before for one in reversed(entries) if one.version == now and one.kind == "promotion"), None)


def settle(model: str) -> Entry | None:
    """Bring everything that follows from the log in step with it, and return the last entry.

    Safe at any time, by any number at once: whoever writes an alias last has read the log after writing it.
    """
    while True:
        entries = history(model)
        if not entries:
            return None
        _record(entries[-1])
        _show(entries)
        now = current(model)
        if now is None or now.number == entries[-1].number:
            return now


def _record(entry: Entry) -> None:
    """The entry's row in `ops.decisions`."""
    from ml.ops import decisions

    if decisions.recorded(entry.event):
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


def _show(entries: Sequence[Entry]) -> None:
    """Tags and aliases in MLflow, for people who look there."""
    from ml.registry import model_versions

    entry = entries[-1]
    told: dict[str, Any] = {"at": entry.at, "run_key": entry.run_key}
    if entry.kind == "promotion":
        _tag(entry.model, entry.version, PROMOTED, told | {"before": entry.before})
    elif entry.before is not None:
        _tag(entry.model, entry.before, TAKEN_BACK, told | {"to": entry.version, "why": "; ".join(entry.why)})
    aliases = model_versions.aliases(entry.model)
    older = previous(entries)
    if older is not None and _there(entry.model, older) is None:
        older = None
    if aliases.get(model_versions.CHAMPION) != entry.version:
        model_versions.move_alias(entry.model, model_versions.CHAMPION, entry.version)
    if older is None:
        if model_versions.PREVIOUS in aliases:
            model_versions.drop_alias(entry.model, model_versions.PREVIOUS)
    elif aliases.get(model_versions.PREVIOUS) != older:
        model_versions.move_alias(entry.model, model_versions.PREVIOUS, older)


def _tag(model: str, number: str, key: str, value: dict[str, Any]) -> None:
    from ml.registry import model_versions

    found = _there(model, number)
    if found is not None and found.json_tag(key) != value:
        model_versions.tag(found, key, value)


def _there(model: str, number: str) -> Version | None:
    """A registered version; None when somebody has deleted it, which must not stop what others do."""
    from ml.registry import model_versions

    try:
        return model_versions.version(model, number)
    except StageError:
        return None


NO_CHAMPION = "no champion yet: no version of {model} has passed the gate, so there is nothing to {do} with"
