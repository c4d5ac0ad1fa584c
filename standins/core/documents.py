"""JSON documents by kind and id: the state of every service."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from typing import Any

from standins.core.database import Database

Document = dict[str, Any]


class Documents:
    """Documents of many kinds in one database. Thread-safe; each call is atomic.

    Documents are copied when they are read and written: changing one that was read does not change the
    stored one.
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
        """Write or replace; a replaced document keeps its position in `list`."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO documents (kind, id, body) VALUES (?, ?, ?)"
                " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                (kind, key, json.dumps(doc)),
            )

    def create(self, kind: str, key: str, doc: Document) -> bool:
        """Write a document unless one with this id exists. False: it exists and is unchanged."""
        with self._database.transaction():
            if self.get(kind, key) is not None:
                return False
            self.put(kind, key, doc)
        return True

    def update(self, kind: str, key: str, change: Callable[[Document], Document]) -> Document:
        """Replace a document by the result of `change`, in one transaction.

        Raises KeyError when there is no such document. When `change` raises, the document is unchanged.
        """
        with self._database.transaction():
            document = self.get(kind, key)
            if document is None:
                raise KeyError(f"no {kind} {key}")
            changed = change(document)
            self.put(kind, key, changed)
        return changed

    def list(self, kind: str) -> builtins.list[tuple[str, Document]]:
        """Every document of a kind with its id, in the order of creation."""
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT id, body FROM documents WHERE kind = ? ORDER BY number", (kind,))
            return [(key, json.loads(body)) for key, body in rows]

    def delete(self, kind: str, key: str) -> None:
        """Remove a document; a missing one is no error."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM documents WHERE kind = ? AND id = ?", (kind, key))
