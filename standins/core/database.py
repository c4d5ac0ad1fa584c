"""One SQLite file for everything that must survive a restart."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Database:
    """A shared connection with transactions that nest. Thread-safe: one thread at a time.

    Write-ahead logging: what was committed is there after `kill -9`.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._depth = 0
        # The stand-ins begin and commit themselves (isolation_level=None) and share the
        # connection between threads under the lock.
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, this thread alone. Inside another transaction it is part of that one."""
        with self._lock:
            if self._depth:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:  # whatever stopped it, the commit on a full disk too: nothing half-written may stay
                if self._connection.in_transaction:  # some errors end it by themselves
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    def close(self) -> None:
        with self._lock:
            self._connection.close()
