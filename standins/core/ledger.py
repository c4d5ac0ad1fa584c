"""The ledger: every submission to a service with its caller, run key, time and outcome.

Entries are only added, and closed once. A request that repeats an earlier one has its own entry, which
refers to the first: so real effects can be counted.
"""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from standins.core.database import Database

ALREADY_ASKED = "already asked"

_COLUMNS = (
    "id, service, operation, subject, run_key, remote_id, request, asked_by, asked_at, outcome, detail, "
    "finished_at, first"
)


@dataclass(frozen=True)
class Entry:
    """One submission. Times are ISO 8601, UTC. `outcome` is None while the work is in progress."""

    id: int
    service: str
    operation: str
    subject: str
    run_key: str | None
    remote_id: str
    request: Any
    asked_by: str | None  # the client id of the token, if there was one
    asked_at: str
    outcome: str | None
    detail: str | None
    finished_at: str | None
    first: int | None  # the entry of the submission that this one repeats


class Ledger:
    """The record of every submission. Thread-safe; survives a restart."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.transaction() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS ledger ("
                " id INTEGER PRIMARY KEY AUTOINCREMENT, service TEXT NOT NULL, operation TEXT NOT NULL,"
                " subject TEXT NOT NULL, run_key TEXT, remote_id TEXT NOT NULL, request TEXT NOT NULL, asked_by TEXT,"
                " asked_at TEXT NOT NULL, outcome TEXT, detail TEXT, finished_at TEXT,"
                " first INTEGER REFERENCES ledger (id))"
            )

    def record(
        self,
        service: str,
        operation: str,
        subject: str,
        run_key: str | None,
        remote_id: str,
        request: Any,
        *,
        asked_by: str | None = None,
        first: int | None = None,
    ) -> int:
        """Add an entry and return its id.

        `subject` is the pipeline, job or dataset, `remote_id` the id that the service assigned, `request` the JSON
        body as received. With `first`, the entry of an earlier, equal request, the new entry is closed at once
        with the outcome "already asked".
        """
        now = _now()
        closed = (ALREADY_ASKED, f"the same request as entry {first}", now) if first is not None else (None, None, None)
        with self._database.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO ledger (service, operation, subject, run_key, remote_id, request, asked_by, asked_at,"
                " outcome, detail, finished_at, first) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    service,
                    operation,
                    subject,
                    run_key,
                    remote_id,
                    json.dumps(request),
                    asked_by,
                    now,
                    *closed,
                    first,
                ),
            )
            if cursor.lastrowid is None:  # only the type allows None: sqlite3 returns an id for every insert
                raise RuntimeError("SQLite returned no id for the ledger entry")
            return cursor.lastrowid

    def finish(self, entry: int, outcome: str, detail: str = "") -> None:
        """Close an entry with its outcome. Later calls have no effect: a resumed run may report again."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE ledger SET outcome = ?, detail = ?, finished_at = ? WHERE id = ? AND finished_at IS NULL",
                (outcome, detail, _now(), entry),
            )

    def entries(self, service: str | None = None, run_key: str | None = None) -> list[Entry]:
        """Every entry, oldest first; optionally of one service or run key."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM ledger"  # noqa: S608 - a constant of this file
                " WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR run_key = ?2) ORDER BY id",
                (service, run_key),
            ).fetchall()
        names = _COLUMNS.split(", ")
        return [Entry(**{**dict(zip(names, row, strict=True)), "request": json.loads(row[6])}) for row in rows]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Ledger of the local cloud</title>
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd; }}
td {{ overflow-wrap: anywhere; }}
th {{ position: sticky; top: 0; background: #f4f4f4; white-space: nowrap; }}
pre {{ margin: 0; white-space: pre-wrap; }}
.again {{ color: #888; }} .open {{ color: #a60; }}
</style>
<h1>Ledger of the local cloud</h1>
<p>{count} submissions, newest first. The same as <a href="/ledger.json">JSON</a>.
Filters: <code>?service=</code> and <code>?run_key=</code>.</p>
<table><thead><tr><th>#<th>requested (UTC)<th>service<th>operation<th>subject<th>run key<th>remote id<th>requested by
<th>outcome<th>finished (UTC)<th>request</tr></thead><tbody>
{rows}
</tbody></table></html>"""


def _row(entry: Entry) -> str:
    outcome = entry.outcome or "in progress"
    if entry.detail:
        outcome += f": {entry.detail}"
    css_class = "again" if entry.first is not None else "" if entry.finished_at else "open"
    cells = [
        entry.id, _clock(entry.asked_at), entry.service, entry.operation, entry.subject, entry.run_key or "–",
        entry.remote_id, entry.asked_by or "–", outcome, _clock(entry.finished_at),
    ]  # fmt: skip
    body = html.escape(json.dumps(entry.request, indent=1))
    folded = f"<details><summary>JSON</summary><pre>{body}</pre></details>"
    return (
        f'<tr class="{css_class}">' + "".join(f"<td>{html.escape(str(cell))}" for cell in cells) + f"<td>{folded}</tr>"
    )


def _clock(time: str | None) -> str:
    return "–" if time is None else datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M:%S")


def routes(ledger: Ledger) -> APIRouter:
    """`GET /ledger` for people, `GET /ledger.json` for tests. No token is needed: the ledger holds no secrets."""
    router = APIRouter()

    @router.get("/ledger.json")
    def as_json(service: str | None = None, run_key: str | None = None) -> dict[str, Any]:
        return {"value": [asdict(entry) for entry in ledger.entries(service, run_key)]}

    @router.get("/ledger")
    def as_page(service: str | None = None, run_key: str | None = None) -> HTMLResponse:
        entries = ledger.entries(service, run_key)
        rows = "\n".join(_row(entry) for entry in reversed(entries))
        return HTMLResponse(_PAGE.format(count=len(entries), rows=rows))

    return router
