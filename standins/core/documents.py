"""JSON documents by kind and id: what every service keeps its state in."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from typing import Any

from standins.core.database import Database

Document = dict[str, Any]


class Documents:
    """Documents of many kinds in one database. Thread-safe; each call is atomic.

    What is handed out and taken in is a copy: changing a document that was read changes nothing
    that is stored.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.transaction() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS documents ("
                " number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,"
                " UNIQUE (kind, id))"
            )

    def get(self, kind: str, key: str) -> Document | None:
        with self._database.transaction() as connection:
            row = connection.execute("SELECT body FROM documents WHERE kind = ? AND id = ?", (kind, key)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, kind: str, key: str, doc: Document) -> None:
        """Write or replace; a replaced document keeps its place in `list`."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO documents (kind, id, body) VALUES (?, ?, ?)"
                " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                (kind, key, json.dumps(doc)),
            )

    def create(self, kind: str, key: str, doc: Document) -> bool:
        """Write it unless there is one with this id. False: there was, and it stays as it is."""
        with self._database.transaction():
            if self.get(kind, key) is not None:
                return False
            self.put(kind, key, doc)
        return True

    def update(self, kind: str, key: str, change: Callable[[Document], Document]) -> Document:
        """Replace a document by what `change` makes of it, nobody else in between.

        Raises KeyError when there is none. Whatever `change` raises leaves the document as it was.
        """
        with self._database.transaction():
            found = self.get(kind, key)
            if found is None:
                raise KeyError(f"no {kind} {key}")
            changed = change(found)
            self.put(kind, key, changed)
        return changed

    def list(self, kind: str) -> builtins.list[tuple[str, Document]]:
        """Every document of a kind with its id, in the order they were created."""
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT id, body FROM documents WHERE kind = ? ORDER BY number", (kind,))
            return [(key, json.loads(body)) for key, body in rows]

    def delete(self, kind: str, key: str) -> None:
        """Remove a document; one that is not there is no error."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM documents WHERE kind = ? AND id = ?", (kind, key))
