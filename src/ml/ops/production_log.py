"""The production log: which version of a model is in production. One file per entry, of which the last one counts.

MLflow's aliases have no compare-and-set, so they cannot be the source of truth. Here an entry is a file that is created
only if it does not exist yet (Blob Storage: `If-None-Match: *`; a folder: a hard link). A process that read entry n as
the last one writes entry n + 1: of any number of processes at once exactly one succeeds, and the others read its entry.
That one write is the promotion. It switches the model and the feature tables that it reads (`features`) together.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from ml.errors import StageError
from ml.storage import stores, tables


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
    # the columns it reads, by feature table; by table in silver for a model of examples. None: in entries written
    # before this was recorded, and for versions trained before it
    features: Mapping[str, tuple[str, ...]] | None = None
    population: Mapping[str, Any] | None = None  # query and settings that say who is scored; None: all rows
    at: str = ""  # UTC; set by `claim`
    token: str = ""  # random, makes the content unique to its writer; set by `claim`

    def __str__(self) -> str:
        origin = f"{self.run or 'by hand'}, run key {self.run_key!r}"
        return f"{self.kind} {self.number} of {self.model}: version {self.version} since {self.at} ({origin})"

    @property
    def moment(self) -> datetime:
        return datetime.fromisoformat(self.at)

    @property
    def tables(self) -> tuple[str, ...] | None:
        """The tables that it reads, the one that gives the rows first; None when they are not recorded."""
        if self.features is None:
            return None
        return tuple(name if "." in name else f"features.{name}" for name in self.features)

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


def _parse_entry(content: bytes) -> Entry:
    fields: dict[str, Any] = json.loads(content)
    features = fields.get("features")
    if features is not None:
        features = {table: tuple(columns) for table, columns in features.items()}
    return Entry(**fields | {"why": tuple(fields["why"]), "features": features})


def claim(entry: Entry, last: Entry | None) -> Entry:
    """Write `entry` after `last`, the newest entry that was read: the one step in which a promotion happens.

    Raises StageError naming the other entry when another process wrote first.
    """
    now = datetime.now(UTC)
    if last is not None:  # clocks of two machines may differ; later entries must have later times
        now = max(now, last.moment + timedelta(microseconds=1))
    number = last.number + 1 if last else 1
    entry = replace(entry, number=number, at=now.isoformat(timespec="microseconds"), token=secrets.token_hex(8))
    # in the order of the columns: the order is that of the model's input
    content = json.dumps(asdict(entry), indent=1).encode()
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


def replacement_of(version: str, entries: Sequence[Entry]) -> Entry | None:
    """The rollback that took a version out of production as wrong; its `version` took the place. None: it was not."""
    return next((entry for entry in entries if entry.kind == "rollback" and entry.before == version), None)
