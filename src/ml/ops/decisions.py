"""`ops.decisions`: every decision on a model, kept for good. Rows are added; no row is ever changed.

One row is one event: what the gate decided, what a person answered, what was promoted, what was rolled back. An event
has an id, and the commit that adds it carries that id as a transaction of the Delta protocol: of two writers of one
event the second is refused, so recording an event twice has the effect of recording it once, whichever process dies.
The table is append-only by its own property (`delta.appendOnly`): every writer that knows the protocol refuses to
delete or update in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "ops.decisions"
ATTEMPTS = 8  # a commit that lost a race is retried

Kind = Literal["gate", "approval", "promotion", "rollback"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One decision. `before` and `after` are the versions in production when it was made, and from then on."""

    id: str
    event: Kind
    model: str
    version: str  # the candidate
    before: str | None
    after: str | None
    approved: bool
    reasons: tuple[str, ...] = ()
    evaluation: str | None = None  # digest of evaluation.json
    model_digest: str | None = None  # sha256 of the model's files
    training_set_version: str | None = None
    rules: tuple[Mapping[str, Any], ...] = ()  # what was checked, measured and required
    approver: str | None = None  # the person who answered
    by: str = ""  # who requested it: a person, or a Dag on its own account
    run_key: str = ""
    run: str = ""  # <dag id>/<run id>, when a Dag's run requested it
    told: Mapping[str, Any] = field(default_factory=dict)  # facts that only this kind of event has
    commit: str = ""  # of the code that recorded it; set by `record`
    at: datetime | None = None  # set by `record` unless given


def event_id(*parts: str) -> str:
    """The id of an event (16 hex digits), from the parts that make it this event and no other."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def record(event: Event) -> Event:
    """Add an event. When its id is recorded already, the first record is returned and nothing is written."""
    from deltalake import CommitProperties, Transaction, write_deltalake
    from deltalake.exceptions import CommitFailedError, DeltaError

    event = replace(event, at=event.at or datetime.now(UTC), commit=os.environ.get("ML_COMMIT", "unknown"))
    rows = _rows(event)
    once = CommitProperties(app_transactions=[Transaction(event.id, 1)])
    for attempt in range(1, ATTEMPTS + 1):
        is_new_table = not tables.exists(TABLE)
        try:
            if is_new_table:
                write_deltalake(
                    tables.uri(TABLE),
                    rows,
                    mode="error",
                    configuration={"delta.appendOnly": "true"},
                    storage_options=tables.storage_options(),
                    commit_properties=once,
                )
                return event
            existing = tables.table(TABLE)
            # the property is missing on a table from before, or when somebody removed it
            if existing.metadata().configuration.get("delta.appendOnly") != "true":
                existing.alter.set_table_properties({"delta.appendOnly": "true"})
            if existing.transaction_version(event.id) is not None:
                (first,) = [recorded for recorded in read_events(event.model) if recorded.id == event.id]
                return first
            # on the very state in which the id was missing: if another writer adds the event meanwhile, this fails
            write_deltalake(existing, rows, mode="append", schema_mode="merge", commit_properties=once)
            return event
        except DeltaError as error:
            lost_race = isinstance(error, CommitFailedError) or (is_new_table and tables.exists(TABLE))
            if not lost_race or attempt == ATTEMPTS:
                raise
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable")


def is_recorded(event_id: str) -> bool:
    """Is there an event of this id? Read from the table's log, without its rows."""
    return tables.exists(TABLE) and tables.table(TABLE).transaction_version(event_id) is not None


def read_events(model: str, *, kind: Kind | None = None, version: str | None = None) -> list[Event]:
    """The events of a model (of one kind, about one version), oldest first."""
    import pyarrow.dataset as ds

    if not tables.exists(TABLE):
        return []
    rows = tables.dataset(TABLE)
    if "event" not in rows.schema.names:  # a table from before events existed
        return []
    where = ds.field("model") == model
    if kind is not None:
        where &= ds.field("event") == kind
    if version is not None:
        where &= ds.field("version") == version
    events = [_event(row) for row in rows.to_table(filter=where).to_pylist() if row["event"] is not None]
    return sorted(events, key=lambda event: (event.at, event.id))


def read_newest(model: str, kind: Kind, version: str) -> Event | None:
    """The last event of a kind about a version."""
    return next(reversed(read_events(model, kind=kind, version=version)), None)


def _event(row: dict[str, Any]) -> Event:
    parsed = {
        "reasons": tuple(row["reasons"]),
        "rules": tuple(json.loads(row["rules"])),
        "told": json.loads(row["told"]),
    }
    return Event(**{name: row[name] for name in Event.__dataclass_fields__} | parsed)


def _rows(event: Event) -> pa.Table:
    import pyarrow as pa

    row = asdict(event) | {
        "reasons": list(event.reasons),
        "rules": json.dumps([dict(rule) for rule in event.rules], sort_keys=True),
        "told": json.dumps(dict(event.told), sort_keys=True),
    }
    kinds = {"approved": pa.bool_(), "reasons": pa.list_(pa.string()), "at": pa.timestamp("us", "UTC")}
    return pa.Table.from_pylist([row], pa.schema([(name, kinds.get(name, pa.string())) for name in row]))
