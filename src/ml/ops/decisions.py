"""Every decision on a model, for good: `ops.decisions`, to which rows are added and of which none is ever changed.

One row is one event: what the gate decided, what a person answered, what was promoted, what was rolled back. An event
has an id, and the commit that adds it carries that id as a transaction of the Delta protocol: of two writers of one
event the second is refused, so twice is once, whatever dies. The table is append-only by its own property
(`delta.appendOnly`): every writer that knows the protocol refuses to delete or update in it.
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

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "ops.decisions"
ATTEMPTS = 8  # commits that lost a race are tried again

Kind = Literal["gate", "approval", "promotion", "rollback"]


@dataclass(frozen=True)
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
    rules: tuple[Mapping[str, Any], ...] = ()  # what was tried, measured and asked for
    approver: str | None = None  # the person who answered
    by: str = ""  # who asked for it: a person, or a Dag on its own account
    run_key: str = ""
    run: str = ""  # <dag id>/<run id>, when it was a Dag's
    told: Mapping[str, Any] = field(default_factory=dict)  # what belongs to this kind of event only
    commit: str = ""  # of the code that recorded it; set by `record`
    at: datetime | None = None  # set by `record` when it is not told


def event_id(*parts: str) -> str:
    """The id of an event, from what makes it this event and no other."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def record(event: Event) -> Event:
    """Add an event; one that is there already is given back as it was recorded first."""
    from deltalake import CommitProperties, Transaction, write_deltalake
    from deltalake.exceptions import CommitFailedError, DeltaError

    from ml.storage import tables

    event = replace(event, at=event.at or datetime.now(UTC), commit=os.environ.get("ML_COMMIT", "unknown"))
    rows = _rows(event)
    once = CommitProperties(app_transactions=[Transaction(event.id, 1)])
    for attempt in range(1, ATTEMPTS + 1):
        fresh = not tables.exists(TABLE)
        try:
            if fresh:
                write_deltalake(
                    tables.uri(TABLE),
                    rows,
                    mode="error",
                    configuration={"delta.appendOnly": "true"},
                    storage_options=tables.storage_options(),
                    commit_properties=once,
                )
                return event
            there = tables.table(TABLE)
            if (
                there.metadata().configuration.get("delta.appendOnly") != "true"
            ):  # a table from before, or somebody's hand
                there.alter.set_table_properties({"delta.appendOnly": "true"})
            if there.transaction_version(event.id) is not None:
                (first,) = [one for one in events(event.model) if one.id == event.id]
                return first
            # on the very state in which it was missing: who adds the same event meanwhile makes this commit fail
            write_deltalake(there, rows, mode="append", schema_mode="merge", commit_properties=once)
            return event
        except DeltaError as error:
            lost = isinstance(error, CommitFailedError) or (fresh and tables.exists(TABLE))
            if not lost or attempt == ATTEMPTS:
                raise
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable")


def recorded(event: str) -> bool:
    """Is there an event of this id? Read from the table's log, without its rows."""
    from ml.storage import tables

    return tables.exists(TABLE) and tables.table(TABLE).transaction_version(event) is not None


def events(model: str, *, kind: Kind | None = None, version: str | None = None) -> list[Event]:
    """What was recorded of a model, oldest first."""
    import pyarrow.dataset as ds

    from ml.storage import tables

    if not tables.exists(TABLE):
        return []
    rows = tables.dataset(TABLE)
    if "event" not in rows.schema.names:  # a table from before there were events
        return []
    where = ds.field("model") == model
    if kind is not None:
        where &= ds.field("event") == kind
    if version is not None:
        where &= ds.field("version") == version
    found = []
    for row in rows.to_table(filter=where).to_pylist():
        if row["event"] is None:
            continue
        texts = {
            "reasons": tuple(row["reasons"]),
            "rules": tuple(json.loads(row["rules"])),
            "told": json.loads(row["told"]),
        }
        found.append(Event(**{name: row[name] for name in Event.__dataclass_fields__} | texts))
    return sorted(found, key=lambda one: (one.at, one.id))


def newest(model: str, kind: Kind, version: str) -> Event | None:
    """The last event of a kind about a version."""
    return next(reversed(events(model, kind=kind, version=version)), None)


def _rows(event: Event) -> pa.Table:
    import pyarrow as pa

    row = asdict(event) | {
        "reasons": list(event.reasons),
        "rules": json.dumps([dict(rule) for rule in event.rules], sort_keys=True),
        "told": json.dumps(dict(event.told), sort_keys=True),
    }
    kinds = {"approved": pa.bool_(), "reasons": pa.list_(pa.string()), "at": pa.timestamp("us", "UTC")}
    return pa.Table.from_pylist([row], pa.schema([(name, kinds.get(name, pa.string())) for name in row]))
